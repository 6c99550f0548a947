"""The wheel: what another team installs, what works from it alone, and an app of theirs on it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from decimal import Decimal
from pathlib import Path

import pytest

THEIR_APP = """
import json, os, pathlib, sys
from aws_cdk import App, Stack
from agentops_constructs import AgentSource, MonitoredAgent, MonitoringPlane
import agentops_constructs, agentops_monitoring, constructs

app = App(analytics_reporting=False)
stack = Stack(app, "Theirs")
plane = MonitoringPlane(stack, "Monitoring", environment="theirs", alert_email="them@example.com")
MonitoredAgent(stack, "Agent", monitoring=plane, agent_name="theirs", handler="agent.handler",
               code=AgentSource(pathlib.Path("code")))
app.synth()
print(json.dumps([agentops_constructs.__file__, agentops_monitoring.__file__, constructs.__file__]))
"""
# Imports each module that it is given, and prints what was not found, by the module that asked for it.
IMPORT_ALL = """
import importlib, json, sys
missing = {}
for module in sys.argv[1:]:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing[module] = error.name
print(json.dumps(missing))
"""
USE = """
import sys
exec(open(sys.argv[1]).read())
YourAgent().process()
foreign = sorted({"boto3", "asyncio", "ssl"} & set(sys.modules))
assert not foreign, foreign
"""
THEIR_TEST = """
from agentops_monitoring import AgentOpsMonitor

def test_their_agent(agent_events):
    AgentOpsMonitor("theirs").record_event("test_passed", {"suite": "unit"})
    assert agent_events.one("test_passed").data == {"suite": "unit"}
"""
CAPTURE = """
from agentops_monitoring import AgentOpsMonitor
from agentops_monitoring.testing import capture_events
with capture_events() as events:
    AgentOpsMonitor("theirs").record_event("test_passed", {"suite": "unit"})
assert events.one("test_passed").agent == "theirs"
"""
EXAMPLE = Path(__file__).parents[1] / "unit" / "data" / "seed_monitoring_example.py.txt"
# What runs inside an agent; the rest of the runtime is the plane's, which has boto3.
IN_AGENTS = re.compile(r"agentops_monitoring(\.(instrument|pricing)\b.*|\.\w+)?")
# boto3's own, what one imports of [export], and what its plugin is for.
DECLARED = {"boto3", "botocore", "agentops", "opentelemetry", "pytest"}


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={out}", str(root)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "Could not find a version" in done.stderr or "No matching distribution" in done.stderr:
        pytest.skip("the build backend can't be downloaded here")
    assert done.returncode == 0, done.stderr[-2000:]
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_both_packages_and_never_the_name_constructs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}

    assert top == {"agentops_constructs", "agentops_monitoring"}
    assert "agentops_constructs/export-requirements.txt" in names
    assert "agentops_constructs/py.typed" in names
    assert "agentops_monitoring/pricing/book.json" in names


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the programs of an environment that has the wheel, and nothing else at all."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder)
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", *options]
    subprocess.run([*pip, str(wheel)], check=True, timeout=120)
    return folder / "bin"


def run(program: Path, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment, which sees nothing of the repository."""
    return subprocess.run(
        [program, *arguments], cwd=program.parent, env=variables, capture_output=True, text=True, timeout=60
    )


@pytest.mark.slow
def test_the_users_example_records_from_the_wheel_alone(environment: Path) -> None:
    done = run(environment / "python", "-c", USE, EXAMPLE, AGENTOPS_TRANSPORT="stdout")
    assert (done.returncode, done.stderr) == (0, "")
    events = [json.loads(line)["agentops.event"] for line in done.stdout.splitlines()]
    assert [one["type"] for one in events] == ["issue_detected", "llm_usage", "decision_made"]
    assert Decimal(events[1]["data"]["cost_usd"]) == Decimal("0.0525")  # $15 and $75 a million tokens


@pytest.mark.slow
def test_every_module_asks_for_no_more_than_the_wheel_declares(wheel: Path, environment: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sources = [name for name in archive.namelist() if name.endswith(".py")]
    names = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in sources]
    modules = [name for name in names if not name.endswith(".__main__")]
    done = run(environment / "python", "-c", IMPORT_ALL, *modules)
    assert done.returncode == 0, done.stderr[-2000:]
    missing = json.loads(done.stdout)
    ours = {name for name in missing if name.startswith("agentops_constructs")}
    assert ours == {name for name in names if name.startswith("agentops_constructs")}
    assert {missing[name] for name in ours} == {"aws_cdk"}
    assert {missing[name] for name in missing.keys() - ours} <= DECLARED
    assert [name for name in missing if IN_AGENTS.fullmatch(name)] == []


@pytest.mark.slow
@pytest.mark.parametrize("program", [["agentops-monitoring"], ["python", "-m", "agentops_monitoring"]])
def test_the_command_says_what_it_can_do(environment: Path, program: list[str]) -> None:
    name, *arguments = program
    done = run(environment / name, *arguments, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: agentops-monitoring ")
    assert "replay" in done.stdout


@pytest.mark.slow
def test_the_testing_kit_is_there_with_pytest_and_without(environment: Path, tmp_path: Path) -> None:
    alone = run(environment / "python", "-c", CAPTURE)
    assert (alone.returncode, alone.stderr, alone.stdout) == (0, "", "")
    theirs = tmp_path / "test_theirs.py"
    theirs.write_text(THEIR_TEST)
    with_pytest = {"PYTHONPATH": str(Path(pytest.__file__).parents[1])}
    done = run(environment / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", theirs, **with_pytest)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_the_constructs_name_the_extra_that_they_need(environment: Path) -> None:
    done = run(environment / "python", "-c", "import agentops_constructs")
    assert done.returncode == 1
    assert "pip install 'agentops-monitoring[cdk]'" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_another_team_s_app_synthesizes_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    installed, theirs = tmp_path / "installed", tmp_path / "theirs"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    (theirs / "code").mkdir(parents=True)
    (theirs / "code" / "agent.py").write_text("def handler(event, context): return 1\n")
    (theirs / "app.py").write_text(THEIR_APP)
    out = tmp_path / "out"

    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=theirs,
        env={
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", ""),
            "PYTHONPATH": str(installed),
            "CDK_OUTDIR": str(out),
            "CDK_VALIDATION": "false",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    ours, runtime, constructs = json.loads(done.stdout.splitlines()[-1])
    assert Path(ours).is_relative_to(installed)
    assert Path(runtime).is_relative_to(installed)
    assert "site-packages" in Path(constructs).parts
    template = json.loads((out / "Theirs.template.json").read_text())
    agent = next(
        each["Properties"]
        for each in template["Resources"].values()
        if each["Type"] == "AWS::Lambda::Function" and "AGENTOPS_HANDLER" in str(each)
    )
    asset = out / f"asset.{agent['Code']['S3Key'].removesuffix('.zip')}"
    assert (asset / "agent.py").is_file()
    assert (asset / "agentops_monitoring" / "wrapper.py").is_file()

"""The wheel: what another team installs, and an app of theirs on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
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

"""`python app.py` as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import constructs
import pytest
from aws_cdk.assertions import Annotations, Match

from stacks.application import build

from .conftest import EVERYTHING, NO_BUNDLING


def run_app(root: Path, out: Path, **context: str) -> subprocess.CompletedProcess[str]:
    """Run the app with nothing on PYTHONPATH, and nothing of this process's environment but the PATH."""
    environment = {
        "PATH": os.environ["PATH"],
        # Where jsii keeps what it has unpacked; to unpack it again takes seconds.
        "HOME": os.environ.get("HOME", str(out)),
        "CDK_OUTDIR": str(out),
        "CDK_VALIDATION": "false",
        "CDK_CONTEXT_JSON": json.dumps({**NO_BUNDLING, **context}),
    }
    return subprocess.run(
        [sys.executable, "app.py"], cwd=root, env=environment, capture_output=True, text=True, timeout=120
    )


class Synth(NamedTuple):
    """The app with all its settings, synthesized: what it said and left, and the processor's seconds."""

    done: subprocess.CompletedProcess[str]
    out: Path
    seconds: float


@pytest.fixture(scope="module")
def synth(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Synth:
    out = tmp_path_factory.mktemp("synth")
    # Processor time, so that what else this machine does at the moment does not count.
    before = os.times()
    done = run_app(root, out, environment="staging", **EVERYTHING)
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return Synth(done, out, seconds)


def test_it_synthesizes_with_nothing_on_the_python_path_and_says_what_monitoring_costs(synth: Synth) -> None:
    done, out, seconds = synth
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("staging: monitoring costs at most $")
    stacks = {path.name.removesuffix(".template.json") for path in out.glob("*.template.json")}
    assert stacks == {
        f"AgentOps-{part}-staging" for part in ("Monitoring", "Agents", "Dashboards", "Workload")
    }
    assert seconds < 10


@pytest.mark.parametrize(
    "context",
    [
        {"environment": "my production"},
        {"daily_budget_usd": "-5"},
        {"alert_email": "ops.example.com"},
    ],
)
def test_wrong_context_is_one_line_and_exit_code_1(
    context: dict[str, str], root: Path, tmp_path: Path
) -> None:
    done = run_app(root, tmp_path, **context)

    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: context ")
    assert next(iter(context)) in line


def test_no_e_mail_address_is_a_warning(root: Path, tmp_path: Path) -> None:
    done = run_app(root, tmp_path)

    assert done.returncode == 0, done.stderr
    metadata = (tmp_path / "AgentOps-Monitoring-production.metadata.json").read_text()
    assert "alarms reach nobody" in metadata


def test_two_synths_give_the_same_templates(root: Path, tmp_path: Path, synth: Synth) -> None:
    assert run_app(root, tmp_path, environment="staging", **EVERYTHING).returncode == 0

    names = sorted(path.name for path in synth.out.glob("*.template.json"))
    assert len(names) == 4
    for name in names:
        assert (synth.out / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_folder_that_hides_the_package_constructs_is_one_line(root: Path, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text((root / "app.py").read_text())
    (tmp_path / "constructs").mkdir()
    (tmp_path / "constructs" / "__init__.py").touch()

    done = run_app(tmp_path, tmp_path)

    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "hides the package 'constructs'" in line


def test_node_need_not_be_installed(root: Path, tmp_path: Path) -> None:
    environment = {"PATH": "", "HOME": os.environ.get("HOME", ""), "CDK_VALIDATION": "false"}
    environment |= {"CDK_OUTDIR": str(tmp_path), "CDK_CONTEXT_JSON": json.dumps(NO_BUNDLING)}
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=root, env=environment, capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stderr


def test_the_folder_constructs_does_not_shadow_the_package(root: Path) -> None:
    assert "site-packages" in Path(constructs.__file__ or "").parts
    assert not (root / "constructs" / "__init__.py").exists()


def test_without_the_cdk_the_import_says_how_to_install_it_from_an_index_and_from_a_clone(root: Path) -> None:
    code = "import sys; sys.modules['aws_cdk'] = None; import agentops_constructs"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": os.pathsep.join([str(root / "constructs"), str(root / "runtime")])},
        capture_output=True,
        text=True,
        timeout=60,
    )

    line = done.stderr.strip().splitlines()[-1]
    assert "pip install 'agentops-monitoring[cdk]'" in line
    assert "pip install '.[cdk]'" in line


@pytest.mark.parametrize(
    ("model", "warned"),
    [
        ("global.anthropic.claude-sonnet-5-5", False),
        ("anthropic.claud-sonet", True),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123", False),
    ],
)
def test_a_model_without_a_price_is_a_warning(model: str, warned: bool) -> None:
    application = build({**NO_BUNDLING, "model_id": model})
    line = f"calls of {model} will be counted as unpriced, not as \\$0"

    found = Annotations.from_stack(application.stacks["agents"]).find_warning(
        "*", Match.string_like_regexp(line)
    )
    assert bool(found) is warned

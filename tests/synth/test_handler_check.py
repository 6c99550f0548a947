"""A handler that the agent's folder does not hold fails the synth, and no other one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Stack
from aws_cdk import aws_lambda as lambda_

from agentops_constructs import AgentSource, MonitoredAgent, MonitoringPlane
from agentops_constructs.handler_check import check_handler

from .conftest import NO_BUNDLING

FILES = {
    "manager.py": "def handler(event, context): return 1\n",
    "typed.py": "handler: object = print\n",
    "again.py": "from manager import handler\n",
    "star.py": "from manager import *\n",
    "lazy.py": "def __getattr__(name): return print\n",
    "fast.cpython-313-aarch64-linux-gnu.so": "",
    "team/__init__.py": "from .lead import handler\n",
    "team/lead.py": "async def handler(event, context): return 1\n",
    "plain/tool.py": "class handler: pass\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "code"


MODULES = [
    "manager",
    "typed",
    "again",
    "star",
    "lazy",
    "fast",
    "team",
    "team.lead",
    "team/lead",
    "plain/tool",
]


@pytest.mark.parametrize("package", ["", "agents"])
@pytest.mark.parametrize("module", MODULES)
def test_what_the_folder_holds_is_taken(folder: Path, module: str, package: str) -> None:
    prefix = f"{package}." if package else ""
    check_handler("a", AgentSource(folder, package=package), f"{prefix}{module}.handler")


@pytest.mark.parametrize(
    ("package", "handler", "expected", "meant"),
    [
        ("", "managr.handler", "there is no managr.py in", "manager.handler"),
        ("", "Manager.handler", "there is no Manager.py in", "manager.handler"),
        ("", "team/laed.handler", "there is no team/laed.py in", "team.lead.handler"),
        ("", "lead.handler", "there is no lead.py in", "team.lead.handler"),
        ("", "plain.handler", "there is no plain.py in", None),
        ("", "nothing_alike_at_all.handler", "there is no nothing_alike_at_all.py in", None),
        ("agents", "manager.handler", "is bundled as the package 'agents'", "agents.manager.handler"),
        ("agents", "agents.managr.handler", "there is no managr.py in", "agents.manager.handler"),
        ("agents", "agents.handler", "there is no __init__.py in", None),
        ("", "manager.handle", "manager.py has no 'handle'", "manager.handler"),
        ("", "handler", "expected module.function", None),
        ("", ".handler", "expected module.function", None),
        ("", "manager.", "expected module.function", None),
    ],
)
def test_what_it_does_not_hold_is_one_line_with_the_file_and_near_misses(
    folder: Path, package: str, handler: str, expected: str, meant: str | None
) -> None:
    with pytest.raises(ValueError) as caught:
        check_handler("helper", AgentSource(folder, package=package), handler)

    line = str(caught.value)
    assert "\n" not in line
    assert f"agent 'helper': handler {handler!r}" in line
    assert expected in line
    assert meant is None or f"did you mean {meant}" in line


def test_a_typo_fails_the_construct_unless_the_handler_may_be_elsewhere(folder: Path) -> None:
    stack = Stack(App(context=NO_BUNDLING, analytics_reporting=False), "Team")
    plane = MonitoringPlane(stack, "Monitoring", environment="team", alert_email="team@example.com")
    layer = lambda_.LayerVersion.from_layer_version_arn(
        stack, "Layer", "arn:aws:lambda:us-east-1:123456789012:layer:theirs:1"
    )
    code = AgentSource(folder)

    def make(id: str, **more: Any) -> None:
        MonitoredAgent(
            stack, id, monitoring=plane, agent_name=id, code=code, handler="managr.handler", **more
        )

    with pytest.raises(ValueError, match="managr"):
        make("Typo")
    make("Layered", layers=[layer])
    make("Pathed", environment={"PYTHONPATH": "/opt/mine"})

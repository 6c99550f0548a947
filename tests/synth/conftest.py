"""The app, built once for each environment that the tests look at."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Stack, assertions
from aws_cdk import aws_lambda as lambda_

from agentops_constructs import MonitoredAgent, MonitoringPlane
from agentops_constructs.validation import dashboard_body
from stacks.application import build

ASSET_HASH = re.compile(r"\b[0-9a-f]{64}\b")
# Asset contents do not matter to a template: nothing is bundled.
NO_BUNDLING: dict[str, Any] = {"aws:cdk:bundling-stacks": []}
EVERYTHING = {
    "alert_email": "ops@example.com",
    "agentops_api_key_secret": "agentops/api-key",
    "sample_workload": "true",
    "agents_schedule": "rate(1 hour)",
    "watch": "checkout,alarm:Orders-Late",
}

Template = dict[str, Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep these tests in one worker, which then starts jsii and builds each app once."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("synth"))


@dataclass(frozen=True)
class Resource:
    """A resource of a template."""

    stack: str
    logical_id: str
    type: str
    body: Mapping[str, Any]

    @property
    def properties(self) -> Mapping[str, Any]:
        properties: Mapping[str, Any] = self.body.get("Properties", {})
        return properties


@dataclass(frozen=True)
class Templates:
    """The templates of an app by the part they deploy: monitoring, agents, dashboards, workload."""

    by_part: Mapping[str, Template]

    def __getitem__(self, part: str) -> Template:
        return self.by_part[part]

    def resources(self, *types: str) -> Iterator[Resource]:
        for part, template in self.by_part.items():
            for logical_id, body in template["Resources"].items():
                if not types or body["Type"] in types:
                    yield Resource(part, logical_id, body["Type"], body)

    def one(self, type: str, **properties: Any) -> Resource:
        """Return the only resource of a type with these properties."""
        found = [
            each
            for each in self.resources(type)
            if all(each.properties.get(name) == value for name, value in properties.items())
        ]
        assert len(found) == 1, f"{len(found)} of {type} with {properties}"
        return found[0]


def listed(value: Any) -> list[Any]:
    """Return what a policy gives as one value or a list of them, as a list."""
    return value if isinstance(value, list) else [value]


@cache
def synthesized(environment: str, **context: str) -> Templates:
    """Return the templates of the app in an environment."""
    application = build({**NO_BUNDLING, "environment": environment, **context})
    assembly = application.app.synth()
    return Templates(
        {
            part: json.loads(
                Path(assembly.get_stack_by_name(stack.stack_name).template_full_path).read_text()
            )
            for part, stack in application.stacks.items()
        }
    )


def readable(template: Template) -> Template:
    """Return a template without asset hashes and the CLI's own parts, dashboards as data."""
    shown: Template = json.loads(ASSET_HASH.sub("<asset>", json.dumps(template)))
    shown.get("Parameters", {}).pop("BootstrapVersion", None)
    shown.pop("Rules", None)
    for resource in shown["Resources"].values():
        resource.pop("Metadata", None)
        if resource["Type"] == "AWS::CloudWatch::Dashboard":
            properties = resource["Properties"]
            properties["DashboardBody"] = dashboard_body(properties["DashboardBody"])
    return shown


@pytest.fixture(scope="session")
def production() -> Templates:
    """Production with an e-mail address and a secret, and no sample workload."""
    return synthesized(
        "production", alert_email="ops@example.com", agentops_api_key_secret="agentops/api-key"
    )


@pytest.fixture(scope="session")
def everything() -> Templates:
    """Another environment with every option."""
    return synthesized("staging", **EVERYTHING)


@pytest.fixture
def stack() -> Stack:
    """Return the stack of another team."""
    return Stack(App(context=NO_BUNDLING, analytics_reporting=False), "Team")


@pytest.fixture
def plane(stack: Stack) -> MonitoringPlane:
    """Return a plane in it."""
    return MonitoringPlane(stack, "Monitoring", environment="team", alert_email="team@example.com")


@pytest.fixture
def agent(stack: Stack, plane: MonitoringPlane) -> Callable[..., MonitoredAgent]:
    """Return a function that makes an agent in it."""

    def make(**changes: Any) -> MonitoredAgent:
        given = {
            "monitoring": plane,
            "agent_name": "helper",
            "code": lambda_.Code.from_inline("def handler(event, context): return 1"),
            "handler": "index.handler",
            **changes,
        }
        return MonitoredAgent(stack, given.pop("id", "Helper"), **given)

    return make


def synth(stack: Stack) -> assertions.Template:
    """Return the template of a stack."""
    return assertions.Template.from_stack(stack)


def policy_statements(stack: Stack) -> list[dict[str, Any]]:
    """Return the statements of every policy in a stack."""
    return [
        statement
        for policy in synth(stack).find_resources("AWS::IAM::Policy").values()
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
    ]


def allowed_actions(stack: Stack) -> set[str]:
    """Return every action that a stack\'s policies name."""
    found: set[str] = set()
    for statement in policy_statements(stack):
        found |= {statement["Action"]} if isinstance(statement["Action"], str) else set(statement["Action"])
    return found


def failing_synth(stack: Stack) -> str:
    """Return why a stack\'s app does not synthesize."""
    app = stack.node.root
    assert isinstance(app, App)
    with pytest.raises(RuntimeError, match="Validation failed") as caught:
        app.synth()
    return str(caught.value)

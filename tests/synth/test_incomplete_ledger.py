"""What says that the ledger is incomplete also says what to do about it."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from aws_cdk import App, Stack
from aws_cdk.assertions import Template

from agentops_constructs import MonitoringAlarms, MonitoringPlane
from agentops_monitoring import cli
from tests.synth.conftest import NO_BUNDLING


@pytest.mark.parametrize(("metric", "option"), [("LostEvents", "--from-logs"), ("LaterLines", "--later")])
def test_the_alarm_names_the_command(metric: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack(App(context=NO_BUNDLING), "Plane")
    plane = MonitoringPlane(stack, "Monitoring", environment="team")
    MonitoringAlarms(stack, "Alarms", monitoring=plane, daily_budget_usd=10)
    (alarm,) = (
        each["Properties"]
        for each in Template.from_stack(stack).find_resources("AWS::CloudWatch::Alarm").values()
        if each["Properties"]["AlarmName"] == f"AgentOps-team-{metric}"
    )
    assert (alarm["Threshold"], alarm["ComparisonOperator"]) == (0, "GreaterThanThreshold")
    assert f"'MetricName': '{metric}', 'Namespace': 'AgentOps/Monitor'" in str(alarm)
    assert len(alarm["AlarmActions"]) == 1
    # The command is taken as it stands there.
    told = alarm["AlarmDescription"].partition("agentops-monitoring ")[2]
    seen: list[Any] = []

    def run(parsed: Any) -> int:
        seen.append(parsed)
        return 0

    monkeypatch.setattr("agentops_monitoring.cli.replay._run", run)
    assert cli.main(shlex.split(told)) == 0
    assert seen[0].environment == "team"
    assert getattr(seen[0], option.strip("-").replace("-", "_"))

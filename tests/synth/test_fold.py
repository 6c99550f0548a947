"""The function that folds: when it runs, and who hears of it when it keeps failing."""

from __future__ import annotations

from aws_cdk import Stack
from aws_cdk.assertions import Match

from agentops_constructs import MonitoringAlarms, MonitoringPlane

from .conftest import synth


def test_it_runs_each_quarter_of_an_hour_and_an_alarm_sees_two_failures(
    stack: Stack, plane: MonitoringPlane
) -> None:
    MonitoringAlarms(stack, "Alarms", monitoring=plane, daily_budget_usd=5)
    template = synth(stack)
    (function,) = (
        logical_id
        for logical_id, one in template.find_resources("AWS::Lambda::Function").items()
        if one["Properties"]["FunctionName"] == "agentops-fold-team"
    )
    template.has_resource_properties(
        "AWS::Events::Rule",
        {
            "ScheduleExpression": "rate(15 minutes)",
            "Targets": [Match.object_like({"Arn": {"Fn::GetAtt": [function, "Arn"]}})],
        },
    )
    (alarm,) = (
        one["Properties"]
        for one in template.find_resources("AWS::CloudWatch::Alarm").values()
        if one["Properties"]["AlarmName"] == "AgentOps-team-PlaneErrors"
    )
    metrics = [each["MetricStat"] for each in alarm["Metrics"] if "MetricStat" in each]
    assert "agentops-fold-team" in str(metrics)
    (period,) = {each["Period"] for each in metrics}
    # Two runs in a row are within the window.
    assert (alarm["DatapointsToAlarm"], alarm["EvaluationPeriods"] * period) == (2, 30 * 60)

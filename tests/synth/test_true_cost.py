"""What the templates say of a function's price, and of the daily reconciliation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aws_cdk import Size, Stack
from aws_cdk.assertions import Match

from agentops_constructs import MonitoredAgent, MonitoringAlarms, MonitoringPlane

from .conftest import policy_statements, synth


@pytest.mark.parametrize(("mebibytes", "said"), [(512, ""), (2048, "|tmp=2048")])
def test_storage_that_costs_is_in_the_name_by_which_ingest_prices(
    stack: Stack, agent: Callable[..., MonitoredAgent], mebibytes: int, said: str
) -> None:
    agent(ephemeral_storage_size=Size.mebibytes(mebibytes))
    name = f"agentops|team|helper|arm64{said}"
    template = synth(stack)
    template.has_resource_properties("AWS::Logs::SubscriptionFilter", {"FilterName": name})
    # The alarm on lines that do not arrive finds the filter by its name.
    watched = {"Dimensions": Match.array_with([{"Name": "FilterName", "Value": name}])}
    template.has_resource_properties("AWS::CloudWatch::Alarm", {**watched, "MetricName": "DeliveryErrors"})


def test_what_is_kept_ready_is_asked_for_as_often_as_it_is_billed(
    stack: Stack, plane: MonitoringPlane
) -> None:
    template = synth(stack)
    (function,) = (
        logical_id
        for logical_id, one in template.find_resources("AWS::Lambda::Function").items()
        if one["Properties"]["FunctionName"] == "agentops-ready-team"
    )
    template.has_resource_properties(
        "AWS::Events::Rule",
        {
            "ScheduleExpression": "rate(5 minutes)",
            "Targets": [Match.object_like({"Arn": {"Fn::GetAtt": [function, "Arn"]}})],
        },
    )
    asked = {"lambda:GetFunctionConfiguration", "lambda:ListProvisionedConcurrencyConfigs"}
    (statement,) = (each for each in policy_statements(stack) if asked & set(each["Action"]))
    assert set(statement["Action"]) == asked


def test_each_day_is_reconciled_in_the_morning_after_it(stack: Stack, plane: MonitoringPlane) -> None:
    MonitoringAlarms(stack, "Alarms", monitoring=plane, daily_budget_usd=5)
    template = synth(stack)
    (function,) = (
        logical_id
        for logical_id, one in template.find_resources("AWS::Lambda::Function").items()
        if one["Properties"]["FunctionName"] == "agentops-reconcile-team"
    )
    template.has_resource_properties(
        "AWS::Events::Rule",
        {
            "ScheduleExpression": "cron(0 6 * * ? *)",
            "Targets": [Match.object_like({"Arn": {"Fn::GetAtt": [function, "Arn"]}})],
        },
    )
    metric = {
        "Dimensions": [{"Name": "Environment", "Value": "team"}],
        "MetricName": "ReconciliationInvocations",
        "Namespace": "AgentOps/Monitor",
    }
    watched = {"Metric": metric, "Period": 3600, "Stat": "Maximum"}
    template.has_resource_properties(
        "AWS::CloudWatch::Alarm",
        {
            "AlarmName": "AgentOps-team-Reconciliation",
            "Metrics": [Match.object_like({"MetricStat": watched})],
            "Threshold": 1,
            "ComparisonOperator": "GreaterThanThreshold",
            # Once a day there is a value: the hours without one are no breach, and end it.
            "TreatMissingData": "notBreaching",
        },
    )
    asked = {"cloudwatch:GetMetricData", "cloudwatch:ListMetrics"}
    (statement,) = (each for each in policy_statements(stack) if asked & set(each["Action"]))
    assert set(statement["Action"]) == asked

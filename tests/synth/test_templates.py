"""What matters in the templates, whatever they look like."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from agentops_constructs.plane_functions import PLANE_FUNCTIONS
from stacks.workload_stack import shop_functions

from .conftest import Resource, Templates, listed, synthesized

LAMBDA, ROLE, POLICY = "AWS::Lambda::Function", "AWS::IAM::Role", "AWS::IAM::Policy"
TABLE, ALARM, RULE = "AWS::DynamoDB::GlobalTable", "AWS::CloudWatch::Alarm", "AWS::Events::Rule"
FILTER, LOGS = "AWS::Logs::SubscriptionFilter", "AWS::Logs::LogGroup"
AGENTS = ("manager", "engineer", "qa")


def statements(templates: Templates) -> Iterator[tuple[Resource, Mapping[str, Any]]]:
    for policy in templates.resources(POLICY):
        for statement in policy.properties["PolicyDocument"]["Statement"]:
            yield policy, statement


def text(value: Any) -> str:
    return json.dumps(value)


# --- names


def test_production_has_the_documented_names(production: Templates) -> None:
    assert {each.properties["TableName"] for each in production.resources(TABLE)} == {
        "agent-monitoring",
        "agent-decisions",
        "agent-ledger",
    }
    assert production.one("AWS::SNS::Topic").properties["TopicName"] == "agentops-cost-alerts"
    dashboards = {
        each.properties["DashboardName"] for each in production.resources("AWS::CloudWatch::Dashboard")
    }
    assert dashboards == {
        "AgentOps-Monitoring",
        "AgentOps-Monitoring-Cost",
        "AgentOps-Monitoring-Collaboration",
    }


def test_any_other_environment_has_them_with_its_own_name_behind(everything: Templates) -> None:
    assert all(each.properties["TableName"].endswith("-staging") for each in everything.resources(TABLE))
    assert everything.one("AWS::SNS::Topic").properties["TopicName"] == "agentops-cost-alerts-staging"
    for dashboard in everything.resources("AWS::CloudWatch::Dashboard"):
        assert dashboard.properties["DashboardName"].endswith("-staging")


def test_no_name_of_one_environment_is_in_another(production: Templates, everything: Templates) -> None:
    def names(templates: Templates) -> set[str]:
        return {
            value
            for each in templates.resources()
            if each.type != POLICY  # named within its role
            for key, value in each.properties.items()
            if key in ("Name", each.type.rsplit("::")[-1] + "Name", "TableName", "AlarmName", "LogGroupName")
            and isinstance(value, str)
        }

    shop = {f"/aws/lambda/{each.name}" for each in shop_functions()}
    assert names(production) & (names(everything) - shop) == set()


def test_a_second_region_tells_its_dashboards_apart() -> None:
    templates = synthesized("production", dashboard_suffix="eu")

    names = {each.properties["DashboardName"] for each in templates.resources("AWS::CloudWatch::Dashboard")}
    assert names == {
        "AgentOps-Monitoring-eu",
        "AgentOps-Monitoring-Cost-eu",
        "AgentOps-Monitoring-Collaboration-eu",
    }


def test_the_outputs_have_the_three_dashboards_addresses(production: Templates) -> None:
    outputs = production["dashboards"]["Outputs"]

    for name, dashboard in {
        "MainDashboardUrl": "AgentOps-Monitoring",
        "CostDashboardUrl": "AgentOps-Monitoring-Cost",
        "CollaborationDashboardUrl": "AgentOps-Monitoring-Collaboration",
    }.items():
        assert text(outputs[name]["Value"]).rstrip('"]}').endswith(f"#dashboards:name={dashboard}")


def test_everything_that_can_be_tagged_says_whose_it_is(everything: Templates) -> None:
    for each in everything.resources(LAMBDA, ROLE, LOGS, ALARM, "AWS::SQS::Queue", "AWS::S3::Bucket"):
        tags = {tag["Key"]: tag["Value"] for tag in each.properties["Tags"]}
        assert tags["application"] == "agentops-monitoring", each.logical_id
        assert tags["environment"] == "staging", each.logical_id


# --- data


def test_production_keeps_its_data_but_not_that_of_a_failed_creation(production: Templates) -> None:
    kept = [*production.resources(TABLE), production.one("AWS::S3::Bucket")]

    for each in kept:
        assert each.body["DeletionPolicy"] == "RetainExceptOnCreate", each.logical_id
        assert each.body["UpdateReplacePolicy"] == "Retain", each.logical_id
    for table in production.resources(TABLE):
        assert table.properties["Replicas"][0]["DeletionProtectionEnabled"] is True


def test_other_environments_leave_nothing_behind(everything: Templates) -> None:
    for each in everything.resources():
        assert each.body.get("DeletionPolicy", "Delete") == "Delete", each.logical_id
    for table in everything.resources(TABLE):
        assert table.properties["Replicas"][0]["DeletionProtectionEnabled"] is False


def test_tables_are_on_demand_recoverable_and_expire(production: Templates) -> None:
    for table in production.resources(TABLE):
        assert table.properties["BillingMode"] == "PAY_PER_REQUEST"
        recovery = table.properties["Replicas"][0]["PointInTimeRecoverySpecification"]
        assert recovery == {"PointInTimeRecoveryEnabled": True}
        assert table.properties["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}


# --- permissions and secrets


def test_no_role_may_do_everything_with_anything(everything: Templates) -> None:
    for policy, statement in statements(everything):
        if statement["Effect"] == "Allow":
            assert not [action for action in listed(statement["Action"]) if "*" in action], policy.logical_id


# Of functions and queues that carry the tag, which stands in for their names.
STOPPABLE = {"StringEquals": {"aws:ResourceTag/agentops:stoppable": "staging"}}


def test_a_wildcard_stands_only_where_aws_knows_nothing_narrower(everything: Templates) -> None:
    wild = {
        (text(action).strip('"'), text(resource))
        for _, statement in statements(everything)
        if statement["Effect"] == "Allow" and statement.get("Condition") != STOPPABLE
        for action in listed(statement["Action"])
        for resource in listed(statement["Resource"])
        if "*" in text(resource)
    }
    reasons = {
        "cloudwatch:GetMetricData": '"*"',
        "cloudwatch:ListMetrics": '"*"',
        # The alarms of any agent that can be stopped, by their names.
        "cloudwatch:": ":alarm:AgentOps-staging-FailedEvents-*",
        # The agents' functions, which are in other stacks.
        "lambda:GetFunctionConfiguration": ":function:*",
        "lambda:ListProvisionedConcurrencyConfigs": ":function:*",
        "ec2:": '"*"',
        "s3:": '"/*"',
        "bedrock:": ":bedrock:*::foundation-model/",
        # Of any function, since an alarm is watched too.
        "logs:FilterLogEvents": ":log-group:/aws/lambda/*:*",
    }
    unexplained = [
        (action, resource)
        for action, resource in wild
        if not any(action.startswith(start) and pattern in resource for start, pattern in reasons.items())
    ]
    assert not unexplained


def test_no_role_has_a_managed_policy(everything: Templates) -> None:
    assert not [
        role.logical_id for role in everything.resources(ROLE) if role.properties.get("ManagedPolicyArns")
    ]


def test_agents_hold_no_permission_on_the_tables(everything: Templates) -> None:
    for policy, statement in statements(everything):
        if policy.stack == "agents":
            assert not [action for action in listed(statement["Action"]) if action.startswith("dynamodb:")]


def test_no_template_holds_a_secret(everything: Templates) -> None:
    for function in everything.resources(LAMBDA):
        variables = function.properties.get("Environment", {}).get("Variables", {})
        assert "AGENTOPS_API_KEY" not in variables
        for name in variables:
            assert not re.search("PASSWORD|TOKEN|_KEY$", name) or name == "SOURCE_KEY", name
    export = everything.one(LAMBDA, FunctionName="agentops-export-staging")
    assert export.properties["Environment"]["Variables"]["AGENTOPS_API_KEY_SECRET"] == "agentops/api-key"


def test_without_a_secret_nothing_is_exported() -> None:
    templates = synthesized("staging")

    assert "agentops-export-staging" not in {
        each.properties["FunctionName"] for each in templates.resources(LAMBDA)
    }


# --- the way from a line to the ledger


def test_every_function_writes_json_to_a_log_group_that_expires(everything: Templates) -> None:
    groups = {each.logical_id: each for each in everything.resources(LOGS)}
    functions = list(everything.resources(LAMBDA))
    assert len(functions) == len(PLANE_FUNCTIONS) + 4 + len(shop_functions())
    for function in functions:
        logging = function.properties["LoggingConfig"]
        assert logging["LogFormat"] == "JSON"
        assert groups[logging["LogGroup"]["Ref"]].properties["RetentionInDays"] <= 31
        assert function.properties["Runtime"] == "python3.13"
        assert function.properties["Architectures"] == ["arm64"]


def test_the_lines_of_each_agent_and_of_the_sandbox_reach_ingest(everything: Templates) -> None:
    filters = {each.properties["FilterName"]: each for each in everything.resources(FILTER)}

    assert set(filters) == {f"agentops|staging|{name}|arm64" for name in (*AGENTS, "sandbox")}
    for each in filters.values():
        assert each.properties["FilterPattern"] == (
            '?"agentops.event" ?"platform.report" ?"REPORT RequestId"'
        )
        assert "ingestfunctionarn" in text(each.properties["DestinationArn"])


def test_one_permission_serves_every_log_group_of_this_account(everything: Templates) -> None:
    allowed = everything.one("AWS::Lambda::Permission", Principal="logs.amazonaws.com").properties

    assert text(allowed["SourceArn"]).endswith(':log-group:*"]]}')
    assert allowed["SourceAccount"] == {"Ref": "AWS::AccountId"}


def test_the_plane_s_own_log_groups_are_never_subscribed(everything: Templates) -> None:
    assert {each.stack for each in everything.resources(FILTER)} == {"agents"}


@pytest.mark.parametrize("agent", AGENTS)
def test_an_agent_runs_behind_the_wrapper(agent: str, everything: Templates) -> None:
    function = everything.one(LAMBDA, FunctionName=f"agentops-{agent}-staging").properties
    variables = function["Environment"]["Variables"]

    assert function["Handler"] == "agentops_monitoring.wrapper.handler"
    assert variables["AGENTOPS_HANDLER"] == f"agents.{agent}.handler"
    assert variables["AGENTOPS_AGENT_NAME"] == agent
    assert variables["AGENTOPS_TRANSPORT"] == "stdout"
    assert variables["ENVIRONMENT"] == "staging"


@pytest.mark.parametrize("agent", AGENTS)
def test_what_an_agent_fails_on_is_kept(agent: str, everything: Templates) -> None:
    function = everything.one(LAMBDA, FunctionName=f"agentops-{agent}-staging")
    config = everything.one("AWS::Lambda::EventInvokeConfig", FunctionName={"Ref": function.logical_id})
    queue = config.properties["DestinationConfig"]["OnFailure"]["Destination"]["Fn::GetAtt"][0]

    assert everything["agents"]["Resources"][queue]["Type"] == "AWS::SQS::Queue"


def test_every_rule_between_agents_matches_its_environment_alone(everything: Templates) -> None:
    patterns = [
        each.properties["EventPattern"]
        for each in everything.resources(RULE)
        if "EventPattern" in each.properties
    ]
    assert {kind for pattern in patterns for kind in pattern["detail-type"]} >= {
        "issue.reported",
        "issue.found",
        "patch.ready",
        "patch.rejected",
    }
    for pattern in patterns:
        if pattern.get("source") == ["aws.cloudwatch"]:
            assert pattern["detail"]["alarmName"] == [
                {"prefix": "AgentOps-staging-Watch-"},
                "Orders-Late",
            ]
        else:
            assert pattern["detail"]["environment"] == ["staging"]


def test_export_reads_new_items_alone_and_reports_each_failure(everything: Templates) -> None:
    mapping = everything.one("AWS::Lambda::EventSourceMapping").properties

    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["FilterCriteria"]["Filters"] == [{"Pattern": '{"eventName":["INSERT"]}'}]
    assert mapping["BisectBatchOnFunctionError"] is True
    assert "OnFailure" in mapping["DestinationConfig"]


def test_the_sandbox_has_no_way_out_and_no_permission_but_its_logs(everything: Templates) -> None:
    function = everything.one(LAMBDA, FunctionName="agentops-sandbox-staging").properties
    role = function["Role"]["Fn::GetAtt"][0]
    allowed: set[str] = set()
    denied: set[str] = set()
    for policy, statement in statements(everything):
        if {"Ref": role} in policy.properties["Roles"]:
            into = allowed if statement["Effect"] == "Allow" else denied
            into |= set(listed(statement["Action"]))
            if statement["Effect"] == "Deny":
                (condition,) = statement["Condition"]["ArnEquals"].items()
                assert condition[0] == "lambda:SourceFunctionArn"
                assert "function:agentops-sandbox-staging" in text(condition[1])

    assert allowed - denied == {"logs:CreateLogStream", "logs:PutLogEvents"}
    types = {each.type for each in everything.resources() if each.stack == "agents"}
    assert not types & {"AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::Route"}
    group = everything.one("AWS::EC2::SecurityGroup").properties
    assert [rule["CidrIp"] for rule in group["SecurityGroupEgress"]] == ["255.255.255.255/32"]
    assert "SecurityGroupIngress" not in group


def test_agents_sleep_unless_a_schedule_is_asked_for(production: Templates, everything: Templates) -> None:
    def schedules(templates: Templates) -> list[str]:
        return [
            each.properties["ScheduleExpression"]
            for each in templates.resources(RULE)
            if each.stack == "agents" and "ScheduleExpression" in each.properties
        ]

    assert schedules(production) == []
    assert schedules(everything) == ["rate(1 hour)"]


# --- alarms


def test_every_alarm_mails_but_those_that_wake_the_manager(everything: Templates) -> None:
    watch = [f"AgentOps-staging-Watch-{each.name}" for each in shop_functions()]
    for alarm in everything.resources(ALARM):
        name = alarm.properties["AlarmName"]
        assert name.startswith("AgentOps-staging-")
        if "-Watch-" in name:
            assert name in [*watch, "AgentOps-staging-Watch-checkout"]
            assert "AlarmActions" not in alarm.properties
        else:
            assert len(alarm.properties["AlarmActions"]) == 1, name


@pytest.mark.parametrize(
    ("name", "threshold", "operator"),
    [
        ("HighCost", 10, "GreaterThanOrEqualToThreshold"),
        ("HighErrorRate", 5, "GreaterThanThreshold"),
        ("LowSuccessRate", 80, "LessThanThreshold"),
        ("CollaborationAnomalies", 0, "GreaterThanThreshold"),
    ],
)
def test_the_documented_alarms(name: str, threshold: float, operator: str, production: Templates) -> None:
    alarm = production.one(ALARM, AlarmName=f"AgentOps-production-{name}").properties

    assert (alarm["Threshold"], alarm["ComparisonOperator"]) == (threshold, operator)


def test_one_budget_is_the_threshold_everywhere() -> None:
    templates = synthesized("staging", daily_budget_usd="2.5")

    assert templates.one(ALARM, AlarmName="AgentOps-staging-HighCost").properties["Threshold"] == 2.5
    ingest = templates.one(LAMBDA, FunctionName="agentops-ingest-staging").properties
    assert ingest["Environment"]["Variables"]["COST_ALERT_THRESHOLD"] == "2.5"
    assert (
        templates.one("AWS::SSM::Parameter", Name="/agentops/staging/daily-budget-usd").properties["Value"]
        == "2.5"
    )


def test_alarms_respect_cloudwatch_s_limits(everything: Templates) -> None:
    for alarm in everything.resources(ALARM):
        properties = alarm.properties
        metrics = [each for each in properties.get("Metrics", []) if "MetricStat" in each]
        assert len(metrics) <= 10
        assert "SEARCH" not in text(properties)
        periods = [each["MetricStat"]["Period"] for each in metrics] or [properties["Period"]]
        assert max(periods) * properties["EvaluationPeriods"] <= 86_400


# --- the whole


def test_stacks_know_each_other_by_parameters_and_export_nothing(everything: Templates) -> None:
    for template in everything.by_part.values():
        assert "Fn::ImportValue" not in text(template)
        assert not [output for output in template.get("Outputs", {}).values() if "Export" in output]
    published = {each.properties["Name"] for each in everything.resources("AWS::SSM::Parameter")}
    for part in ("agents", "dashboards"):
        found = {
            each["Default"]
            for each in everything[part]["Parameters"].values()
            if each["Type"].startswith("AWS::SSM") and "bootstrap" not in each["Default"]
        }
        assert found <= published

"""`make deploy`, `make test-alert` and `make destroy` against accounts in different states."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws

from tools import deploy as tool
from tools import preflight

REGION = "us-east-1"
AVAILABLE = {
    "modelId": "anthropic.claude-sonnet-5-5",
    "agreementAvailability": {"status": "AVAILABLE"},
    "authorizationStatus": "AUTHORIZED",
    "entitlementAvailability": "AVAILABLE",
    "regionAvailability": "AVAILABLE",
}


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setattr(tool, "OUT", tool.ROOT / "build" / "test-deploy")
    with mock_aws():
        yield


@pytest.fixture
def model_access(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "bedrock_problems", lambda *_: ([], []))


@pytest.fixture
def cdk(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Every call of the CDK CLI, which deploys nothing here but writes its outputs."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        outputs = {"AgentOps-Dashboards-production": {"MainDashboardUrl": "https://console/main"}}
        Path(command[command.index("--outputs-file") + 1]).write_text(json.dumps(outputs))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def client(service: str) -> Any:
    return boto3.client(service, region_name=REGION)  # type: ignore[call-overload]


def bootstrap(version: str = "21") -> None:
    client("ssm").put_parameter(Name=preflight.BOOTSTRAP_PARAMETER, Value=version, Type="String")


def topic_with(*addresses: str) -> None:
    arn = client("sns").create_topic(Name="agentops-cost-alerts")["TopicArn"]
    for address in addresses:
        client("sns").subscribe(TopicArn=arn, Protocol="email", Endpoint=address)


class CloudFormation:
    """Stacks by name, each with its resources; deletes what it is told to."""

    def __init__(self) -> None:
        self.stacks: dict[str, list[dict[str, str]]] = {}
        self.states: dict[str, str] = {}

    def add(self, part: str, environment: str, **resources: tuple[str, str]) -> None:
        self.stacks[f"AgentOps-{part}-{environment}"] = [
            {
                "LogicalResourceId": logical_id,
                "ResourceType": type,
                "PhysicalResourceId": physical_id,
                "ResourceStatus": "CREATE_COMPLETE",
            }
            for logical_id, (type, physical_id) in resources.items()
        ]

    def get_paginator(self, name: str) -> CloudFormation:
        assert name == "list_stack_resources"
        return self

    def paginate(self, StackName: str) -> Iterator[dict[str, Any]]:
        yield {"StackResourceSummaries": self._stack(StackName)}

    def describe_stacks(self, StackName: str) -> dict[str, Any]:
        self._stack(StackName)
        return {"Stacks": [{"StackStatus": self.states.get(StackName, "CREATE_COMPLETE")}]}

    def _stack(self, name: str) -> list[dict[str, str]]:
        if name not in self.stacks:
            message = f"Stack with id {name} does not exist"
            raise ClientError({"Error": {"Code": "ValidationError", "Message": message}}, "DescribeStacks")
        return self.stacks[name]

    def delete_stack(self, StackName: str) -> None:
        for resource in self.stacks.pop(StackName):
            if resource["ResourceType"] == preflight.BUCKET:
                client("s3").delete_bucket(Bucket=resource["PhysicalResourceId"])

    def get_waiter(self, name: str) -> CloudFormation:
        assert name == "stack_delete_complete"
        return self

    def wait(self, **_: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def cloudformation(monkeypatch: pytest.MonkeyPatch) -> CloudFormation:
    fake = CloudFormation()
    real = preflight.Account.client
    monkeypatch.setattr(
        preflight.Account,
        "client",
        lambda account, service: fake if service == "cloudformation" else real(account, service),
    )
    return fake


def make_table(name: str) -> None:
    client("dynamodb").create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
    )


# --- deploy


@pytest.mark.usefixtures("model_access")
def test_an_account_that_is_ready_is_deployed_to(
    cdk: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    bootstrap()
    topic_with("ops@example.com")

    assert tool.main(["deploy", "-c", "environment=production", "-c", "alert_email=ops@example.com"]) == 0

    (command,) = cdk
    assert command[2:4] == ["deploy", "--all"]
    assert command[-4:] == ["-c", "environment=production", "-c", "alert_email=ops@example.com"]
    said = capsys.readouterr().out
    assert "https://console/main" in said
    assert "ops@example.com" in said


@pytest.mark.usefixtures("model_access")
def test_everything_that_is_missing_is_said_at_once_and_nothing_is_deployed(
    cdk: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    body = json.dumps({"widgets": []})
    client("cloudwatch").put_dashboard(DashboardName="AgentOps-Monitoring-Cost", DashboardBody=body)
    make_table("agent-ledger")

    assert tool.main(["deploy", "-c", "agentops_api_key_secret=agentops/key"]) == 1

    said = capsys.readouterr().err.splitlines()
    assert cdk == []
    assert len(said) == 4
    for line, part in zip(
        said,
        [
            "cdk bootstrap aws://123456789012/us-east-1",
            "-c dashboard_suffix=us-east-1",
            "table agent-ledger is left",
            "no secret agentops/key",
        ],
        strict=True,
    ):
        assert line.startswith("error: ")
        assert part in line


@pytest.mark.usefixtures("model_access")
def test_a_second_deployment_finds_its_own_names_taken_by_itself(
    cdk: list[list[str]], cloudformation: CloudFormation
) -> None:
    bootstrap()
    topic_with()
    make_table("agent-ledger")
    client("cloudwatch").put_dashboard(DashboardName="AgentOps-Monitoring", DashboardBody='{"widgets": []}')
    cloudformation.add("Monitoring", "production", Ledger=(preflight.TABLE, "agent-ledger"))
    cloudformation.add("Dashboards", "production", Main=("AWS::CloudWatch::Dashboard", "AgentOps-Monitoring"))

    assert tool.main(["deploy"]) == 0
    assert len(cdk) == 1


@pytest.mark.usefixtures("model_access")
@pytest.mark.parametrize(
    ("state", "remedies"),
    [
        (
            "ROLLBACK_FAILED",
            [
                "aws dynamodb update-table --table-name agent-ledger --no-deletion-protection-enabled",
                "aws dynamodb delete-table --table-name agent-ledger",
                "aws cloudformation delete-stack --stack-name AgentOps-Monitoring-production",
            ],
        ),
        ("DELETE_FAILED", ["aws cloudformation delete-stack --stack-name AgentOps-Monitoring-production"]),
        ("UPDATE_ROLLBACK_FAILED", ["continue-update-rollback --stack-name AgentOps-Monitoring-production"]),
    ],
)
def test_a_stack_that_is_stuck_is_named_with_what_frees_it(
    state: str,
    remedies: list[str],
    cdk: list[list[str]],
    cloudformation: CloudFormation,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bootstrap()
    make_table("agent-ledger")
    cloudformation.add("Monitoring", "production", Ledger=(preflight.TABLE, "agent-ledger"))
    cloudformation.states["AgentOps-Monitoring-production"] = state

    assert tool.main(["deploy"]) == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert cdk == []
    assert f"AgentOps-Monitoring-production is in {state}" in line
    assert all(remedy in line for remedy in remedies)
    assert ("table" in line) == (state == "ROLLBACK_FAILED"), "data in use stays protected"


@pytest.mark.usefixtures("model_access", "cdk")
def test_an_old_bootstrap_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    bootstrap("5")

    assert tool.main(["deploy"]) == 1
    assert "version 5, 6 is needed" in capsys.readouterr().err


def test_wrong_context_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["deploy", "-c", "daily_budget_usd=-1"]) == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert "daily_budget_usd" in line


@pytest.mark.parametrize("given", ["alert_email", "=me@example.com"])
def test_context_that_is_no_pair_is_one_line(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        tool.main(["deploy", "-c", given])

    assert caught.value.code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: context {given}: expected KEY=VALUE")


def test_no_credentials_and_no_region_are_one_line_each() -> None:
    class Session:
        region_name: str | None = None

        def client(self, *_: Any, **__: Any) -> Any:
            from botocore.exceptions import NoCredentialsError

            raise NoCredentialsError

    session = Session()
    with pytest.raises(preflight.PreflightError, match="AWS_REGION"):
        preflight.connect(session)
    session.region_name = REGION
    with pytest.raises(preflight.PreflightError, match="aws configure"):
        preflight.connect(session)


# --- Bedrock


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({}, ""),
        ({"agreementAvailability": {"status": "NOT_AVAILABLE"}}, "the agreement"),
        ({"authorizationStatus": "NOT_AUTHORIZED"}, "your permission"),
        ({"regionAvailability": "NOT_AVAILABLE"}, "the region"),
    ],
)
def test_model_access_is_told_by_what_is_missing(changes: dict[str, Any], missing: str) -> None:
    bedrock = client("bedrock")
    with Stubber(bedrock) as stub:
        stub.add_response(
            "get_foundation_model_availability",
            {**AVAILABLE, **changes},
            {"modelId": "anthropic.claude-sonnet-5-5"},
        )
        problems, notes = preflight.bedrock_problems(bedrock, "anthropic.claude-sonnet-5-5", REGION)

    assert notes == []
    assert [missing in problem for problem in problems] == ([True] if missing else [])


def test_a_cross_region_profile_must_exist_before_its_model_is_asked_for() -> None:
    bedrock = client("bedrock")
    with Stubber(bedrock) as stub:
        stub.add_client_error("get_inference_profile", "ResourceNotFoundException")
        problems, _ = preflight.bedrock_problems(bedrock, "eu.anthropic.claude-sonnet-5-5", REGION)

    assert "knows no model eu.anthropic.claude-sonnet-5-5" in problems[0]


def test_a_profile_may_be_called_where_its_model_is_not() -> None:
    bedrock = client("bedrock")
    profile = {
        "inferenceProfileName": "Claude",
        "inferenceProfileArn": "arn:aws:bedrock:us-east-1:123456789012:inference-profile/global.anthropic.c",
        "models": [{"modelArn": "arn:aws:bedrock:us-east-1::foundation-model/anthropic.c"}],
        "inferenceProfileId": "global.anthropic.c",
        "status": "ACTIVE",
        "type": "SYSTEM_DEFINED",
    }
    with Stubber(bedrock) as stub:
        stub.add_response("get_inference_profile", profile)
        stub.add_response(
            "get_foundation_model_availability", {**AVAILABLE, "regionAvailability": "NOT_AVAILABLE"}
        )
        problems, notes = preflight.bedrock_problems(bedrock, "global.anthropic.c", REGION)

    assert (problems, notes) == ([], [])


def test_who_may_not_ask_is_not_stopped() -> None:
    bedrock = client("bedrock")
    with Stubber(bedrock) as stub:
        stub.add_client_error("get_foundation_model_availability", "AccessDeniedException")
        problems, notes = preflight.bedrock_problems(bedrock, "anthropic.claude-sonnet-5-5", REGION)

    assert problems == []
    assert "could not be checked" in notes[0]


# --- test-alert


def alarm(name: str, state: str) -> None:
    cloudwatch = client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=name, Namespace="N", MetricName="M", Statistic="Sum", Period=60, Threshold=1,
        EvaluationPeriods=1, ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="test")


def test_one_quiet_alarm_is_raised(capsys: pytest.CaptureFixture[str]) -> None:
    topic_with("ops@example.com")
    alarm("AgentOps-production-HighCost", "ALARM")
    alarm("AgentOps-production-DeadLetters", "OK")
    alarm("AgentOps-production-HighErrorRate", "OK")

    assert tool.main(["test-alert"]) == 0

    described = client("cloudwatch").describe_alarms(AlarmNamePrefix="AgentOps-production-")
    states = {each["AlarmName"]: each["StateValue"] for each in described["MetricAlarms"]}
    assert states["AgentOps-production-DeadLetters"] == "ALARM"
    assert states["AgentOps-production-HighErrorRate"] == "OK"
    assert "ops@example.com" in capsys.readouterr().out


def test_an_environment_that_is_not_deployed_has_no_alert(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["test-alert"]) == 1
    assert "not deployed" in capsys.readouterr().err


# --- destroy


def test_production_s_data_outlives_its_stacks(
    cloudformation: CloudFormation, capsys: pytest.CaptureFixture[str]
) -> None:
    client("s3").create_bucket(Bucket="evidence")
    cloudformation.add("Monitoring", "production", LedgerABC=(preflight.TABLE, "agent-ledger"))
    cloudformation.add("Agents", "production", Queue=("AWS::SQS::Queue", "failed"))

    assert tool.main(["destroy", "--yes", "-c", "environment=production"]) == 0

    said = capsys.readouterr().out
    assert "kept: agent-ledger" in said
    assert "import AgentOps-Monitoring-production --resource-mapping" in said
    assert "aws dynamodb delete-table --table-name agent-ledger" in said
    mapping = json.loads((tool.OUT / "adopt-production.json").read_text())
    assert mapping == {"LedgerABC": {"TableName": "agent-ledger"}}
    assert cloudformation.stacks == {}


def test_another_environment_goes_with_all_that_is_in_it(cloudformation: CloudFormation) -> None:
    s3 = client("s3")
    s3.create_bucket(Bucket="evidence")
    s3.put_object(Bucket="evidence", Key="patch.diff", Body=b"x")
    cloudformation.add("Agents", "staging", Evidence=(preflight.BUCKET, "evidence"))

    assert tool.main(["destroy", "--yes", "-c", "environment=staging"]) == 0

    assert s3.list_buckets()["Buckets"] == []
    assert cloudformation.stacks == {}


def test_nothing_is_destroyed_unasked(
    cloudformation: CloudFormation, capsys: pytest.CaptureFixture[str]
) -> None:
    cloudformation.add("Monitoring", "staging", Ledger=(preflight.TABLE, "agent-ledger-staging"))

    assert tool.main(["destroy", "-c", "environment=staging"]) == 1

    assert "--yes" in capsys.readouterr().err
    assert len(cloudformation.stacks) == 1


def test_nothing_to_destroy_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["destroy", "--yes", "-c", "environment=staging"]) == 0
    assert "nothing of environment staging" in capsys.readouterr().out

"""What must be true of an account before a deployment; each thing that isn't is one line with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from agentops_constructs import Names
    from stacks.settings import Settings

BOOTSTRAP_PARAMETER = "/cdk-bootstrap/hnb659fds/version"
OLDEST_BOOTSTRAP = 6
TABLE, BUCKET = "AWS::DynamoDB::GlobalTable", "AWS::S3::Bucket"
# Deleted in this order, deployed in the other.
PARTS = ("Dashboards", "Agents", "Workload", "Monitoring")
_PROFILE_PREFIXES = ("global.", "us.", "us-gov.", "eu.", "apac.", "au.", "ca.", "jp.")


class PreflightError(Exception):
    """The account isn't ready; each argument is one line."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account and region that the credentials at hand lead to."""

    session: Any
    account: str
    region: str

    def client(self, service: str) -> Any:
        """Return a client of a service."""
        return self.session.client(service, region_name=self.region)


def connect(session: Any) -> Account:
    """Return the account that a session's credentials lead to.

    Raises
    ------
    PreflightError
        There are no working credentials, or no region.
    """
    region = session.region_name
    if not region:
        raise PreflightError("no AWS region: set AWS_REGION, or `aws configure set region <region>`")
    try:
        identity = session.client("sts", region_name=region).get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        raise PreflightError(
            f"no working AWS credentials ({_reason(error)}): run `aws configure` or `aws sso login`, "
            "or set AWS_PROFILE"
        ) from None
    return Account(session, identity["Account"], region)


def check(account: Account, settings: Settings, names: Names) -> tuple[list[str], list[str]]:
    """Return what stops a deployment, and what can't be told or is only worth knowing."""
    problems = [
        *bootstrap_problems(account),
        *stack_problems(account, names),
        *dashboard_problems(account, names),
        *table_problems(account, names),
    ]
    if settings.agentops_api_key_secret:
        problems += secret_problems(account, settings.agentops_api_key_secret)
    model_problems, notes = bedrock_problems(account.client("bedrock"), settings.model_id, account.region)
    if not settings.alert_email:
        notes.append("no alert_email: alarms reach nobody until you subscribe to the topic")
    return [*problems, *model_problems], notes


def bootstrap_problems(account: Account) -> Iterator[str]:
    """Check that the CDK's own stack is there and new enough."""
    command = f"`npx cdk bootstrap aws://{account.account}/{account.region}`"
    try:
        parameter = account.client("ssm").get_parameter(Name=BOOTSTRAP_PARAMETER)
    except ClientError as error:
        if _code(error) != "ParameterNotFound":
            raise
        yield f"account {account.account} is not bootstrapped in {account.region}: run {command}"
        return
    version = int(parameter["Parameter"]["Value"])
    if version < OLDEST_BOOTSTRAP:
        yield f"the bootstrap stack has version {version}, {OLDEST_BOOTSTRAP} is needed: run {command} again"


def stack_problems(account: Account, names: Names) -> Iterator[str]:
    """Check that no stack is stuck, which the CDK CLI would find out by failing in its own words."""
    cloudformation = account.client("cloudformation")
    for part in PARTS:
        stack = stack_name(part, names.environment)
        try:
            state = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
        except ClientError as error:
            if "does not exist" not in str(error):
                raise
            continue
        if state == "UPDATE_ROLLBACK_FAILED":
            yield (
                f"stack {stack} is in {state}: see in its events why, mend that, and run "
                f"`aws cloudformation continue-update-rollback --stack-name {stack}`"
            )
        elif state in ("ROLLBACK_FAILED", "DELETE_FAILED"):
            # A first deployment that failed: its tables are protected, so they could not be rolled back,
            # though they were never used; and the stack's deletion would keep them, in the next one's way.
            tables = stack_resources(account, stack, TABLE).values() if state == "ROLLBACK_FAILED" else ()
            commands = [command for table in tables for command in table_deletion(table)]
            commands.append(f"aws cloudformation delete-stack --stack-name {stack}")
            yield f"stack {stack} is in {state}: run `{' && '.join(commands)}`"


def dashboard_problems(account: Account, names: Names) -> Iterator[str]:
    """Check that the dashboards' names, which are global to an account, are free or ours."""
    own = stack_resources(account, stack_name("Dashboards", names.environment)).values()
    cloudwatch = account.client("cloudwatch")
    for kind in ("", "Cost", "Collaboration"):
        name = names.dashboard(kind)
        listed = cloudwatch.list_dashboards(DashboardNamePrefix=name)["DashboardEntries"]
        if name in {each["DashboardName"] for each in listed} and name not in own:
            yield (
                f"dashboard {name} exists and is not this stack's, maybe another region's: "
                f"add -c dashboard_suffix={account.region}"
            )


def table_problems(account: Account, names: Names) -> Iterator[str]:
    """Check that no table is left from an earlier deployment, which would stop this one."""
    own = stack_resources(account, stack_name("Monitoring", names.environment)).values()
    dynamodb = account.client("dynamodb")
    for table in (names.monitoring_table, names.decisions_table, names.ledger_table):
        try:
            dynamodb.describe_table(TableName=table)
        except ClientError as error:
            if _code(error) != "ResourceNotFoundException":
                raise
            continue
        if table not in own:
            yield (
                f"table {table} is left from an earlier deployment: adopt or delete it, "
                "as `make destroy` said"
            )


def secret_problems(account: Account, secret: str) -> Iterator[str]:
    """Check that the secret with the AgentOps API key exists."""
    try:
        account.client("secretsmanager").describe_secret(SecretId=secret)
    except ClientError as error:
        if _code(error) != "ResourceNotFoundException":
            raise
        yield (
            f"there is no secret {secret} in {account.region}: run `aws secretsmanager create-secret "
            f"--name {secret} --secret-string <your AgentOps API key>`"
        )


def bedrock_problems(bedrock: Any, model_id: str, region: str) -> tuple[list[str], list[str]]:
    """Check that the account may call the model; returns problems, and notes on what can't be told."""
    if model_id.startswith("arn:"):
        return [], [f"access to {model_id} was not checked: it is given as an ARN"]
    model = next((model_id.removeprefix(each) for each in _PROFILE_PREFIXES if model_id.startswith(each)), "")
    try:
        if model:
            bedrock.get_inference_profile(inferenceProfileIdentifier=model_id)
        found = bedrock.get_foundation_model_availability(modelId=model or model_id)
    except ClientError as error:
        if _code(error) in ("ResourceNotFoundException", "ValidationException"):
            return [f"Bedrock knows no model {model_id} in {region}: choose another with -c model_id=…"], []
        return [], [f"access to {model_id} could not be checked ({_reason(error)})"]
    missing = [
        what
        for what, state, good in (
            ("the region", found["regionAvailability"], "AVAILABLE"),
            ("your permission", found["authorizationStatus"], "AUTHORIZED"),
            ("the entitlement", found["entitlementAvailability"], "AVAILABLE"),
            ("the agreement", found["agreementAvailability"]["status"], "AVAILABLE"),
        )
        # A profile that exists in a region can be called there, wherever its model is.
        if state != good and not (model and what == "the region")
    ]
    if not missing:
        return [], []
    return [
        f"no access to {model_id} ({', '.join(missing)} missing): open Bedrock's model catalog in {region} "
        "and request it, or choose another with -c model_id=…"
    ], []


def table_deletion(table: str) -> tuple[str, ...]:
    """Return the commands that delete a protected table; between them it is updating for a moment."""
    return (
        f"aws dynamodb update-table --table-name {table} --no-deletion-protection-enabled",
        f"aws dynamodb wait table-exists --table-name {table}",
        f"aws dynamodb delete-table --table-name {table}",
    )


def stack_name(part: str, environment: str) -> str:
    """Return the name of one of the app's stacks."""
    return f"AgentOps-{part}-{environment}"


def stack_resources(account: Account, stack: str, *types: str) -> dict[str, str]:
    """Return the physical ids of a stack's resources by logical id; empty when there is no such stack."""
    found: dict[str, str] = {}
    pages = account.client("cloudformation").get_paginator("list_stack_resources")
    try:
        for page in pages.paginate(StackName=stack):
            for each in page["StackResourceSummaries"]:
                gone = each["ResourceStatus"] in ("DELETE_COMPLETE", "DELETE_SKIPPED")
                if "PhysicalResourceId" in each and not gone and (not types or each["ResourceType"] in types):
                    found[each["LogicalResourceId"]] = each["PhysicalResourceId"]
    except ClientError as error:
        if "does not exist" not in str(error):
            raise
    return found


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _reason(error: Exception) -> str:
    if isinstance(error, ClientError):
        return _code(error)
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")

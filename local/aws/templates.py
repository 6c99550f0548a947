"""CloudFormation: the properties of our resources that MiniStack leaves out, and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ministack.core.responses import get_account_id, get_region
from ministack.services import dynamodb, lambda_svc
from ministack.services.cloudformation import changesets, provisioners

from local.aws import permissions

Properties = Mapping[str, Any]
POLICIES = (
    "AWS::IAM::Role",
    "AWS::IAM::Policy",
    "AWS::IAM::ManagedPolicy",
    "AWS::S3::BucketPolicy",
    "AWS::SQS::QueuePolicy",
    "AWS::SNS::TopicPolicy",
)
# Lambda user guide, "Giving Lambda functions access to resources in an Amazon VPC": required IAM permissions.
NETWORK_ACTIONS = (
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
)
# What MiniStack takes and then does nothing with.
HOLLOW = ("AWS::Logs::MetricFilter",)


def _true(value: object) -> bool:
    return str(value).lower() == "true"


def _table(name: str, properties: Properties) -> None:
    replicas = [one for one in properties.get("Replicas") or [] if isinstance(one, Mapping)]
    if len(replicas) > 1:
        raise ValueError("local AWS: a table with replicas in other regions is not supported")
    settings = {**properties, **(replicas[0] if replicas else {})}
    ttl = settings.get("TimeToLiveSpecification") or {}
    if _true(ttl.get("Enabled", bool(ttl))):
        dynamodb._ttl_settings[name] = {"TimeToLiveStatus": "ENABLED", "AttributeName": ttl["AttributeName"]}
    recovery = settings.get("PointInTimeRecoverySpecification") or {}
    if _true(recovery.get("PointInTimeRecoveryEnabled")):
        dynamodb._pitr_settings[name] = True
    dynamodb._tables[name]["DeletionProtectionEnabled"] = _true(settings.get("DeletionProtectionEnabled"))


def _check_table(logical_id: str, properties: Properties) -> None:
    name = properties.get("TableName")
    if name in dynamodb._tables:  # MiniStack would put an empty one in the place of a retained table
        raise ValueError(f"{logical_id}: a table with the identifier {name} already exists")


def _function(name: str, properties: Properties) -> None:
    record = lambda_svc._functions[name]
    config = record["config"]
    if properties.get("DeadLetterConfig"):
        config["DeadLetterConfig"] = properties["DeadLetterConfig"]
    else:
        config.pop("DeadLetterConfig", None)
    reserved = properties.get("ReservedConcurrentExecutions")
    record["concurrency"] = None if reserved is None else int(reserved)
    config["VpcConfig"] = lambda_svc._vpc_config_with_id(properties.get("VpcConfig"))


def _check_function(logical_id: str, properties: Properties) -> None:
    _check_network(logical_id, properties)
    runtime = str(properties.get("Runtime", ""))
    if not runtime.startswith("python"):
        raise ValueError(
            f"local AWS: {logical_id}: runtime {runtime or 'of an image'} is not supported, only Python"
        )


def _check_network(logical_id: str, properties: Properties) -> None:
    """Lambda makes a function's network interfaces under its role, and first asks whether it may."""
    if not (properties.get("VpcConfig") or {}).get("SubnetIds"):
        return
    name = properties.get("FunctionName", logical_id)
    arn = f"arn:aws:lambda:{get_region()}:{get_account_id()}:function:{name}"
    for action in NETWORK_ACTIONS:
        if permissions.refusal({"FunctionArn": arn, "Role": properties["Role"]}, action, "*"):
            text = f"The provided execution role does not have permissions to call {action[4:]} on EC2"
            raise ValueError(f"{logical_id}: {text}")


def _check_policies(logical_id: str, properties: Properties) -> None:
    for policy in (properties, *(properties.get("Policies") or ())):
        permissions.check_policy(logical_id, policy.get("PolicyDocument") or {})


def _extend(
    kind: str,
    check: Callable[[str, Properties], None],
    finish: Callable[[str, Properties], None] | None = None,
) -> None:
    stock = provisioners._RESOURCE_HANDLERS[kind]

    def create(logical_id: str, properties: Properties, stack: str) -> Any:
        check(logical_id, properties)
        return done(stock["create"](logical_id, properties, stack), properties)

    def update(name: str, old: Properties, new: Properties, stack: str, logical_id: str | None = None) -> Any:
        if check is not _check_table:  # the table that it would find is this one
            check(logical_id or name, new)
        return done(stock["update"](name, old, new, stack, logical_id), new)

    def done(answer: Any, properties: Properties) -> Any:
        if finish is not None:
            finish(answer[0], properties)
        return answer

    provisioners._RESOURCE_HANDLERS[kind] = {**stock, "create": create, "update": update}


def install() -> None:
    """Extend MiniStack's resource handlers."""
    table, global_table = "AWS::DynamoDB::Table", "AWS::DynamoDB::GlobalTable"
    # A retained table comes back by import; MiniStack knows that of the other kind of table alone.
    provisioners._RESOURCE_HANDLERS[global_table]["import"] = provisioners._RESOURCE_HANDLERS[table]["import"]
    changesets._IMPORT_LOOKUPS[global_table] = changesets._IMPORT_LOOKUPS[table]
    _extend(global_table, _check_table, _table)
    _extend(table, _check_table, _table)
    _extend("AWS::Lambda::Function", _check_function, _function)
    for kind in POLICIES:
        _extend(kind, _check_policies)
    for kind in HOLLOW:
        del provisioners._RESOURCE_HANDLERS[kind]

"""CloudFormation: the properties of our resources that MiniStack leaves out, and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ministack.services import dynamodb, lambda_svc
from ministack.services.cloudformation import changesets, provisioners

Properties = Mapping[str, Any]
# What MiniStack takes and then does nothing with.
HOLLOW = ("AWS::Logs::MetricFilter",)


def _true(value: object) -> bool:
    return str(value).lower() == "true"


def _table(name: str, properties: Properties) -> None:
    replicas = [one for one in properties.get("Replicas") or [] if isinstance(one, Mapping)]
    if len(replicas) > 1:
        raise ValueError("local AWS: a table with replicas in other regions is not supported")
    replica = replicas[0] if replicas else {}
    ttl = properties.get("TimeToLiveSpecification") or {}
    if _true(ttl.get("Enabled", bool(ttl))):
        dynamodb._ttl_settings[name] = {"TimeToLiveStatus": "ENABLED", "AttributeName": ttl["AttributeName"]}
    recovery = replica.get("PointInTimeRecoverySpecification") or properties.get(
        "PointInTimeRecoverySpecification"
    )
    if _true((recovery or {}).get("PointInTimeRecoveryEnabled")):
        dynamodb._pitr_settings[name] = True
    protected = replica.get("DeletionProtectionEnabled", properties.get("DeletionProtectionEnabled"))
    dynamodb._tables[name]["DeletionProtectionEnabled"] = _true(protected)


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
    runtime = str(properties.get("Runtime", ""))
    if not runtime.startswith("python"):
        raise ValueError(
            f"local AWS: {logical_id}: runtime {runtime or 'of an image'} is not supported, only Python"
        )


def _extend(
    kind: str,
    finish: Callable[[str, Properties], None],
    check: Callable[[str, Properties], None],
) -> None:
    stock = provisioners._RESOURCE_HANDLERS[kind]

    def create(logical_id: str, properties: Properties, stack: str) -> Any:
        check(logical_id, properties)
        answer = stock["create"](logical_id, properties, stack)
        finish(answer[0], properties)
        return answer

    def update(
        physical_id: str, old: Properties, new: Properties, stack: str, logical_id: str | None = None
    ) -> Any:
        answer = stock["update"](physical_id, old, new, stack, logical_id)
        finish(answer[0], new)
        return answer

    provisioners._RESOURCE_HANDLERS[kind] = {**stock, "create": create, "update": update}


def install() -> None:
    """Extend MiniStack's resource handlers."""
    table, global_table = "AWS::DynamoDB::Table", "AWS::DynamoDB::GlobalTable"
    # A retained table comes back by import; MiniStack knows that of the other kind of table alone.
    provisioners._RESOURCE_HANDLERS[global_table]["import"] = provisioners._RESOURCE_HANDLERS[table]["import"]
    changesets._IMPORT_LOOKUPS[global_table] = changesets._IMPORT_LOOKUPS[table]
    _extend(global_table, _table, _check_table)
    _extend(table, _table, _check_table)
    _extend("AWS::Lambda::Function", _function, _check_function)
    for kind in HOLLOW:
        del provisioners._RESOURCE_HANDLERS[kind]

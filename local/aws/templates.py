"""CloudFormation: what a template may say here (`served.toml`), and properties that MiniStack leaves out."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ministack.core.responses import get_account_id, get_region
from ministack.services import cloudwatch, cloudwatch_logs, dynamodb, iam, kinesis, lambda_svc, sqs
from ministack.services.cloudformation import changesets, engine, handlers, provisioners

from local.aws import limits, permissions
from local.aws.records import current
from local.aws.sources import READS

Properties = Mapping[str, Any]
Look = Callable[[Any], Any]
TABLE, FUNCTION = "AWS::DynamoDB::GlobalTable", "AWS::Lambda::Function"
STREAM = "AWS::Kinesis::Stream"
# What Lambda asks whether it may, under a function's role (its user guide: "Giving Lambda functions access
# to resources in an Amazon VPC", "Adding a dead-letter queue", "Using DynamoDB as an event source", "Using
# Lambda with Kinesis").
ACTIONS = {
    "EC2": "CreateNetworkInterface DescribeNetworkInterfaces DescribeSubnets DeleteNetworkInterface "
    "AssignPrivateIpAddresses UnassignPrivateIpAddresses",
    "SQS": "SendMessage",
    "DynamoDB": " ".join(READS["dynamodb"]),
    "Kinesis": " ".join(READS["kinesis"]),
}
VARIABLES_BYTES = 4096  # all of a function's, quotas of Lambda
POLICY_CHARACTERS = 10_240  # all inline policies of a role without white space, quotas of IAM
# Names that may be taken: MiniStack would put the new one in the old one's place.
NAMED: dict[str, tuple[str, Any]] = {
    TABLE: ("TableName", dynamodb._tables),
    FUNCTION: ("FunctionName", lambda_svc._functions),
    "AWS::CloudWatch::Alarm": ("AlarmName", cloudwatch._alarms),
    "AWS::IAM::Role": ("RoleName", iam._roles),
    STREAM: ("Name", kinesis._streams),
    "AWS::Logs::LogGroup": ("LogGroupName", cloudwatch_logs._log_groups),
    "AWS::SQS::Queue": ("QueueName", sqs._queue_name_to_url),
}


def _read_served() -> dict[str, Any]:
    served = tomllib.loads((Path(__file__).parent / "served.toml").read_text())
    everywhere = served.pop("*")
    return {kind: one if isinstance(one, str) else everywhere | one for kind, one in served.items()}


SERVED = _read_served()


def _taken(served: Any, text: str) -> bool:
    if isinstance(served, str):
        return re.fullmatch(served, text, re.ASCII | re.DOTALL) is not None
    return text.lstrip("-").isdecimal() and served[0] <= int(text) <= served[1]


def _refused(served: Any, value: Any, path: str, look: Look) -> Iterator[str]:
    """Yield the path of each property, or value, that is not served."""
    value = look(value)
    if value is engine._NO_VALUE:
        return
    if isinstance(value, list):
        for one in value:
            yield from _refused(served, one, path, look)
    elif isinstance(served, dict) and isinstance(value, dict):
        for name, one in value.items():
            known = (below for pattern, below in served.items() if re.fullmatch(pattern, name, re.ASCII))
            yield from _refused(next(known, None), one, f"{path}.{name}", look)
    elif served is None:
        yield path
    elif isinstance(served, list) and value is not None:
        text = value if isinstance(value, str) else json.dumps(value)
        if not any(_taken(one, text) for one in served):
            yield f"{path} = {text[:100]}"


def _refuse(resources: Mapping[str, Mapping[str, Any]], look: Look = lambda value: value) -> None:
    refused = [
        f"{logical_id}: {path} is not served"
        for logical_id, one in resources.items()
        for kind in [one.get("Type", "?")]
        for path in _refused(SERVED.get(kind), one.get("Properties") or {}, kind, look)
    ]
    if refused:
        raise ValueError(f"local AWS: {'; '.join(refused)}")


def _refuse_template(template: Properties, conditions: Mapping[str, bool], parameters: Properties) -> None:
    """Refuse what can be told from a template, before anything is made."""
    resources = template.get("Resources") or {}

    def look(value: Any) -> Any:
        """Return a value without its functions, None where it waits for a resource or a reference."""
        if isinstance(value, str) and "{{resolve:" in value:
            return None
        if not (isinstance(value, dict) and any(key == "Ref" or key.startswith("Fn::") for key in value)):
            return value
        if any(name in resources for name, _ in engine._intrinsic_references(value)):
            return None
        mappings = template.get("Mappings") or {}
        return engine._resolve_refs(copy.deepcopy(value), {}, parameters, conditions, mappings, "", "")

    asked = {name: one for name, one in resources.items() if conditions.get(one.get("Condition"), True)}
    _refuse(asked, look)


def _true(value: object) -> bool:
    return str(value).lower() == "true"


def _table(name: str, properties: Properties, _: Properties) -> None:
    ttl = properties.get("TimeToLiveSpecification") or {}
    dynamodb._ttl_settings.pop(name, None)
    if _true(ttl.get("Enabled")):
        dynamodb._ttl_settings[name] = {"TimeToLiveStatus": "ENABLED", "AttributeName": ttl["AttributeName"]}
    protected = _true(properties["Replicas"][0].get("DeletionProtectionEnabled"))
    dynamodb._tables[name]["DeletionProtectionEnabled"] = protected


def _check_table(logical_id: str, properties: Properties) -> None:
    if [one.get("Region") for one in properties["Replicas"]] != [get_region()]:
        raise ValueError(f"local AWS: {logical_id}: {TABLE}.Replicas of another region is not served")


def _delete_table(name: str) -> None:
    status, _, body = dynamodb._delete_table({"TableName": name})
    if status >= 400 and b"ResourceNotFound" not in body:
        raise ValueError(json.loads(body)["message"])


def _function(name: str, properties: Properties, old: Properties) -> None:
    record = lambda_svc._functions[name]
    record["config"]["DeadLetterConfig"] = properties.get("DeadLetterConfig") or {}
    reserved = properties.get("ReservedConcurrentExecutions")
    if reserved != old.get("ReservedConcurrentExecutions"):  # else what was set since stays
        record["concurrency"] = None if reserved is None else int(reserved)
    record["config"]["VpcConfig"] = lambda_svc._vpc_config_with_id(properties.get("VpcConfig"))


def _check_function(logical_id: str, properties: Properties) -> None:
    variables = (properties.get("Environment") or {}).get("Variables") or {}
    size = len(json.dumps(variables, separators=(",", ":"), ensure_ascii=False).encode())
    if size > VARIABLES_BYTES:
        raise ValueError(f"{logical_id}: {size} bytes of environment variables (limit {VARIABLES_BYTES})")
    name = properties.get("FunctionName", logical_id)
    arn = f"arn:aws:lambda:{get_region()}:{get_account_id()}:function:{name}"
    config = {"FunctionArn": arn, "Role": properties["Role"]}
    if (properties.get("VpcConfig") or {}).get("SubnetIds"):
        _ask(logical_id, config, "EC2", "*")
    _ask(logical_id, config, "SQS", (properties.get("DeadLetterConfig") or {}).get("TargetArn"))


def _check_delivery(logical_id: str, properties: Properties) -> None:
    if function := current(properties["FunctionName"]):  # MiniStack says that it is missing
        config = function["config"]
        failures = (properties.get("DestinationConfig") or {}).get("OnFailure") or {}
        _ask(logical_id, config, "SQS", failures.get("Destination"))
        source = str(properties.get("EventSourceArn") or "")
        _ask(logical_id, config, "Kinesis" if ":kinesis:" in source else "DynamoDB", source)


def _ask(logical_id: str, config: Properties, service: str, resource: str | None) -> None:
    """Refuse what Lambda could not do under a function's role."""
    for action in ACTIONS[service].split() if resource else ():
        if permissions.refusal(config, f"{service.lower()}:{action}", str(resource)):
            text = f"The provided execution role does not have permissions to call {action} on {service}"
            raise ValueError(f"{logical_id}: {text}")


def _check_policies(logical_id: str, properties: Properties) -> None:
    listed = [properties] if "PolicyDocument" in properties else properties.get("Policies") or []
    given = {one["PolicyName"]: one["PolicyDocument"] for one in listed}
    for role in properties.get("Roles") or [""]:
        whole = {**iam._roles.get(role, {}).get("InlinePolicies", {}), **given}
        if sum(len("".join(str(one).split())) for one in whole.values()) > POLICY_CHARACTERS:
            text = f"Maximum policy size of {POLICY_CHARACTERS} bytes exceeded for role {role}"
            raise ValueError(f"{logical_id}: {text}")


def _delete_function(name: str) -> None:
    provisioners._lambda_delete(name, {})
    lambda_svc.invalidate_worker(name)


def _stream(name: str, properties: Properties, old: Properties) -> None:
    shards = [(one.get("ShardCount"), one.get("StreamModeDetails")) for one in (properties, old)]
    if old and shards[0] != shards[1]:
        raise ValueError(f"local AWS: {name}: other shards of a stream that exists are not served")


Check = Callable[[str, Properties], None]
CHECK: dict[str, Check] = {
    TABLE: _check_table,
    FUNCTION: _check_function,
    "AWS::Events::Rule": lambda _, properties: limits.check_rule(properties),
    "AWS::IAM::Policy": _check_policies,
    "AWS::IAM::Role": _check_policies,
    "AWS::Lambda::EventInvokeConfig": _check_delivery,
    "AWS::Lambda::EventSourceMapping": _check_delivery,
}
# What MiniStack's own handlers leave out, by the properties now and before.
FINISH: dict[str, Callable[[str, Properties, Properties], None]] = {
    TABLE: _table,
    FUNCTION: _function,
    STREAM: _stream,
}
DELETE: dict[str, Callable[[str], None]] = {TABLE: _delete_table, FUNCTION: _delete_function}


def _extend(kind: str) -> None:
    stock = provisioners._RESOURCE_HANDLERS[kind]
    given, taken = NAMED.get(kind, ("", ()))

    def check(logical_id: str, properties: Properties) -> None:
        _refuse({logical_id: {"Type": kind, "Properties": properties}})
        for policy in (properties, *(properties.get("Policies") or ())):
            permissions.check_policy(logical_id, policy.get("PolicyDocument") or {})
        if kind in CHECK:
            CHECK[kind](logical_id, properties)

    def finish(answer: Any, properties: Properties, before: Properties) -> Any:
        if kind in FINISH:
            FINISH[kind](answer[0], properties, before)
        return answer

    def create(logical_id: str, properties: Properties, stack: str) -> Any:
        check(logical_id, properties)
        if properties.get(given) in taken:
            raise ValueError(
                f"Resource of type '{kind}' with identifier '{properties[given]}' already exists."
            )
        return finish(stock["create"](logical_id, properties, stack), properties, {})

    def update(name: str, old: Properties, new: Properties, stack: str, logical_id: str) -> Any:
        check(logical_id, new)
        where = (stack, logical_id) if stock.get("update_with_logical_id") else (stack,)
        try:
            return finish(stock["update"](name, old, new, *where), new, old)
        except Exception:
            if kind in FINISH:  # MiniStack leaves what it has done of these updates until then
                with contextlib.suppress(Exception):
                    finish(stock["update"](name, new, old, *where), old, new)
            raise

    ours: dict[str, Any] = {"create": create}
    if "update" in stock:
        ours |= {"update": update, "update_with_logical_id": True}
    if kind in DELETE:
        ours["delete"] = lambda name, _: DELETE[kind](name)
    provisioners._RESOURCE_HANDLERS[kind] = {**stock, **ours}


def install() -> None:
    """Refuse what is not served, and extend MiniStack's resource handlers."""
    table = "AWS::DynamoDB::Table"  # a retained table comes back by import: MiniStack knows that of this kind
    provisioners._RESOURCE_HANDLERS[TABLE]["import"] = provisioners._RESOURCE_HANDLERS[table]["import"]
    changesets._IMPORT_LOOKUPS[TABLE] = changesets._IMPORT_LOOKUPS[table]
    stock_validate = engine.validate_template_support

    def validate(template: dict[str, Any], conditions: Any, params: Any = None) -> None:
        if params is not None:  # ValidateTemplate knows no parameters
            _refuse_template(template, conditions, params)
        stock_validate(template, conditions, params)

    handlers.validate_template_support = changesets.validate_template_support = validate
    for kind in SERVED:
        _extend(kind)

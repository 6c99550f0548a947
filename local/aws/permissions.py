"""Least privilege: each call of a function is held against its role, by MiniStack's evaluator, and recorded.

Each environment has credentials of its own, an STS session of its function's role, so MiniStack knows whose
call it is (``AUTH=true``; what other callers sign with is the account's root). Added here is what it leaves
out: AWS's wording with the resource, the log stream that CloudWatch Logs checks, what Lambda does under the
function's role, services that invoke a function, and that a call or a policy which it can't judge is refused
by name.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

from ministack import app
from ministack.core import iam_actions, iam_evaluator
from ministack.core.iam_evaluator import EvalContext, evaluate_resource_policy
from ministack.core.responses import get_account_id, get_region
from ministack.services import iam, s3, sts

from local.aws.around import around
from local.aws.records import Record, current

Config = Mapping[str, Any]

SECRET = "local"
NO_KEY = "?"  # of a query or a scan: no policy of ours allows those by key
MOST_RESOURCES = 100  # remembered of each action: objects and log streams have no end
# What our policies and the bootstrap go by; of the last one are keys that the bootstrap does not make here.
CONDITION_KEYS = frozenset(
    {
        "aws:requestedregion",
        "aws:resourceaccount",
        "aws:securetransport",
        "aws:sourceaccount",
        "aws:sourcearn",
        "bedrock:inferenceprofilearn",
        "dynamodb:leadingkeys",
        "lambda:sourcefunctionarn",
        "s3:resourceaccount",
        "kms:viaservice",
    }
)
RESOURCE_TAG = "aws:resourcetag/"  # with a tag's name behind; MiniStack knows the tags of every resource
# MiniStack takes all three for the first.
CONCURRENCY = {
    verb: f"lambda:{name}FunctionConcurrency"
    for verb, name in (("PUT", "Put"), ("GET", "Get"), ("DELETE", "Delete"))
}
# PartiQL is judged by what its statements do, which is not known here: so, by name, refused.
NO_ACTIONS = ("dynamodb:BatchExecuteStatement", "dynamodb:ExecuteStatement", "dynamodb:ExecuteTransaction")
_PROFILE = re.compile(r"(global|us|us-gov|eu|apac|au|ca|jp)\.(\w+\..+)")

_lock = threading.Lock()
_calls: dict[str, dict[str, set[str]]] = {}
_judged: ContextVar[tuple[str, str]] = ContextVar("judged", default=("", "*"))  # the last action and resource
_enforce = iam_evaluator.enforce
_told: set[str] = set()
_leading: ContextVar[tuple[str, ...]] = ContextVar("leading", default=())  # the request's partition keys
log = logging.getLogger("local.aws.permissions")


def credentials(config: Config, environment: str = "") -> dict[str, str]:
    """Return an environment's credentials, as variables; without one Lambda's, under the function's role."""
    arn, role = config["FunctionArn"], config["Role"].rpartition("/")[2]
    account, _, name = arn.split(":")[4:7]
    key = "ASIA" + hashlib.sha256(f"{arn} {role} {environment}".encode()).hexdigest()[:16].upper()
    sts._sessions[key] = {
        "Arn": f"arn:aws:sts::{account}:assumed-role/{role}/{name}",
        "SecretAccessKey": SECRET,
        "SessionToken": arn,
        "UserId": f"AROA:{name}",
        "PrincipalType": "AssumedRole",
    }
    return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": arn}


def revoke(access_key: str) -> None:
    """Forget the credentials of an environment that has ended."""
    sts._sessions.pop(access_key, None)


def calls() -> dict[str, dict[str, list[str]]]:
    """Return the resources of every call so far, by function and action."""
    with _lock:
        return {
            name: {action: sorted(resources) for action, resources in actions.items()}
            for name, actions in _calls.items()
        }


def refusal(config: Config, action: str, resource: str) -> str:
    """Return why Lambda may not do something under a function's role; empty when it may."""
    key = credentials(config)["AWS_ACCESS_KEY_ID"]
    _record(key, action, resource)
    denied = _enforce(key, action, action.partition(":")[0], get_region(), resource)
    if denied is None:
        return ""
    explicit = denied.decision == "Deny"
    return str(iam_actions.identity_denial_message(action, denied.principal_arn, resource, explicit))


def refusal_to_service(service: str, source_arn: str, role_arn: str, action: str, resource: str) -> str:
    """Return why a service may not do something for a source, under a role; empty when it may."""
    role = iam._roles.get(role_arn.rpartition("/")[2]) or {}
    trust = role.get("AssumeRolePolicyDocument") or {}
    trust = json.loads(trust) if isinstance(trust, str) else trust
    context = EvalContext(
        principal_arn="*",
        principal_type="Service",
        principal_account="",
        action="sts:AssumeRole",
        resource_arn=role_arn,
        region=get_region(),
        service_context={"aws:sourcearn": source_arn, "aws:sourceaccount": get_account_id()},
    )
    trusted = [{**one, "Resource": "*"} for one in trust.get("Statement", [])]
    found = evaluate_resource_policy({**trust, "Statement": trusted}, context, service=service)
    if found.decision != "Allow":
        return f"{role_arn or 'no role'} does not trust {service}"
    return refusal({"FunctionArn": source_arn, "Role": role_arn}, action, resource)


def tell(consequence: str) -> None:
    """Say once, on standard error, what does not happen for want of a permission; AWS mostly does not."""
    with _lock:
        if consequence in _told:
            return
        _told.add(consequence)
    log.error(consequence)


def invocable(service: str, source_arn: str, function_arn: str) -> Record | None:
    """Return a function that its own policy lets a service invoke for a source; otherwise tell, and None."""
    if function := current(function_arn):
        context = EvalContext(
            principal_arn="*",
            principal_type="Service",
            principal_account="",
            action="lambda:InvokeFunction",
            resource_arn=function["config"]["FunctionArn"],
            region=get_region(),
            service_context={"aws:sourcearn": source_arn, "aws:sourceaccount": get_account_id()},
        )
        if evaluate_resource_policy(function.get("policy"), context, service=service).decision == "Allow":
            return function
    tell(f"{source_arn} does not invoke {function_arn}: it is missing, or its policy does not allow it")
    return None


def check_policy(logical_id: str, document: Mapping[str, Any]) -> None:
    """Refuse a policy with a condition that could only be read as "never".

    Raises
    ------
    ValueError
        For an operator that there isn't, or a key that calls have no value for here.
    """
    statements = document.get("Statement") or []
    for statement in statements if isinstance(statements, list) else [statements]:
        for operator, tests in (statement.get("Condition") or {}).items():
            bare = operator.lower().removesuffix("ifexists").rpartition(":")[2]
            wrong = [] if bare in iam_evaluator._CONDITION_OPS or bare == "null" else [operator]
            if wrong := wrong or [key for key in tests if not _known(key.lower())]:
                raise ValueError(f"local AWS: {logical_id}: condition not supported: {', '.join(wrong)}")


def _known(key: str) -> bool:
    return key in CONDITION_KEYS or key.startswith(RESOURCE_TAG)


def _partition_keys(request: Any) -> Iterator[str]:
    """Yield the partition keys that a request to DynamoDB names: our tables all call theirs `pk`.

    DynamoDB developer guide, "Using IAM policy conditions for fine-grained access control".
    """
    if isinstance(request, list):
        for each in request:
            yield from _partition_keys(each)
    elif isinstance(request, dict):
        key = request.get("Key") or request.get("Item") or request
        if isinstance(key, dict) and isinstance(key.get("pk"), dict):
            yield str(key["pk"].get("S", NO_KEY))
        else:
            for each in request.values():
                yield from _partition_keys(each)


def _model(path: str, region: str) -> str:
    """Return what a model call is judged on first: a model, or the inference profile that routes to it."""
    name = unquote(path).removeprefix("/model/").rpartition("/")[0]
    own, kind = (get_account_id(), "inference-profile") if _PROFILE.match(name) else ("", "foundation-model")
    return name if name.startswith("arn:") else f"arn:aws:bedrock:{region}:{own}:{kind}/{name}"


def _behind(profile: str, region: str) -> dict[str, str]:
    """Return the models that a profile routes to, by the region that they are asked in: each is judged too.

    Bedrock user guide, "Prerequisites for inference profiles", "Global cross-Region inference". Which other
    regions a geography has is not known here.
    """
    found = _PROFILE.match(profile.partition(":inference-profile/")[2])
    regions = {region: region, **({"unspecified": ""} if found and found[1] == "global" else {})}
    return {
        one: f"arn:aws:bedrock:{part}::foundation-model/{found[2]}" for one, part in regions.items() if found
    }


def _function_of(key: str) -> str:
    """Return the ARN of the function that a key belongs to, empty for any other key."""
    token = (sts._sessions.get(key) or {}).get("SessionToken", "")
    return token if token.startswith("arn:aws:lambda:") else ""


def _record(key: str, action: str, resource: str) -> None:
    name = _function_of(key).rpartition(":")[2]
    if name:
        with _lock:
            known = _calls.setdefault(name, {}).setdefault(action, set())
            if len(known) < MOST_RESOURCES:
                known.add(resource)


def install() -> None:
    """Put our checks around MiniStack's."""

    @around(iam_evaluator, "enforce")
    def enforce(
        stock: Callable[..., Any], key: str, action: str, service: str, region: str, resource_arn: str = "*",
        service_context: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        _judged.set((action, resource_arn))
        function = _function_of(key)
        if not function:
            return stock(key, action, service, region, resource_arn, service_context)
        _record(key, action, resource_arn)
        context = {**(service_context or {}), "lambda:SourceFunctionArn": function}
        if service == "dynamodb":
            context["dynamodb:leadingkeys"] = list(_leading.get())
        if ":application-inference-profile/" in resource_arn:
            text = f"local AWS: an application's inference profile is not served: {resource_arn}"
            return iam_evaluator.AuthError("ValidationException", text)
        denied = stock(key, action, service, region, resource_arn, context)
        bucket, _, name = resource_arn.partition(":::")[2].partition("/")
        if denied is None and action == "s3:GetObject" and s3._get_object_data(bucket, name) is None:
            # Who may not list a bucket is not told that an object isn't there.
            return enforce(stock, key, "s3:ListBucket", service, region, f"arn:aws:s3:::{bucket}")
        for asked_in, model in _behind(resource_arn, region).items():
            context = {"bedrock:InferenceProfileArn": resource_arn}
            denied = denied or enforce(stock, key, action, service, asked_in, model, context)
        return denied

    @around(iam_evaluator, "check_credentials")
    def check_credentials(stock: Callable[..., Any], key: str, service: str | None = None) -> Any:
        if _function_of(key):
            text = f"local AWS: the IAM action of this call of {service} is not known"
            return iam_evaluator.AuthError("AccessDeniedException", text)
        return stock(key, service)

    @around(iam_actions, "access_denied_response")
    def access_denied_response(
        stock: Callable[..., Any], service: str, action: str, principal: str, request_id: str, **more: Any
    ) -> Any:
        if not (more.get("message") or more.get("error_code") or more.get("resource_policy_arn")):
            action, resource = _judged.get()
            quoted = f'"{resource}"' if service == "s3" else resource
            explicit = bool(more.get("explicit_deny"))
            more["message"] = iam_actions.identity_denial_message(action, principal, quoted, explicit)
        return stock(service, action, principal, request_id, **more)

    @around(iam_actions, "extract_iam_action")
    def extract_iam_action(
        stock: Callable[..., Any], service: str, method: str, path: str, *more: Any
    ) -> Any:
        if service == "bedrock-runtime" and path.startswith("/model/"):
            # API_runtime_Converse and API_runtime_ConverseStream: Converse has no action of its own.
            return f"bedrock:InvokeModel{'WithResponseStream' * path.endswith('-stream')}"
        if service == "lambda" and path.endswith("/concurrency"):
            return CONCURRENCY.get(method)
        if service == "lambda" and path.endswith("/provisioned-concurrency") and method == "GET":
            kind = "List{}Configs" if "List" in more[-1] else "Get{}Config"
            return f"lambda:{kind.format('ProvisionedConcurrency')}"
        action = stock(service, method, path, *more)
        if service == "sqs" and action:  # a batch is no action of its own: SQS API permissions
            action = action.removesuffix("Batch")
        return None if action in NO_ACTIONS else action

    @around(iam_actions, "extract_resource_arn")
    def extract_resource_arn(
        stock: Callable[..., str], service: str, method: str, path: str, headers: Any, body: bytes, *more: Any
    ) -> str:
        if service == "bedrock-runtime" and path.startswith("/model/"):
            return _model(path, get_region())
        if service == "dynamodb":
            _leading.set(tuple(_partition_keys(json.loads(body or b"{}"))) or (NO_KEY,))
        found = stock(service, method, path, headers, body, *more)
        if service == "logs" and ":log-group:" in found and "Tag" not in headers.get("x-amz-target", ""):
            # AWS checks the stream, an empty one when the call names none: a grant wants `log-group:name:*`.
            found += f":log-stream:{iam_actions._safe_json_field(body, 'logStreamName')}"
        own = f"{get_region()}:{get_account_id()}"
        if service == "ssm" and found == "*" and (place := iam_actions._safe_json_field(body, "Path")):
            return f"arn:aws:ssm:{own}:parameter{place}"
        if service == "monitoring" and len(names := iam_actions._safe_json_field(body, "AlarmNames")) == 1:
            return f"arn:aws:cloudwatch:{own}:alarm:{names[0]}"  # AWS judges each; ours name one
        return found

    # Loopback has no TLS; on AWS every call has, and our policies deny those without.
    iam_evaluator._request_origin = ContextVar("request_origin", default=("127.0.0.1", True))
    app.pin_request_origin = lambda *_: None

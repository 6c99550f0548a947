"""Messages as the input of something that runs: Lambda's functions and Step Functions' executions."""

from __future__ import annotations

import base64
import json
from typing import Any

from agentops_monitoring import instrument
from agentops_monitoring.encoding import encode
from agentops_monitoring.instrument.outgoing import (
    TOO_LARGE,
    Outgoing,
    fits,
    json_object,
    keep,
    kept,
    propagates,
    spliced,
)
from agentops_monitoring.propagation import KEY

MAX_CLIENT_CONTEXT_BYTES = 3_583
"""In base64: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html."""
MAX_EVENT_BYTES = 262_144
"""An asynchronous payload, where AWS has not raised the limit."""
RAISED_EVENT_BYTES = 1_048_576
"""An asynchronous payload: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html."""
MAX_STATE_BYTES = 262_144
"""Input and output of a state: https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html."""


def before_invoke(params: Any, context: Any, **_: Any) -> None:
    """Put the context beside the payload of a synchronous call, into that of an asynchronous one.

    Lambda passes a `ClientContext` on for synchronous calls only.
    """
    kind = params.get("InvocationType") or "RequestResponse"
    if kind == "DryRun" or not propagates("lambda"):
        return
    try:
        function = _function(str(params["FunctionName"]))
        if kind != "Event":
            name = "ClientContext"
            message = Outgoing(instrument.monitor(), "lambda", destination=function)
            changed = _client_context(params.get(name), message)
        else:
            name = "Payload"
            payload = params.get(name)
            text = payload.decode() if isinstance(payload, bytes | bytearray) else payload
            parsed = json_object(text)
            to = (parsed or {}).get("to")
            message = Outgoing(instrument.monitor(), "lambda", to=to, destination=function)
            # https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
            named = bool(params.get("DurableExecutionName"))
            changed = _payload(text, parsed, message, MAX_EVENT_BYTES, RAISED_EVENT_BYTES, named)
    except Exception:  # noqa: BLE001 - botocore or Lambda will say what is wrong with the call
        return
    if changed is not None:
        params[name] = changed
    keep(context, message)


def before_start(params: Any, model: Any, context: Any, **_: Any) -> None:
    """Put the context into the input of an execution, or into the output of a task that was waited for."""
    if not propagates("stepfunctions"):
        return
    name = "output" if model.name == "SendTaskSuccess" else "input"
    try:
        arn = str(params.get("stateMachineArn") or "").split(":")
        text = params.get(name, "{}" if name == "input" else None)
        parsed = json_object(text)
        machine = arn[6] if len(arn) > 6 else None
        message = Outgoing(
            instrument.monitor(), "stepfunctions", to=(parsed or {}).get("to"), destination=machine
        )
        # https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html
        named = model.name == "StartExecution" and bool(params.get("name"))
        changed = _payload(text, parsed, message, MAX_STATE_BYTES, MAX_STATE_BYTES, named)
    except Exception:  # noqa: BLE001 - botocore or Step Functions will say what is wrong with the call
        return
    if changed is not None:
        params[name] = changed
    keep(context, message)


def after_call(http_response: Any, context: Any, **_: Any) -> None:
    """Record the message, whatever became of the function that got it."""
    for message in kept(context, http_response):
        if message is not None:
            message.record()


def _payload(
    text: Any, parsed: dict[str, Any] | None, message: Outgoing, limit: int, raised: int, named: bool
) -> str | None:
    if named:
        message.problems.append(
            "a named execution starts once for the same input, so that it does not carry its context"
        )
        return None
    if parsed is None:
        message.problems.append("what is no JSON object carries no context")
        return None
    changed = spliced(text, parsed, {KEY: message.carried})
    if fits(len(text.encode()), len(changed.encode()), limit, raised):
        return changed
    message.problems.append(TOO_LARGE)
    return None


def _client_context(given: Any, message: Outgoing) -> str | None:
    client = json.loads(base64.b64decode(given)) if given else {}
    # As a text: to the runtimes of typed languages these values are texts, and all else fails the call
    # (Go's `lambdacontext.ClientContext` has a map[string]string, Java's a Map<String, String>).
    custom = {**(client.get("custom") or {}), KEY: encode(message.carried, redact=False)}
    text = encode({**client, "custom": custom}, redact=False)
    changed = base64.b64encode(text.encode()).decode()
    if len(changed) <= MAX_CLIENT_CONTEXT_BYTES:
        return changed
    message.problems.append(TOO_LARGE)
    return None


def _function(name: str) -> str:
    """Return a function's name: it may be given as an ARN, in part or whole, with a qualifier."""
    parts = name.split(":")
    if "function" in parts[:-1]:
        return parts[parts.index("function") + 1]
    return parts[0]

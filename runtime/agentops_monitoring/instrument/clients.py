"""The hooks on botocore's sessions and clients."""

from __future__ import annotations

from typing import Any

from agentops_monitoring import instrument
from agentops_monitoring.instrument import bedrock, messages, payloads, queues

_MODEL_HOOKS = tuple(
    hook
    for operation in ("Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream")
    for hook in (
        (f"before-parameter-build.bedrock-runtime.{operation}", bedrock.before_call),
        (f"after-call.bedrock-runtime.{operation}", bedrock.after_call),
        (f"after-call-error.bedrock-runtime.{operation}", bedrock.after_failure),
    )
)
_BUDGET_HOOKS = tuple(
    (f"before-call.bedrock-runtime.{operation}", bedrock.before_send)
    for operation in ("Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream")
)
_MESSAGE_HOOKS = (
    ("before-parameter-build.events.PutEvents", messages.before_put),
    ("after-call.events.PutEvents", messages.after_put),
)
_OTHER_MESSAGE_HOOKS = tuple(
    hook
    for operations, before, after in (
        (("sqs.SendMessage", "sqs.SendMessageBatch"), queues.before_send, queues.after_send),
        (("sns.Publish", "sns.PublishBatch"), queues.before_send, queues.after_send),
        (("lambda.Invoke", "lambda.InvokeWithResponseStream"), payloads.before_invoke, payloads.after_call),
        (("sfn.StartExecution", "sfn.StartSyncExecution"), payloads.before_start, payloads.after_call),
        (("sfn.SendTaskSuccess",), payloads.before_start, payloads.after_call),
    )
    for operation in operations
    for hook in ((f"before-parameter-build.{operation}", before), (f"after-call.{operation}", after))
)


def attach_to_session(session: Any) -> None:
    """Hook every client that this botocore session makes from now on."""
    budget = _BUDGET_HOOKS if instrument.guard is not None else ()
    for name, handler in _MODEL_HOOKS + _MESSAGE_HOOKS + _OTHER_MESSAGE_HOOKS + budget:
        session.register(name, handler, unique_id=_unique(name))


def attach_to_client(client: Any) -> None:
    """Hook one client of the service `events`."""
    for name, handler in _MESSAGE_HOOKS:
        client.meta.events.register(name, handler, unique_id=_unique(name))


def _unique(name: str) -> str:
    # botocore registers an id once, however often it is offered: nothing is counted twice.
    return f"agentops-{name}"

"""Runs a Lambda handler as the monitor's wrapper does in a deployed function."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_REGION, _ACCOUNT = "us-east-1", "123456789012"


class LambdaContext:
    """The context object of an invocation.

    It has what Lambda's own has:
    https://docs.aws.amazon.com/lambda/latest/dg/python-context.html

    Parameters
    ----------
    function_name
        The function's name.
    timeout_ms
        Milliseconds until the time limit, from now on.
    request_id
        A new one by default; the same one again is a retry.
    """

    def __init__(
        self, function_name: str = "agent", *, timeout_ms: int = 30_000, request_id: str | None = None
    ) -> None:
        self.aws_request_id = request_id or str(uuid.uuid4())
        self.function_name = function_name
        self.function_version = "$LATEST"
        self.memory_limit_in_mb = "128"
        self.invoked_function_arn = f"arn:aws:lambda:{_REGION}:{_ACCOUNT}:function:{function_name}"
        self.log_group_name = f"/aws/lambda/{function_name}"
        self.log_stream_name = f"2026/01/01/[$LATEST]{uuid.uuid4().hex}"
        self.identity = None
        self.client_context = None
        self._ends = time.monotonic() + timeout_ms / 1000

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds left."""
        return max(0, int((self._ends - time.monotonic()) * 1000))


def invoke(
    handler: Callable[..., Any],
    event: Any = None,
    context: Any = None,
    *,
    agent_name: str | None = None,
) -> Any:
    """Invoke a handler as deployed: instrumented, with a context like Lambda's; pass its answer through.

    An asynchronous handler runs to its end, unless a loop runs already: then the answer is to be awaited.

    Parameters
    ----------
    handler
        Yours, whether `monitored` or not.
    event, context
        Its arguments; a new `LambdaContext` by default.
    agent_name
        Whose events those of the invocation are. By default as `AGENTOPS_AGENT_NAME` says, else as the
        handler's own `@monitored(agent_name=…)` does.
    """
    from agentops_monitoring.wrapper import monitored

    if agent_name is None and not os.environ.get("AGENTOPS_AGENT_NAME"):
        agent_name = getattr(handler, "__agentops_agent__", None)
    with _variable("AGENTOPS_AGENT_NAME", agent_name):
        answer = monitored(handler)(event, LambdaContext() if context is None else context)
    if hasattr(answer, "__await__"):
        import asyncio

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(_awaited(answer))
    return answer


@contextmanager
def _variable(name: str, value: str | None) -> Iterator[None]:
    """Set one variable of the environment, and leave the others as the handler does; None sets nothing."""
    before = os.environ.get(name)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        if value is not None:
            os.environ.pop(name, None)
            if before is not None:
                os.environ[name] = before


async def _awaited(answer: Any) -> Any:
    return await answer

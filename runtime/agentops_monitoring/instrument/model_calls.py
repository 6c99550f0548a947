"""A model call that is seen by itself: from its request to its record."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from agentops_monitoring import instrument, llm, trace
from agentops_monitoring.forks import at_fork
from agentops_monitoring.trace import TraceContext

if TYPE_CHECKING:
    from decimal import Decimal

    from agentops_monitoring.enforcement.guard import Held
    from agentops_monitoring.pricing import TokenUsage
    from agentops_monitoring.recorder import Recorder
    from agentops_monitoring.responses import Reading

NO_TOKENS = "the response names no tokens"
HALF_READ = "the stream was not read to its end, where its tokens are"
CANCELLED = "the call was cancelled before its answer, which names the tokens"

UNNAMED = "unknown"


class Call(NamedTuple):
    """What is known of a call before its answer."""

    model: str
    started_ns: int
    context: TraceContext
    monitor: Recorder
    provider: str
    region: str | None
    operation: str
    held: Held | None = None
    """What is held for it of the agent's budget, where it has one."""


def begin(model: object, provider: str, region: object = None, operation: str = "chat") -> Call:
    """Note a call that starts now, in the context of the code that makes it."""
    return Call(
        model if isinstance(model, str) and model else UNNAMED,
        time.monotonic_ns(),
        trace.current(),
        instrument.monitor(),
        provider,
        region if isinstance(region, str) and region else None,
        operation,
    )


def record(
    call: Call,
    response_id: str | None,
    usage: TokenUsage | None,
    problem: str | None,
    *,
    timed: bool = True,
    request_id: str | None = None,
) -> None:
    """Write a call's usage; never raises.

    Parameters
    ----------
    call
        The call.
    response_id
        The provider's id of the answer.
    usage
        Its tokens, where they are known.
    problem
        Why they are not known, or not all of them: how many were generated is then left open.
    timed
        Whether the time since the call's start is how long the model took.
    request_id
        The provider's id of the request, where its client names the answer by that.
    """
    cost = None
    with suppress(Exception):  # also runs in __del__, at the interpreter's end
        if instrument.active():
            cost = _record(call, response_id, usage, problem, timed, request_id)
    settle(call, cost)


def _record(
    call: Call,
    response_id: str | None,
    usage: TokenUsage | None,
    problem: str | None,
    timed: bool,
    request_id: str | None,
) -> Decimal | None:
    if usage is None and problem is None:
        problem = NO_TOKENS
    tokens: dict[str, int | None] = {name: None for name, _ in llm.TOKEN_FIELDS}
    if usage is not None:
        tokens = {name: getattr(usage, name) for name in tokens}
        if problem:
            tokens["output_tokens"] = None
    problems = [problem] if problem else []
    if call.held is not None and call.held.note:
        problems.append(call.held.note)
    return llm.record_call(
        call.monitor,
        model=call.model,
        tokens=tokens,
        tier="standard" if usage is None else usage.tier,
        extra=() if usage is None else usage.extra,
        region=call.region,
        provider=call.provider,
        response_id=response_id,
        duration_ms=_since(call) if timed else None,
        problems=problems,
        context=call.context,
        request_id=request_id,
    )


def settle(call: Call, cost: Decimal | None) -> None:
    """Book a call's cost on the agent's budget, where it has one; None is not known. Never raises."""
    if call.held is not None:
        call.held.settle(cost)


def record_kept(call: Call, reading: Reading, response_id: str | None) -> None:
    """Write the usage of an answer that the provider keeps, unless it was fetched and counted before."""
    if reading.usage is not None and response_id is not None and first_time(response_id):
        named = call._replace(model=reading.model or call.model)
        record(named, response_id, reading.usage, None, timed=False)


_NEVER_SENT = frozenset(
    {
        *("ConnectError", "ConnectTimeout", "PoolTimeout", "ConnectTimeoutError", "EndpointConnectionError"),
        *("NoCredentialsError", "PartialCredentialsError", "ProxyConnectionError"),
    }
)


_GATEWAY_TIMEOUTS = (408, 504, 524)
"""What says so may stand before a model that goes on."""


def record_failure(call: Call, error: BaseException | str, status_code: object = None) -> None:
    """Write a call that failed, as a span with an error: nobody bills it; never raises.

    What was sent and never answered may yet be billed: a budget keeps what is held for it.
    """
    if call.held is not None:
        cause = None if isinstance(error, str) else error.__cause__ or error
        answered = cause is None or isinstance(status_code, int)
        if type(cause).__name__ in _NEVER_SENT or (answered and status_code not in _GATEWAY_TIMEOUTS):
            call.held.drop()
        else:
            call.held.settle(None)
    with suppress(Exception):
        from agentops_monitoring.event_types import SPAN

        described: dict[str, Any] = {"type": error if isinstance(error, str) else name_of(error)}
        if isinstance(status_code, int):
            described["status_code"] = status_code
        data = {
            "name": f"{call.operation} {call.model}",
            "gen_ai.operation.name": call.operation,
            "gen_ai.request.model": call.model,
            "gen_ai.provider.name": call.provider,
            "duration_ms": _since(call),
            "error": described,
        }
        call.monitor.emit(SPAN, data, context=call.context)


def name_of(error: BaseException) -> str:
    """Return an exception's type as an SDK exports it."""
    kind = type(error)
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


def _since(call: Call) -> float:
    return round((time.monotonic_ns() - call.started_ns) / 1_000_000, 3)


_MAX_COUNTED = 100_000
"""The results of the largest batch: https://platform.claude.com/docs/en/build-with-claude/batch-processing."""
_counted: dict[int, None] = {}
_counting = threading.Lock()


def _renew() -> None:
    # A fork may have copied the lock while another thread held it.
    global _counting
    _counting = threading.Lock()


at_fork(after_in_child=_renew)


def first_time(response_id: str) -> bool:
    """Whether this process meets an answer for the first time, and note it."""
    key = hash(response_id)
    with _counting:
        if key in _counted:
            return False
        _counted[key] = None
        if len(_counted) > _MAX_COUNTED:
            del _counted[next(iter(_counted))]
    return True

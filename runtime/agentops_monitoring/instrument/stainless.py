"""The SDKs of Anthropic and OpenAI are of one make (Stainless): one place that all their calls pass.

Every resource, helper, raw response and subclassed client (Bedrock, Vertex, Azure) leads through
`SyncAPIClient.request` or `AsyncAPIClient.request`, which holds the retries as well: patched there, a call
counts once, whatever was wrapped around it. `_process_response` is where an attempt that succeeded becomes
what the agent asked for: an object, a stream, a raw response.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any

from agentops_monitoring import instrument
from agentops_monitoring.transport import say

if TYPE_CHECKING:
    from agentops_monitoring.instrument.answers import Answer

    Start = Callable[[Any, Any], Answer | None]

_current: ContextVar[Answer | None] = ContextVar("agentops_answer", default=None)
_NEEDED = {"request": {"cast_to", "options"}, "_process_response": {"response"}}
"""The methods to patch, and the parameters that they are known by."""


def patch(base_client: ModuleType, start: Start) -> Callable[[], None]:
    """Patch an SDK's module of base clients; returns what undoes it.

    Parameters
    ----------
    base_client
        The module with `SyncAPIClient` and `AsyncAPIClient`.
    start
        Called with the client and the options of each request; returns None for what is no model call.
    """
    patched: list[tuple[Any, str, object, object]] = []
    kinds = [getattr(base_client, name, None) for name in ("SyncAPIClient", "AsyncAPIClient")]
    if not all(_recognised(kind) for kind in kinds):
        name = base_client.__name__.partition(".")[0]
        say(f"this version of {name} is not known to the monitor, its calls are not recorded")
        return lambda: None
    for kind, around, before in zip(kinds, (_around, _around_async), (_before, _before_async), strict=True):
        assert kind is not None
        for name, replacement in (
            ("request", around(kind.request, start)),
            ("_process_response", before(kind._process_response)),
        ):
            patched.append((kind, name, kind.__dict__[name], replacement))
            setattr(kind, name, replacement)

    def undo() -> None:
        for kind, name, original, replacement in patched:
            # What was put on top of ours stays, and finds ours asleep.
            if kind.__dict__.get(name) is replacement:
                setattr(kind, name, original)

    return undo


def _recognised(kind: object) -> bool:
    for name, parameters in _NEEDED.items():
        code = getattr(getattr(kind, "__dict__", {}).get(name), "__code__", None)
        if code is None:
            return False
        if not parameters <= set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]):
            return False
    return True


def _begun(start: Start, client: Any, options: Any) -> Answer | None:
    if not instrument.active():
        return None
    try:
        return start(client, options)
    except Exception:  # noqa: BLE001 - never into the agent
        return None


def model_of(options: Any) -> object:
    """Return the model that a request names, in its own fields or in `extra_body`, which comes last."""
    for fields in (getattr(options, "extra_json", None), options.json_data):
        if isinstance(fields, Mapping) and "model" in fields:
            return fields["model"]
    return None


def _around(original: Callable[..., Any], start: Start) -> Callable[..., Any]:
    @wraps(original)
    def request(self: Any, cast_to: Any, options: Any, *arguments: Any, **named: Any) -> Any:
        answer = _begun(start, self, options)
        if answer is not None and instrument.guard is not None:
            from agentops_monitoring.enforcement import sdks

            sdks.admit(instrument.guard, answer, options)
        token = _current.set(answer)
        try:
            result = original(self, cast_to, options, *arguments, **named)
        except BaseException as error:
            if answer is not None:
                answer.failed(error)
            raise
        finally:
            _current.reset(token)
        if answer is not None:
            answer.returned(result)
        return result

    return request


def _around_async(original: Callable[..., Any], start: Start) -> Callable[..., Any]:
    @wraps(original)
    async def request(self: Any, cast_to: Any, options: Any, *arguments: Any, **named: Any) -> Any:
        answer = _begun(start, self, options)
        if answer is not None and instrument.guard is not None:
            from agentops_monitoring.enforcement import sdks

            await sdks.admit_async(instrument.guard, answer, options)
        token = _current.set(answer)
        try:
            result = await original(self, cast_to, options, *arguments, **named)
        except BaseException as error:
            if answer is not None:
                answer.failed(error)
            raise
        finally:
            _current.reset(token)
        if answer is not None:
            answer.returned(result)
        return result

    return request


def _arrived(named: dict[str, Any]) -> None:
    answer = _current.get()
    if answer is not None:
        with suppress(Exception):
            answer.arrived(named.get("response"))


def _before(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def process(self: Any, *arguments: Any, **named: Any) -> Any:
        _arrived(named)
        return original(self, *arguments, **named)

    return process


def _before_async(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    async def process(self: Any, *arguments: Any, **named: Any) -> Any:
        _arrived(named)
        return await original(self, *arguments, **named)

    return process

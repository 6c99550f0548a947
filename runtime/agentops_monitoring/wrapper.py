"""Instruments a Lambda handler: by configuration (`AGENTOPS_HANDLER`), or with the decorator `monitored`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial, update_wrapper
from importlib import import_module
from typing import Any, TypeVar, cast

from agentops_monitoring import instrument
from agentops_monitoring.invocation import Invocation, running
from agentops_monitoring.monitor import AgentOpsMonitor

Handler = TypeVar("Handler", bound=Callable[..., Any])

# inspect.CO_COROUTINE, without the import of inspect.
_CO_COROUTINE = 0x80


def monitored(handler: Handler) -> Handler:
    """Record each invocation of a handler, and what its AWS clients do meanwhile.

    What the handler returns or raises passes through untouched. A handler that is wrapped twice is recorded
    once.
    """
    monitor = AgentOpsMonitor()
    instrument.install()

    if _is_coroutine_function(handler):

        async def run_async(*arguments: Any, **named: Any) -> Any:
            event, context = _event_and_context(arguments, named)
            if running(context):
                return await handler(*arguments, **named)
            with Invocation(monitor, event, context):
                return await handler(*arguments, **named)

        return cast(Handler, update_wrapper(run_async, handler))

    def run(*arguments: Any, **named: Any) -> Any:
        event, context = _event_and_context(arguments, named)
        if running(context):
            return handler(*arguments, **named)
        with Invocation(monitor, event, context):
            return handler(*arguments, **named)

    return cast(Handler, update_wrapper(run, handler))


def _event_and_context(arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
    # A decorated method has its object in front.
    if len(arguments) >= 2 and "context" not in named:
        return arguments[-2], arguments[-1]
    return (arguments[-1] if arguments else named.get("event")), named.get("context")


def _is_coroutine_function(handler: Callable[..., Any]) -> bool:
    while isinstance(handler, partial):
        handler = handler.func
    # An object's own __call__ is a method, which passes its function's attributes on.
    code = getattr(handler, "__code__", None) or getattr(
        getattr(handler, "__call__", None),  # noqa: B004
        "__code__",
        None,
    )
    return bool(getattr(code, "co_flags", 0) & _CO_COROUTINE)


def load_handler(name: str) -> Callable[..., Any]:
    """Import a handler by its Lambda name, such as `package.module.function` or `dir/module.function`.

    In Lambda its own loader does it, so that a function that cannot start fails as it would without the
    monitor: with the same error, which names the agent's module.

    Raises
    ------
    ImportError
        Outside Lambda: there is no such module.
    AttributeError
        Outside Lambda: the module has no such handler.
    """
    lambdas_own = getattr(sys.modules.get("awslambdaric.bootstrap"), "_get_handler", None)
    if lambdas_own is not None:
        return cast(Callable[..., Any], lambdas_own(name))
    path, _, attribute = name.rpartition(".")
    if not path:
        raise ImportError(f"Bad handler {name!r} in AGENTOPS_HANDLER: it has to be module.function")
    module = import_module(path.replace("/", "."))
    found = getattr(module, attribute, None)
    if not callable(found):
        raise AttributeError(f"Handler {attribute!r} missing on module {path!r}")
    return cast(Callable[..., Any], found)


def _unconfigured(_event: Any, _context: Any) -> Any:
    raise RuntimeError("AGENTOPS_HANDLER is not set: it names the handler that this one calls")


def _configured() -> Callable[..., Any]:
    named = os.environ.get("AGENTOPS_HANDLER")
    if not named:
        return _unconfigured
    # First, since most modules make their clients while they load, and only new clients are hooked.
    instrument.install()
    return monitored(load_handler(named))


# Imported while Lambda initializes, as the original handler would have been. At the end of the module,
# since the handler's module may itself import `monitored`.
handler = _configured()

"""Instruments a Lambda handler: by configuration (`AGENTOPS_HANDLER`), or with the decorator `monitored`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import partial, update_wrapper

from agentops_monitoring import instrument
from agentops_monitoring.invocation import Invocation, request_id_of
from agentops_monitoring.monitor import AgentOpsMonitor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from typing import Any, TypeVar, overload

    Handler = TypeVar("Handler", bound=Callable[..., Any])

# inspect.CO_GENERATOR, CO_COROUTINE and CO_ASYNC_GENERATOR, without the import of inspect.
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200


if TYPE_CHECKING:

    @overload
    def monitored(handler: Handler, *, agent_name: str | None = None) -> Handler: ...

    @overload
    def monitored(*, agent_name: str | None = None) -> Callable[[Handler], Handler]: ...


def monitored(handler: Any = None, *, agent_name: str | None = None) -> Any:
    """Record each invocation of a handler, and what its AWS clients and models do meanwhile.

    What the handler returns, yields or raises passes through untouched. A handler that is wrapped twice is
    recorded once, as the outer one says.

    Parameters
    ----------
    handler
        A function, a coroutine function, a generator function of either kind, a method, a `partial`, or an
        object with a `__call__`. Of a class with a `__call__` each object becomes a handler. Lambda's own
        runtime calls plain functions only: the others need a framework in between that runs them.
    agent_name
        Who the invocation is of, and all that is seen in it; `AGENTOPS_AGENT_NAME`, else the function's name,
        when left out. What the agent's code records has the name of the monitor that it calls.

    Returns
    -------
    Callable
        The handler, wrapped; a decorator where none is given, as in `@monitored(agent_name="engineer")`.

    Raises
    ------
    TypeError
        What is given as a handler cannot be called.
    ValueError
        In strict mode: the agent's name is none.
    """
    if handler is None:
        return partial(monitored, agent_name=agent_name)
    # By its type alone: a proxy may raise when it is asked for its class.
    kind: Any = type(handler)
    if issubclass(kind, staticmethod | classmethod):
        return kind(_wrapped(handler.__func__, agent_name))
    if not callable(handler):
        raise TypeError(f"monitored takes a handler, not {kind.__name__}; a name is given as agent_name=…")
    if issubclass(kind, type) and any("__call__" in vars(each) for each in handler.__mro__):
        handler.__call__ = _wrapped(handler.__call__, agent_name)
        return handler
    return _wrapped(handler, agent_name)


def _wrapped(handler: Callable[..., Any], agent_name: str | None = None) -> Callable[..., Any]:
    monitor = AgentOpsMonitor(agent_name)
    instrument.install()
    flags = _code_flags(handler)
    make = (
        _awaited
        if flags & _COROUTINE
        else _iterated
        if flags & _GENERATOR
        else _iterated_async
        if flags & _ASYNC_GENERATOR
        else _called
    )
    wrapper = make(monitor, handler)
    with suppress(Exception):  # an object that raises when its attributes are read
        update_wrapper(wrapper, handler)
    if agent_name is not None:
        wrapper.__agentops_agent__ = agent_name  # type: ignore[attr-defined]  # for the testing kit
    return wrapper


def _called(monitor: AgentOpsMonitor, handler: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **named: Any) -> Any:
        with Invocation(monitor, *_event_and_context(arguments, named)):
            return handler(*arguments, **named)

    return run


def _awaited(monitor: AgentOpsMonitor, handler: Callable[..., Any]) -> Callable[..., Any]:
    async def run(*arguments: Any, **named: Any) -> Any:
        with Invocation(monitor, *_event_and_context(arguments, named)):
            return await handler(*arguments, **named)

    return run


def _iterated(monitor: AgentOpsMonitor, handler: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **named: Any) -> Generator[Any, Any, Any]:
        items = handler(*arguments, **named)
        sent, thrown = None, None
        with Invocation(monitor, *_event_and_context(arguments, named)) as invocation:
            invocation.detach()
            while True:
                invocation.resume()
                try:
                    item = items.send(sent) if thrown is None else items.throw(thrown)
                except StopIteration as end:
                    return end.value
                finally:
                    invocation.pause()
                sent, thrown = None, None
                try:
                    sent = yield item
                except BaseException as error:  # noqa: BLE001 - the handler's to meet
                    thrown = error
                    invocation.closed_early = isinstance(error, GeneratorExit)

    return run


def _iterated_async(monitor: AgentOpsMonitor, handler: Callable[..., Any]) -> Callable[..., Any]:
    async def run(*arguments: Any, **named: Any) -> AsyncGenerator[Any, Any]:
        items = handler(*arguments, **named)
        sent, thrown = None, None
        with Invocation(monitor, *_event_and_context(arguments, named)) as invocation:
            invocation.detach()
            while True:
                invocation.resume()
                try:
                    item = await (items.asend(sent) if thrown is None else items.athrow(thrown))
                except StopAsyncIteration:
                    return
                finally:
                    invocation.pause()
                sent, thrown = None, None
                try:
                    sent = yield item
                except BaseException as error:  # noqa: BLE001 - the handler's to meet
                    thrown = error
                    invocation.closed_early = isinstance(error, GeneratorExit)

    return run


def _event_and_context(arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
    if "context" in named or len(arguments) < 2:
        return named.get("event", arguments[-1] if arguments else None), named.get("context")
    # A decorated method has its object in front, and a middleware may hand on more behind.
    last = len(arguments) - 1
    if last > 1:
        last = next((at for at in range(last, 0, -1) if request_id_of(arguments[at])), last)
    return arguments[last - 1], arguments[last]


def _code_flags(handler: Any) -> int:
    while issubclass(type(handler), partial):
        handler = handler.func
    if issubclass(type(handler), type):
        return 0  # calling it makes an object
    with suppress(Exception):  # an object that raises when its attributes are read
        code = getattr(handler, "__code__", None)
        if code is None:
            # An object's own __call__ is a method, which passes its function's attributes on.
            code = getattr(getattr(handler, "__call__", None), "__code__", None)  # noqa: B004
        return int(getattr(code, "co_flags", 0))
    return 0


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
        return lambdas_own(name)  # type: ignore[no-any-return]
    from importlib import import_module

    path, _, attribute = name.rpartition(".")
    if not path:
        raise ImportError(f"Bad handler {name!r} in AGENTOPS_HANDLER: it has to be module.function")
    module = import_module(path.replace("/", "."))
    found = getattr(module, attribute, None)
    if not callable(found):
        raise AttributeError(f"Handler {attribute!r} missing on module {path!r}")
    return found  # type: ignore[no-any-return]


def _unconfigured(_event: Any, _context: Any) -> Any:
    raise RuntimeError("AGENTOPS_HANDLER is not set: it names the handler that this one calls")


def _configured() -> Callable[..., Any]:
    # First, since most modules make their clients while they load, and only new clients are hooked. Those
    # whose handler is decorated have imported `monitored` by then.
    instrument.install()
    named = os.environ.get("AGENTOPS_HANDLER")
    if not named:
        return _unconfigured
    return _wrapped(load_handler(named))


# Imported while Lambda initializes, as the original handler would have been. At the end of the module,
# since the handler's module may itself import `monitored`.
handler = _configured()

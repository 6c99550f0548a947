"""Holds the worst case of a call through the SDKs of Anthropic and OpenAI, which wait or have a loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentops_monitoring.enforcement.guard import Guard
    from agentops_monitoring.instrument.answers import Answer


def admit(guard: Guard, answer: Answer, options: Any) -> None:
    """Hold the worst case of a call that is about to be made.

    Raises
    ------
    BudgetExceeded
        It does not fit.
    """
    if answer.request is not None:
        answer.call = guard.admit(answer.call, *answer.request, _body(options))


async def admit_async(guard: Guard, answer: Answer, options: Any) -> None:
    """Do the same in a thread, for the loop has others to serve meanwhile."""
    try:
        loop = asyncio.get_running_loop()
        admitted = loop.run_in_executor(None, copy_context().run, admit, guard, answer, options)
    except RuntimeError:  # a loop of another make, or one that ends
        admit(guard, answer, options)
        return
    try:
        await asyncio.shield(admitted)
    except asyncio.CancelledError:
        admitted.add_done_callback(lambda done: _abandon(answer, done))
        raise


def _abandon(answer: Answer, admitted: asyncio.Future[None]) -> None:
    """Give back what was held for a call that its agent gave up before it was made."""
    if not admitted.cancelled() and admitted.exception() is None and answer.call.held is not None:
        answer.call.held.drop()


def _body(options: Any) -> object:
    """Return the body as the SDK will put it together: its own fields, then `extra_body`'s."""
    body, more = options.json_data, getattr(options, "extra_json", None)
    if not isinstance(body, Mapping):
        return body
    both = {**body, **more} if isinstance(more, Mapping) else body
    return {name: each for name, each in both.items() if type(each).__name__ not in ("NotGiven", "Omit")}

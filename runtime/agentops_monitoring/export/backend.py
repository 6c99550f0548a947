"""What a receiver of spans must offer, and what it may fail with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from agentops_monitoring.export.spans import Span

T = TypeVar("T")

MAX_SPANS = 256
MAX_CHARACTERS = 2_000_000
"""Of one request, names and attributes together. OpenTelemetry collectors refuse bodies above 20 MiB by
default, and a character takes at most 4 bytes, doubled for what surrounds it."""


class DeliveryError(Exception):
    """The receiver did not confirm the spans; all of them are to be sent again."""


class Backend(Protocol):
    """A receiver of spans."""

    def deliver(self, spans: Sequence[Span], timeout_s: float) -> None:
        """Return once the receiver has confirmed every span.

        Parameters
        ----------
        spans
            What to send, in one request.
        timeout_s
            Seconds after which it must have returned or raised.

        Raises
        ------
        DeliveryError
            Anything else than a confirmation in time.
        """


class _Outcome(Generic[T]):
    value: T
    error: Exception | None = None


def bounded(call: Callable[[], T], timeout_s: float) -> T:
    """Run `call` in a thread and wait for it at most so long.

    Neither name resolution nor a server that answers byte by byte is bounded by the timeouts of HTTP
    clients. A call that is given up on goes on in a daemon thread, which holds up neither the answer nor
    the process's end.

    Raises
    ------
    DeliveryError
        The time is up.
    """
    if timeout_s <= 0:
        raise DeliveryError("no time left")
    outcome: _Outcome[T] = _Outcome()

    def run() -> None:
        try:
            outcome.value = call()
        except Exception as error:  # noqa: BLE001 — raised again in the caller's thread
            outcome.error = error

    thread = threading.Thread(target=run, name="export", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise DeliveryError(f"no answer within {timeout_s:.1f} s")
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


def chunks(sizes: Sequence[int]) -> Iterator[slice]:
    """Cut a sequence of spans of these sizes into requests, in order, each within both limits.

    A span that is too large alone gets a request of its own.
    """
    start = characters = 0
    for index, size in enumerate(sizes):
        full = index - start >= MAX_SPANS or characters + size > MAX_CHARACTERS
        if full and index > start:
            yield slice(start, index)
            start, characters = index, 0
        characters += size
    if start < len(sizes):
        yield slice(start, len(sizes))


def size_of(span: Span) -> int:
    """Characters of a span's texts."""
    told = [span.attributes, *span.events.values()]
    return len(span.name) + sum(len(key) + len(str(value)) for each in told for key, value in each.items())

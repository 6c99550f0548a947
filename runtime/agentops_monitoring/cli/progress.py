"""A bar on standard error, for people: none where nobody looks."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

_WIDTH = 30
_EVERY_S = 0.1


class Progress:
    """Shows how far a command is, while it is used as a context.

    Parameters
    ----------
    what
        What is counted, such as "messages".
    total
        How many there are, as far as is known; 0 when it is not.
    """

    def __init__(self, what: str, total: float = 0) -> None:
        self._what = what
        self.total = total
        self._shown = sys.stderr.isatty()
        self._last = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown and self._last:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def show(self, done: float, about: str = "") -> None:
        """Show a state, at most ten times a second."""
        if not self._shown or time.monotonic() < self._last + _EVERY_S:
            return
        self._last = time.monotonic()
        share = min(1.0, done / self.total) if self.total else 0.0
        bar = "█" * round(share * _WIDTH)
        text = f"{share:4.0%} {bar:░<{_WIDTH}} {about}" if self.total else f"{done:,.0f} {self._what} {about}"
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

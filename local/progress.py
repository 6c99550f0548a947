"""What a person sees while the demo works: each step with its name and time, a bar where one waits."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

BAR_WIDTH = 28


class Progress:
    """Prints steps to standard error; on a terminal the running step is redrawn in place."""

    def __init__(self) -> None:
        self._stream = sys.stderr
        self._live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._color = self._live and "NO_COLOR" not in os.environ
        self._started = time.monotonic()
        self._title = ""

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Time one step; it is marked failed when the body raises."""
        self._title, begun = title, time.monotonic()
        self._draw(f"  … {title}")
        try:
            yield
        except BaseException:
            self._end("✗", "31", begun)
            raise
        self._end("✓", "32", begun)

    def bar(self, done: int, total: int, note: str = "") -> None:
        """Show how far the running step is."""
        filled = BAR_WIDTH * done // max(total, 1)
        self._draw(f"  … {self._title}  {'█' * filled}{'░' * (BAR_WIDTH - filled)} {done}/{total} {note}")

    def elapsed(self) -> float:
        """Seconds since the first step."""
        return time.monotonic() - self._started

    def _draw(self, text: str) -> None:
        if self._live:
            print(f"\r\x1b[2K{text}", end="", file=self._stream, flush=True)

    def _end(self, mark: str, color: str, begun: float) -> None:
        painted = f"\x1b[{color}m{mark}\x1b[0m" if self._color else mark
        lead = "\r\x1b[2K" if self._live else ""
        print(
            f"{lead}  {painted} {self._title:<58}{time.monotonic() - begun:6.1f} s",
            file=self._stream,
            flush=True,
        )

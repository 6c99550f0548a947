"""Exit codes of the command line."""

from __future__ import annotations

DONE, NOT_ALL, USAGE, INTERRUPTED = 0, 1, 2, 130

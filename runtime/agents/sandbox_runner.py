"""Runs in the sandbox's process: sets its limits, then runs the tests of the working folder.

Alone by design: it is started by path, in an environment where nothing of ours can be imported.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import unittest
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

MAX_FAILURES = 5
MAX_TRACEBACK_CHARS = 1500
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]+\b")

_Error: TypeAlias = "tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]"


class Result(unittest.TestResult):
    """One verdict per test method, however many of its subtests fail."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, tuple[str, str]] = {}

    def addError(self, test: unittest.TestCase, err: _Error) -> None:
        self._note(test, "error", err)

    def addFailure(self, test: unittest.TestCase, err: _Error) -> None:
        self._note(test, "failure", err)

    def addSubTest(self, test: unittest.TestCase, _subtest: unittest.TestCase, err: _Error | None) -> None:
        if err is not None:
            failed = err[0] is not None and issubclass(err[0], test.failureException)
            self._note(test, "failure" if failed else "error", err)

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self.found.setdefault(test.id(), ("failure", "succeeded unexpectedly"))

    def _note(self, test: unittest.TestCase, kind: str, err: _Error) -> None:
        if test.id() not in self.found:
            text = self._exc_info_to_string(err, test)  # type: ignore[attr-defined]
            text = _ADDRESS.sub("<address>", text.replace(f"{Path.cwd()}/", ""))
            self.found[test.id()] = (kind, text.strip()[-MAX_TRACEBACK_CHARS:])


def main() -> int:
    """Run the tests; returns the process's exit code."""
    limits, answer = json.loads(sys.argv[1]), Path(sys.argv[2])
    # A kill comes a second after the signal that says why.
    seconds = int(limits["seconds"]) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    _limit(resource.RLIMIT_AS, limits["memory"])
    _limit(resource.RLIMIT_FSIZE, limits["file"])
    _limit(resource.RLIMIT_NOFILE, 64)
    _limit(resource.RLIMIT_CORE, 0)
    sys.path.insert(0, os.getcwd())
    result = Result()
    unittest.defaultTestLoader.discover(".", "test*.py").run(result)
    failures = [
        {"test": _short(name), "kind": kind, "traceback": text}
        for name, (kind, text) in sorted(result.found.items())
    ]
    answer.write_text(
        json.dumps(
            {
                "tests": result.testsRun,
                "failed": len(failures),
                "failures": failures[:MAX_FAILURES],
            }
        )
    )
    return 1 if failures else 0


def _limit(kind: int, value: int) -> None:
    _soft, hard = resource.getrlimit(kind)
    lowest = value if hard == resource.RLIM_INFINITY else min(value, hard)
    try:
        resource.setrlimit(kind, (lowest, lowest))
    except (OSError, ValueError):
        # Some systems (macOS) have no limit on address space; the others still hold.
        print(f"limit {kind} is not to be had here", file=sys.stderr)


def _short(name: str) -> str:
    """`test_app.CartTest.test_one` says enough; a broken module's long name as well."""
    return name.removeprefix("unittest.loader.")


if __name__ == "__main__":
    sys.exit(main())

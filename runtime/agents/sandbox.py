"""The sandbox: runs a project's unittest suite, and returns what happened.

The code under test was written by a model, so nothing of it is trusted: it runs in a process of its own
with limits on time, memory, files and output, in an empty environment and a folder that is thrown away. The
function itself has no permission but its own log and no route out; what the code prints comes back in the
result, never in that log.
"""

from __future__ import annotations

import ast
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

SECONDS = 20
MEMORY_BYTES = 512 * 1024 * 1024
FILE_BYTES = 1024 * 1024
MAX_FILES = 200
MAX_SOURCE_BYTES = 5 * 1024 * 1024
MAX_OUTPUT_CHARS = 4000
MAX_RESULT_BYTES = 256 * 1024
_RUNNER = Path(__file__).with_name("sandbox_runner.py")
_PR_SET_DUMPABLE = 4


class Refused(ValueError):
    """The request is not a project that can be run."""


def handler(event: Mapping[str, Any], _context: Any) -> dict[str, Any]:
    """Run the tests of `event["files"]` (text by path), in at most `event["seconds"]` seconds.

    Returns
    -------
    dict
        `status` (`passed`, `failed`, `timed_out`, `crashed` or `refused`), `tests`, `passed`, `failed`,
        `failures` (`test`, `kind`, `traceback`), `output` (the end of it), and a `reason` where there was no
        result.
    """
    try:
        files = _checked(event.get("files"))
        seconds = min(float(event.get("seconds", SECONDS)), SECONDS)
    except (Refused, TypeError, ValueError) as error:
        return _no_result("refused", str(error))
    _hide_this_process()
    with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
        return _run(Path(folder), files, seconds)


def _run(folder: Path, files: Mapping[str, str], seconds: float) -> dict[str, Any]:
    project, answer, printed = folder / "project", folder / "result.json", folder / "output.txt"
    for path, text in files.items():
        target = project / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    limits = {"seconds": seconds, "memory": MEMORY_BYTES, "file": FILE_BYTES}
    command = [sys.executable, "-s", "-P", "-B", str(_RUNNER), json.dumps(limits), str(answer)]
    with printed.open("w+b") as output:
        process = subprocess.Popen(
            command,
            cwd=project,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            # The processor time is limited in the process; the rest is for sleeping.
            process.wait(seconds)
            late = False
        except subprocess.TimeoutExpired:
            late = True
        finally:
            _end(process)
        tail = _tail(output, folder)
    if late or process.returncode == -signal.SIGXCPU:
        return _no_result("timed_out", f"the tests did not end within {seconds:g} s", tail)
    return _result(answer, files, process.returncode, tail)


def _result(answer: Path, files: Mapping[str, str], code: int, tail: str) -> dict[str, Any]:
    try:
        found = json.loads(_read(answer))
        tests, failures = int(found["tests"]), list(found["failures"])
    except (OSError, ValueError, KeyError, TypeError):
        return _no_result("crashed", f"the test run ended with code {code} and no result", tail)
    written = sum(_count_tests(text) for path, text in files.items() if _is_test(path))
    if tests < written and not failures:
        # The code under test shares a process with its tests, and could keep some from running.
        return _no_result("crashed", f"{tests} of at least {written} tests ran", tail)
    failed = int(found["failed"])
    passed = tests > 0 and not failed and code == 0
    return {
        "status": "passed" if passed else "failed",
        "tests": tests,
        "passed": tests - failed,
        "failed": failed,
        "failures": failures,
        "output": tail,
    }


def _no_result(status: str, reason: str, output: str = "") -> dict[str, Any]:
    return {
        "status": status,
        "tests": 0,
        "passed": 0,
        "failed": 0,
        "failures": [],
        "output": output,
        "reason": reason,
    }


def _checked(files: Any) -> dict[str, str]:
    if not isinstance(files, Mapping) or not files:
        raise Refused("`files` has to be an object of texts by path")
    if len(files) > MAX_FILES:
        raise Refused(f"more than {MAX_FILES} files")
    for path, text in files.items():
        if not isinstance(path, str) or not isinstance(text, str):
            raise Refused("`files` has to be an object of texts by path")
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or any(sign in path for sign in "\\\0:"):
            raise Refused(f"{path!r} is not a path within the project")
    if sum(len(text) for text in files.values()) > MAX_SOURCE_BYTES:
        raise Refused(f"more than {MAX_SOURCE_BYTES} characters of source")
    return dict(files)


def _is_test(path: str) -> bool:
    return PurePosixPath(path).name.startswith("test") and path.endswith(".py")


def _count_tests(text: str) -> int:
    """Test methods as they are written, so that a run cannot pass by running fewer."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return 0
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return len(
        {
            (found.name, node.name)
            for found in classes
            for node in found.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")
        }
    )


def _environment() -> dict[str, str]:
    """Empty, but for the path on which Lambda's Python finds its own libraries, and a fixed order of sets."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PYTHONHASHSEED": "0", **kept}


def _hide_this_process() -> None:
    """Keep the code under test, which has the same user, from the environment and files of this process."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole session, so that nothing started by the tests outlives them."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(path: Path) -> bytes:
    """What stands in a file that the code under test may have replaced by a link or a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        return file.read(MAX_RESULT_BYTES)


def _tail(output: IO[bytes], folder: Path) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - 4 * MAX_OUTPUT_CHARS))
    text = output.read().decode("utf-8", "replace")
    return text.replace(f"{folder.resolve()}/project/", "").replace(f"{folder}/project/", "")[
        -MAX_OUTPUT_CHARS:
    ]

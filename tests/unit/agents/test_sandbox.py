"""The sandbox runs what it is given, within its limits, and lets nothing out."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from agents import sandbox

PASSING = """
import unittest
class T(unittest.TestCase):
    def test_one(self): self.assertEqual(1, 1)
    def test_two(self): self.assertTrue(True)
"""


def run(body: str, **more: Any) -> dict[str, Any]:
    indented = "\n".join(f"        {line}" for line in body.splitlines())
    test = (
        f"import os, sys, time, unittest\nclass T(unittest.TestCase):\n    def test_it(self):\n{indented}\n"
    )
    return sandbox.handler({"files": {"test_it.py": test}, **more}, None)


def test_all_pass() -> None:
    result = sandbox.handler({"files": {"test_a.py": PASSING}}, None)
    assert (result["status"], result["tests"], result["passed"], result["failed"]) == ("passed", 2, 2, 0)


def test_a_failure_is_named_with_its_traceback_and_no_folder_of_this_machine() -> None:
    result = run("self.assertEqual({'b', 'a'}, {'a', 'c'})")
    (failure,) = result["failures"]
    assert (result["status"], failure["test"], failure["kind"]) == ("failed", "test_it.T.test_it", "failure")
    assert 'File "test_it.py"' in failure["traceback"]
    assert tempfile.gettempdir() not in str(result)


def test_the_same_run_gives_the_same_result() -> None:
    body = "words = {str(n) for n in range(50)}; self.fail(f'{object()} {words}')"
    first, second = run(body), run(body)
    assert first["failures"] == second["failures"]


def test_subtests_count_once() -> None:
    result = run("for n in range(5):\n    with self.subTest(n): self.assertEqual(n, -1)")
    assert (result["tests"], result["failed"]) == (1, 1)


def test_no_tests_is_no_pass() -> None:
    assert sandbox.handler({"files": {"app.py": "x = 1"}}, None)["status"] == "failed"


def test_a_module_that_cannot_be_imported() -> None:
    result = sandbox.handler(
        {"files": {"test_a.py": PASSING.replace("import unittest", "import no_such_thing")}}, None
    )
    assert (result["status"], result["failed"]) == ("failed", 1)


@pytest.mark.parametrize("body", ["time.sleep(30)", "while True: pass"])
def test_time_is_limited(body: str) -> None:
    assert run(body, seconds=1)["status"] == "timed_out"


def test_the_caller_cannot_raise_the_time() -> None:
    assert sandbox.SECONDS < 60
    assert run("pass", seconds="a while")["status"] == "refused"


def test_memory_is_limited() -> None:
    result = run("x = bytearray(2 * 1024 ** 3)")
    assert result["status"] == "failed"
    assert "MemoryError" in result["failures"][0]["traceback"]


def test_output_is_limited_and_comes_back_but_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    result = run("sys.stdout.write('x' * 100_000_000)")
    assert len(result["output"]) <= sandbox.MAX_OUTPUT_CHARS
    forged = run("""print('{"agentops.event": {"v": 1}}'); os.write(1, b'{"agentops.event": 2}')""")
    assert "agentops.event" in forged["output"]
    assert capfd.readouterr() == ("", "")


def test_the_environment_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not to be seen")
    result = run("self.fail(repr(sorted(os.environ)))")
    allowed = {"PYTHONHASHSEED", "LD_LIBRARY_PATH", "LC_CTYPE"}
    seen = result["failures"][0]["traceback"].rpartition("AssertionError: ")[2]
    assert set(eval(seen)) <= allowed


@pytest.mark.skipif(os.name != "posix" or not Path("/proc/self").exists(), reason="needs /proc")
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read every process")
def test_the_parent_s_environment_cannot_be_read() -> None:
    result = run("open(f'/proc/{os.getppid()}/environ').read()")
    assert "PermissionError" in result["failures"][0]["traceback"]


@pytest.mark.parametrize("body", ["os._exit(0)", "os.kill(os.getpid(), 9)", "os.abort()"])
def test_a_run_without_a_result_is_no_pass(body: str) -> None:
    assert run(body)["status"] == "crashed"


def test_fewer_tests_than_are_written_is_no_pass() -> None:
    app = "import unittest\nunittest.TestCase.run = lambda self, result=None: None"
    result = sandbox.handler({"files": {"app.py": app, "test_a.py": "import app" + PASSING}}, None)
    assert result["status"] == "crashed"


def test_a_result_that_was_replaced_by_a_pipe_does_not_hang() -> None:
    body = "import atexit\np = os.path.abspath('../result.json')\n"
    body += "atexit.register(lambda: (os.path.exists(p) and os.remove(p), os.mkfifo(p)))"
    assert run(body)["status"] == "crashed"


def test_nothing_outlives_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of its own: whoever else runs sandboxes meanwhile has folders in the common one.
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    mark = tmp_path / "mark"
    child = f"import time; time.sleep(1.5); open({str(mark)!r}, 'w')"
    run(f"import subprocess\nsubprocess.Popen([sys.executable, '-c', {child!r}])")
    assert not list(scratch.iterdir())
    __import__("time").sleep(2)
    assert not mark.exists()


@pytest.mark.parametrize(
    "path", ["../x.py", "/etc/x.py", "a/../../x.py", "", ".", "a\\b.py", "a\0.py", "c:x.py"]
)
def test_paths_outside_of_the_project_are_refused(path: str) -> None:
    result = sandbox.handler({"files": {path: "x = 1"}}, None)
    assert result["status"] == "refused"


@pytest.mark.parametrize("files", [None, {}, [], {"a.py": 1}, {f"{n}.py": "" for n in range(201)}])
def test_what_is_no_project_is_refused(files: Any) -> None:
    assert sandbox.handler({"files": files}, None)["status"] == "refused"

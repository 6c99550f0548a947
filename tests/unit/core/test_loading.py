"""A handler that is configured: how it is loaded, and what is seen of it from the first line on."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentops_monitoring.wrapper import load_handler

from .aws_server import Aws
from .conftest import read_events
from .invoked import CONTEXT, message

RUNTIME = Path(__file__).parents[3] / "runtime"
RUNTIME_CLIENT_PYTHON = Path(__file__).parents[3] / ".venv-local" / "bin" / "python"


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    for path in ("flat_fn.py", "pkg_fn/inner.py", "dir_fn/sub/file_fn.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(
            "from agentops_monitoring import monitored\n"
            "def handler(event, context):\n    return [__name__, event]\n"
        )
    return tmp_path


@pytest.mark.parametrize("name", ["flat_fn.handler", "pkg_fn.inner.handler", "dir_fn/sub/file_fn.handler"])
def test_the_configured_handler_is_called(
    name: str, functions: Path, in_lambda: None, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOPS_HANDLER", name)
    monkeypatch.delitem(sys.modules, "agentops_monitoring.wrapper", raising=False)
    # As Lambda does it.
    wrapper = importlib.import_module("agentops_monitoring.wrapper")
    assert wrapper.handler({"a": 1}, CONTEXT) == [name.rpartition(".")[0].replace("/", "."), {"a": 1}]
    assert [event["type"] for event in recorded()] == ["invocation_started", "invocation_completed"]


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("no_such_module_fn.handler", ImportError, "no_such_module_fn"),
        ("flat_fn.missing", AttributeError, "missing"),
        ("flat_fn.__name__", AttributeError, "__name__"),
        ("handler", ImportError, "module.function"),
    ],
)
def test_a_handler_that_cannot_be_loaded_is_named(
    name: str, error: type[Exception], text: str, functions: Path
) -> None:
    with pytest.raises(error, match=text):
        load_handler(name)


def test_a_client_made_while_the_handlers_module_loads_is_seen_too(
    aws: Aws, in_lambda: None, recorded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "early_client_fn.py").write_text(
        "import boto3\n"
        "client = boto3.session.Session().client('events')\n"
        "def handler(event, context):\n"
        "    client.put_events(Entries=[{'Source': 's', 'DetailType': 't', 'Detail': '{}'}])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("AGENTOPS_HANDLER", "early_client_fn.handler")
    monkeypatch.delitem(sys.modules, "agentops_monitoring.wrapper", raising=False)
    aws.answer({"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]})
    importlib.import_module("agentops_monitoring.wrapper").handler({}, CONTEXT)
    assert [event["type"] for event in recorded()] == [
        "invocation_started", "message_sent", "invocation_completed",
    ]  # fmt: skip


def test_a_client_made_before_its_decorated_handler_is_seen_too(
    aws: Aws, in_lambda: None, recorded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "decorated_fn.py").write_text(
        "import boto3\n"
        "from agentops_monitoring import monitored\n"
        "client = boto3.session.Session().client('events')\n"
        "@monitored\n"
        "def handler(event, context):\n"
        "    client.put_events(Entries=[{'Source': 's', 'DetailType': 't', 'Detail': '{}'}])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "agentops_monitoring.wrapper", raising=False)
    monkeypatch.delattr("agentops_monitoring.monitored")
    aws.answer({"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]})
    importlib.import_module("decorated_fn").handler({}, CONTEXT)
    assert [event["type"] for event in recorded()] == [
        "invocation_started", "message_sent", "invocation_completed",
    ]  # fmt: skip


_WITH_CLIENT_CONTEXT = """
import sys
from awslambdaric import bootstrap
context = bootstrap.create_lambda_context(sys.argv[1], {}, 4_102_444_800_000, "request-1", None, None)
from agentops_monitoring.wrapper import handler
handler({"issue": 7}, context)
"""


@pytest.mark.skipif(not RUNTIME_CLIENT_PYTHON.exists(), reason="no virtual environment of the embedded AWS")
def test_a_client_context_is_found_where_lambda_s_own_client_puts_it(functions: Path) -> None:
    carried = json.dumps(message()["detail"]["agentops"])
    ended = subprocess.run(
        [RUNTIME_CLIENT_PYTHON, "-c", _WITH_CLIENT_CONTEXT, json.dumps({"custom": {"agentops": carried}})],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{functions}{os.pathsep}{RUNTIME}",
            "AGENTOPS_HANDLER": "flat_fn.handler",
            "AGENTOPS_TRANSPORT": "stdout",
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    started, received, completed = read_events(ended.stdout)
    assert received["type"] == "message_received"
    assert {each["trace_id"] for each in (started, received, completed)} == {"a" * 32}


_AS_LAMBDA = """
import sys
from awslambdaric import bootstrap
from awslambdaric.lambda_runtime_exception import FaultException
try:
    bootstrap._get_handler(sys.argv[1])
except FaultException as fault:
    print([fault.exception_type, fault.msg, fault.trace])
except Exception as error:
    print([type(error).__name__, str(error)])
"""


@pytest.mark.skipif(not RUNTIME_CLIENT_PYTHON.exists(), reason="no virtual environment of the embedded AWS")
@pytest.mark.parametrize(
    "name",
    ["no_such_fn.handler", "imports_wrong_fn.handler", "bad_syntax_fn.handler", "dir_fn/sub/file_fn.missing",
     "raises_fn.handler", "handler", "sys.exit"],
)  # fmt: skip
def test_a_function_that_cannot_start_fails_as_without_the_monitor(name: str, functions: Path) -> None:
    (functions / "imports_wrong_fn.py").write_text("import no_such_dependency")
    (functions / "bad_syntax_fn.py").write_text("def handler(:\n")
    (functions / "raises_fn.py").write_text("raise KeyError('TABLE')")
    answers = [
        subprocess.run(
            [RUNTIME_CLIENT_PYTHON, "-c", _AS_LAMBDA, configured],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{functions}{os.pathsep}{RUNTIME}",
                "AGENTOPS_HANDLER": name,
                "AGENTOPS_TRANSPORT": "stdout",
            },
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for configured in (name, "agentops_monitoring.wrapper.handler")
    ]
    assert answers[0].strip()
    assert answers[0] == answers[1]

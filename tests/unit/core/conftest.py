"""A reader of lines that knows none of the code under test, and the processes that tests run in."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentops_monitoring import instrument, transport
from agentops_monitoring.testing import capture_events

from .aws_server import Aws, aws_server

LOG_STREAM = "2026/11/22/AgentOps-Agents-Engineer[$LATEST]0123456789abcdef0123456789abcdef"
TOP_LEVEL = {"timestamp", "level", "Environment", "AgentName", "agentops.event"}
FIELDS = {
    *("v", "id", "type", "agent", "env", "at", "workflow_id", "trace_id", "span_id", "parent_id"),
    *("request_id", "seq", "proof"),
}
BELONGING = {"user_id", "session_id", "tags"}
WITHOUT_METRIC = {"span", "decision_outcome", "time_running_out", "llm_annotation"}


def strict_json(text: str) -> Any:
    """Parse JSON that any parser accepts: no key twice, no NaN, no lone surrogate."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in items]
        assert len(set(keys)) == len(keys), f"a key stands twice: {keys}"
        return dict(items)

    def constant(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    parsed = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    return parsed


def read_events(text: str, log_stream: str | None = None) -> list[dict[str, Any]]:
    """Check every line by the contract, put parts together, and return the events."""
    assert text == "" or text.endswith("\n")
    events: list[dict[str, Any]] = []
    parts: dict[str, list[str]] = {}
    for line in text.split("\n")[:-1]:
        assert len(line.encode("utf-8")) < 60_000
        body = strict_json(line)
        event = body["agentops.event"]
        assert set(event) - {"data", "part", "chunk", "problems", *BELONGING} == FIELDS
        assert event["v"] == 1
        assert re.fullmatch(r"[0-9a-f]{24}-[1-9][0-9]*", event["id"])
        assert event["id"].endswith(f"-{event['seq']}")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["at"])
        assert re.fullmatch(r"[0-9a-f]{32}", event["trace_id"])
        assert re.fullmatch(r"[0-9a-f]{16}", event["span_id"])
        assert event["parent_id"] is None or re.fullmatch(r"[0-9a-f]{16}", event["parent_id"])
        assert body["timestamp"] == event["at"]
        assert body["Environment"] == event["env"]
        assert body["AgentName"] == event["agent"]
        if log_stream is not None:
            nonce = event["id"].partition("-")[0]
            key = log_stream.encode()[-64:]
            assert event["proof"] == hashlib.blake2b(nonce.encode(), key=key, digest_size=12).hexdigest()
        index, count = event.get("part", (1, 1))
        metrics = set(body) - TOP_LEVEL - {"_aws"}
        if index > 1 or event["type"] in WITHOUT_METRIC:
            assert "_aws" not in body
            assert not metrics
        else:
            _check_metric(body, metrics)
        if "part" not in event:
            assert "chunk" not in event
            events.append(event)
            continue
        assert "data" not in event
        chunks = parts.setdefault(event["id"], [])
        chunks.append(event["chunk"])
        assert len(chunks) == index
        if index == count:
            event["data"] = strict_json("".join(parts.pop(event["id"])))
            events.append(event)
    assert not parts
    assert len({event["id"] for event in events}) == len(events)
    return events


def _check_metric(body: dict[str, Any], metrics: set[str]) -> None:
    (name,) = metrics
    assert body[name] == 1
    (directive,) = body["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "AgentOps/Events"
    assert directive["Metrics"] == [{"Name": name, "Unit": "Count"}]
    assert directive["Dimensions"]
    for dimensions in directive["Dimensions"]:
        assert all(isinstance(body[each], str) and body[each] for each in dimensions)
    assert isinstance(body["_aws"]["Timestamp"], int)


class Recorded(transport.StdoutTransport):
    """Stands in for stdout, below the lock."""

    def __init__(self) -> None:
        super().__init__()
        self.stream = io.StringIO()

    def write(self, lines: Any) -> None:
        with self._lock:
            for line in lines:
                self.stream.write(line)


@pytest.fixture(scope="session", autouse=True)
def models_read_once() -> Iterator[None]:
    """Every session of boto3 would read the services' models anew, which takes longer than what is tested."""
    from botocore import loaders, session

    with pytest.MonkeyPatch.context() as patch:
        loader = loaders.create_loader()
        patch.setattr(session, "create_loader", lambda search_path_string=None: loader)
        yield


@pytest.fixture
def recorded() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Yield a function that returns the events recorded so far, read by the independent reader."""
    with capture_events(strict=False, offline=False) as events:
        yield lambda: read_events("".join(events.lines))


@pytest.fixture
def in_lambda(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_LAMBDA_FUNCTION_NAME": "engineer-function",
        "AWS_LAMBDA_LOG_STREAM_NAME": LOG_STREAM,
        "AGENTOPS_TRANSPORT": "stdout",
        "AGENTOPS_AGENT_NAME": "engineer",
        "ENVIRONMENT": "demo",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with aws_server() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield server


@pytest.fixture
def moto(monkeypatch: pytest.MonkeyPatch, in_lambda: None, recorded: Any) -> Iterator[None]:
    """AWS in this process, with our hooks on its clients."""
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        instrument.install()
        yield

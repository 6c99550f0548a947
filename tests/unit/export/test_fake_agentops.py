"""The loopback AgentOps refuses what the real one refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.proto", reason="comes with the exporter (requirements.txt)")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from local.fake_agentops import FakeAgentOps, FakeServer

KEY = "5f0c1f9e-7f3b-4a51-9a53-2a6b4f6f1c11"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeServer]:
    with FakeServer(FakeAgentOps(tmp_path / "spans.jsonl", KEY)) as running:
        yield running


def post(url: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, body, {k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def token(server: FakeServer) -> str:
    status, body = post(
        f"{server.url}/v3/auth/token", json.dumps({"api_key": KEY}).encode(), Content_Type="application/json"
    )
    assert status == 200
    return str(json.loads(body)["token"])


def trace(change: Callable[[Any], None] = lambda span: None) -> bytes:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "manager"
    span = group.scope_spans.add().spans.add(
        trace_id=b"\x01" * 16, span_id=b"\x02" * 8, name="manager.agent", start_time_unix_nano=1_000
    )
    span.end_time_unix_nano = 2_000
    span.status.code = 1
    span.attributes.add(key="agentops.span.kind").value.string_value = "agent"
    change(span)
    return bytes(request.SerializeToString())


def send(server: FakeServer, body: bytes, **headers: str) -> int:
    defaults = {"Authorization": f"Bearer {token(server)}", "Content_Type": "application/x-protobuf"}
    return post(f"{server.url}/v1/traces", body, **{**defaults, **headers})[0]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{}", 400),
        (b"not json", 400),
        (b'{"api_key": "not-a-uuid"}', 400),
        (b'{"api_key": 7}', 400),
        (b'{"api_key": "00000000-0000-4000-8000-000000000000"}', 403),
    ],
)
def test_keys_are_checked(server: FakeServer, body: bytes, status: int) -> None:
    assert post(f"{server.url}/v3/auth/token", body, Content_Type="application/json")[0] == status


def test_good_span_is_recorded(server: FakeServer, tmp_path: Path) -> None:
    assert send(server, trace()) == 200
    rows = [json.loads(line) for line in (tmp_path / "spans.jsonl").read_text().splitlines()]
    assert [(row["trace_id"], row["span_id"], row["parent_span_id"]) for row in rows] == [
        ("01" * 16, "02" * 8, None)
    ]
    assert rows[0]["attributes"] == {"agentops.span.kind": "agent"}


def test_traces_need_a_token_and_protobuf(server: FakeServer) -> None:
    assert send(server, trace(), Authorization="") == 401
    assert send(server, trace(), Authorization="Bearer forged") == 401
    assert send(server, trace(), Content_Type="application/json") == 415
    assert send(server, b"\xff\xff\xff") == 400
    assert server.fake.spans == []


def change(field: str, value: Any) -> Callable[[Any], None]:
    return lambda span: setattr(span, field, value)


@pytest.mark.parametrize(
    "flaw",
    [
        change("trace_id", b"\0" * 16),
        change("trace_id", b"\x01" * 8),
        change("span_id", b"\0" * 8),
        change("parent_span_id", b"\0" * 8),
        change("parent_span_id", b"\x02" * 8),
        change("name", ""),
        change("start_time_unix_nano", 0),
        change("end_time_unix_nano", 500),
        lambda span: span.status.Clear(),
        lambda span: span.ClearField("attributes"),
    ],
)
def test_flawed_spans_are_refused_and_named(server: FakeServer, flaw: Callable[[Any], None]) -> None:
    assert send(server, trace(flaw)) == 400
    assert server.fake.spans == []
    assert len(server.fake.rejected) == 1


def test_faults_on_request(server: FakeServer) -> None:
    wanted = {"path": "/v1/traces", "status": 429, "times": 2}
    assert post(f"{server.url}/_fake/faults", json.dumps(wanted).encode())[0] == 200
    assert [send(server, trace()) for _ in range(3)] == [429, 429, 200]


def test_as_a_program(tmp_path: Path) -> None:
    record = tmp_path / "spans.jsonl"
    with subprocess.Popen(
        [sys.executable, "-m", "local.fake_agentops", "--port", "0", "--record", str(record)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        assert post(f"{url}/v1/traces", trace())[0] == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0

"""From a stream event to the loopback AgentOps, through the real SDK, in a process like Lambda's."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, NamedTuple, TypeAlias

import pytest

from tests.unit.export.factory import CHAIN, INVOCATION, TRACE, item, record, workflow

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("agentops") is None,
    reason="the AgentOps SDK is not installed (requirements.txt)",
)

ROOT = Path(__file__).resolve().parents[3]
KEY = "5f0c1f9e-7f3b-4a51-9a53-2a6b4f6f1c11"

DRIVER = """
import builtins, json, sys
print_before = builtins.print
from agentops_monitoring.functions.export import handler

class Context:
    def get_remaining_time_in_millis(self):
        return REMAINING_MS

answers = [handler(event, Context()) for event in json.load(sys.stdin)]
print("said by the function")
assert builtins.print is print_before, "print was replaced"
sys.stderr.write("ANSWERS " + json.dumps(answers))
"""


class Run(NamedTuple):
    answers: list[dict[str, list[dict[str, str]]]]
    lines: list[str]
    seconds: float

    @property
    def failures(self) -> list[str]:
        return [each["itemIdentifier"] for answer in self.answers for each in answer["batchItemFailures"]]

    def metric(self, name: str) -> list[int]:
        bodies = [json.loads(line) for line in self.lines if line.startswith('{"_aws"')]
        return [body[name] for body in bodies if name in body]


class Aws(BaseHTTPRequestHandler):
    """As much of AWS as answers for the one decision of `workflow()` and for four secrets."""

    SECRETS: ClassVar = {"plain": KEY, "fields": json.dumps({"AGENTOPS_API_KEY": KEY}), "other": '{"x": "y"}'}

    def do_POST(self) -> None:
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = 200
        if self.headers["X-Amz-Target"].endswith("BatchGetItem"):
            answer = self._decisions(wanted["RequestItems"])
        elif wanted["SecretId"] in self.SECRETS:
            answer = {"SecretString": self.SECRETS[wanted["SecretId"]]}
        elif wanted["SecretId"] == "bytes":
            answer = {"SecretBinary": "AAEC"}
        else:
            status, answer = 400, {"__type": "ResourceNotFoundException", "message": "no such secret"}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _decisions(self, wanted: dict[str, Any]) -> dict[str, Any]:
        data = {"S": json.dumps({"decision_type": "remediation", "reasoning_chain": CHAIN})}
        items = {table: [{**key, "data": data} for key in each["Keys"]] for table, each in wanted.items()}
        return {"Responses": items, "UnprocessedKeys": {}}

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Aws) as running:
        Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def server() -> Iterator[Any]:
    # Not at import: the fake needs what only the SDK's requirements bring.
    from local.fake_agentops import FakeAgentOps, FakeServer

    with FakeServer(FakeAgentOps(api_key=KEY)) as running:
        yield running


Runner: TypeAlias = Callable[..., Run]


@pytest.fixture
def run(server: Any, aws: str, tmp_path: Path) -> Runner:
    def start(*batches: list[dict[str, Any]], remaining_ms: int = 30_000, **env: str) -> Run:
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", DRIVER.replace("REMAINING_MS", str(remaining_ms))],
            input=json.dumps([{"Records": batch} for batch in batches]),
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=60,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT / "runtime"),
                "ENVIRONMENT": "test",
                "AGENTOPS_API_KEY": KEY,
                "AGENTOPS_API_ENDPOINT": server.url,
                "AGENTOPS_EXPORTER_ENDPOINT": f"{server.url}/v1/traces",
                "AWS_ENDPOINT_URL": aws,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
                **env,
            },
        )
        assert done.returncode == 0, done.stderr
        noise, _, answers = done.stderr.partition("ANSWERS ")
        assert noise == "", noise
        return Run(json.loads(answers), done.stdout.splitlines(), time.monotonic() - began)

    return start


def test_workflow_arrives_as_one_trace(server: Any, run: Runner) -> None:
    result = run(workflow())
    assert result.failures == []
    spans = {span["span_id"]: span for span in server.fake.spans}
    assert len(spans) == len(server.fake.spans) == 6
    assert server.fake.rejected == []
    assert {span["trace_id"] for span in spans.values()} == {TRACE}
    assert [each for each, span in spans.items() if span["parent_span_id"] is None] == [INVOCATION]
    assert all(span["parent_span_id"] in spans for each, span in spans.items() if each != INVOCATION)
    assert {span["status"] for span in spans.values()} == {"ok"}
    assert {span["resource"]["agentops.project.id"] for span in spans.values()} == {server.fake.project_id}
    call = next(span for span in spans.values() if span["name"].startswith("chat"))
    assert call["kind"] == "client"
    assert call["end_ns"] - call["start_ns"] == 813_000_000
    assert call["attributes"]["gen_ai.usage.total_cost"] == 0.0525
    decision = next(span for span in spans.values() if span["name"].startswith("decision"))
    assert json.loads(decision["attributes"]["agent.reasoning"]) == CHAIN


def test_metrics_go_out_once_and_nothing_else_does(server: Any, run: Runner, tmp_path: Path) -> None:
    result = run(workflow())
    assert result.metric("ExportedSpans") == [6]
    assert result.metric("ExportFailures") == [0]
    assert result.lines[-1] == "said by the function"
    assert len(result.lines) == len(set(result.lines))
    # No upload of what was printed, and the token was there before the first spans left.
    assert server.fake.requests == [("/v3/auth/token", 200), ("/v1/traces", 200)]
    assert list(tmp_path.iterdir()) == []


def test_token_is_kept_between_batches(server: Any, run: Runner) -> None:
    run(workflow(), workflow())
    assert [path for path, _ in server.fake.requests] == ["/v3/auth/token", "/v1/traces", "/v1/traces"]


def test_redelivery_repeats_the_same_spans(server: Any, run: Runner) -> None:
    run(workflow())
    run(workflow())
    for span in server.fake.spans:
        del span["received_at"]
    assert server.fake.spans[:6] == server.fake.spans[6:]


@pytest.mark.parametrize("status", [401, 429])
def test_refused_spans_are_repeated(server: Any, run: Runner, status: int) -> None:
    server.fake.fail("/v1/traces", status=status)
    result = run(workflow(), workflow()[1:])
    assert result.failures == [workflow()[1]["dynamodb"]["SequenceNumber"]]
    assert result.metric("ExportFailures") == [6, 0]
    assert result.metric("ExportedSpans") == [0, 6]
    assert any(str(status) in line for line in result.lines), "the log does not say why"
    assert len(server.fake.spans) == 6


def test_server_error_is_retried_at_once(server: Any, run: Runner) -> None:
    server.fake.fail("/v1/traces", status=500)
    result = run(workflow())
    assert result.failures == []
    assert [status for path, status in server.fake.requests if path == "/v1/traces"] == [500, 200]
    assert len(server.fake.spans) == 6


def test_lasting_server_error_is_bounded(server: Any, run: Runner) -> None:
    server.fake.fail("/v1/traces", status=503, times=99)
    result = run(workflow(), remaining_ms=5_000)
    assert len(result.failures) == 1
    assert result.seconds < 8


def test_events_within_a_span_arrive(server: Any, run: Runner) -> None:
    told = {"decision_id": "d1", "correct": False, "score": 0.25, "evidence": "tests failed"}
    outcome = item("decision_outcome", 1, told, tags='{"team":"shop"}')
    assert run([record(outcome, 1)]).failures == []
    (span,) = server.fake.spans
    assert span["attributes"]["agentops.tags"] == ["team:shop"]
    assert span["events"] == {
        "gen_ai.evaluation.result": {
            "gen_ai.evaluation.name": "decision",
            "gen_ai.evaluation.score.value": 0.25,
            "gen_ai.evaluation.score.label": "incorrect",
            "gen_ai.evaluation.explanation": "tests failed",
            "agentops.decision.id": "d1",
        }
    }


@pytest.mark.parametrize("path", ["/v3/auth/token", "/v1/traces"])
def test_hanging_service_is_given_up_in_time(server: Any, run: Runner, path: str) -> None:
    server.fake.fail(path, hang_s=20, times=99)
    result = run(workflow(), remaining_ms=3_500)
    assert result.failures == [workflow()[1]["dynamodb"]["SequenceNumber"]]
    assert result.metric("ExportFailures") == [6]
    assert result.seconds < 15  # of the 20 that it hangs; the machine may be busy


@pytest.mark.parametrize("status", [401, 500])
def test_no_token_means_no_spans_and_a_repetition(server: Any, run: Runner, status: int) -> None:
    server.fake.fail("/v3/auth/token", status=status)
    result = run(workflow(), workflow())
    assert len(result.answers[0]["batchItemFailures"]) == 1
    assert result.answers[1]["batchItemFailures"] == []
    assert [path for path, _ in server.fake.requests] == ["/v3/auth/token", "/v3/auth/token", "/v1/traces"]


def test_expired_token_is_renewed_within_the_batch(server: Any, run: Runner) -> None:
    """The first batch is confirmed, then the service refuses the token once."""
    server.fake.expire_after(1)
    result = run(workflow(), workflow())
    assert result.failures == []
    assert [status for path, status in server.fake.requests if path == "/v1/traces"] == [200, 401, 200]


def test_wrong_key_is_said(server: Any, run: Runner) -> None:
    result = run(workflow(), AGENTOPS_API_KEY="00000000-0000-4000-8000-000000000000")
    assert len(result.failures) == 1
    assert any("API key" in line for line in result.lines)
    assert all("00000000-0000-4000" not in line for line in result.lines)


def test_no_key_is_said(server: Any, run: Runner) -> None:
    result = run(workflow(), AGENTOPS_API_KEY="")
    assert len(result.failures) == 1
    assert any("AGENTOPS_API_KEY_SECRET" in line for line in result.lines)
    assert server.fake.requests == []


@pytest.mark.parametrize("secret", ["plain", "fields"])
def test_key_comes_from_a_secret(run: Runner, secret: str) -> None:
    assert run(workflow(), AGENTOPS_API_KEY="", AGENTOPS_API_KEY_SECRET=secret).metric("ExportedSpans") == [6]


@pytest.mark.parametrize(
    ("secret", "reason"),
    [("missing", "no such secret"), ("other", "no API key"), ("bytes", "expected the API key as text")],
)
def test_useless_secret_is_said(run: Runner, secret: str, reason: str) -> None:
    result = run(workflow(), AGENTOPS_API_KEY_SECRET=secret)
    assert len(result.failures) == 1
    assert any(reason in line for line in result.lines)


def test_unreachable_service_is_a_failure(server: Any, run: Runner) -> None:
    server.close()
    result = run(workflow(), remaining_ms=6_000)
    assert len(result.failures) == 1

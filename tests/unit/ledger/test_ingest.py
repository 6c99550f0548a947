"""The ingest function on real subscription payloads: what it commits, prints, refuses and keeps."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import boto3
import pytest

from agentops_monitoring.functions import gauges, ingest
from agentops_monitoring.ledger import budgets
from agentops_monitoring.ledger.dead_letters import join
from agentops_monitoring.ledger.reader import LedgerReader
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.recount import recount
from tests.unit.ledger.streams import LogEvent, World, payload, proof


class Context:
    def get_remaining_time_in_millis(self) -> int:
        return 60_000


class Plane:
    """The function with its tables and its queue."""

    def __init__(self, dynamodb: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.dynamodb = dynamodb
        self.sqs = boto3.client("sqs")
        self.queue = self.sqs.create_queue(QueueName="dead")["QueueUrl"]
        self.capsys = capsys

    def deliver(self, body: dict[str, Any] | str) -> dict[str, int]:
        data = body if isinstance(body, str) else _encode(body)
        return ingest.handler({"awslogs": {"data": data}}, Context())

    def metrics(self) -> dict[tuple[str, ...], list[float]]:
        """What was printed since the last call: (namespace, name, *dimension values) → values."""
        found: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for text in self.capsys.readouterr().out.splitlines():
            line = json.loads(text)
            for directive in line["_aws"]["CloudWatchMetrics"]:
                (dimensions,) = directive["Dimensions"]
                for metric in directive["Metrics"]:
                    value = line[metric["Name"]]
                    key = (directive["Namespace"], metric["Name"], *(line[name] for name in dimensions))
                    found[key] += value if isinstance(value, list) else [value]
        return found

    def dead_letters(self) -> list[dict[str, Any]]:
        texts = []
        while messages := self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for message in messages:
                texts.append(message["Body"])
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return join(texts)


def _encode(body: dict[str, Any]) -> str:
    return base64.b64encode(gzip.compress(json.dumps(body).encode())).decode()


@pytest.fixture
def plane(
    dynamodb: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Plane]:
    monkeypatch.setenv("ENVIRONMENT", "test")
    for name, table in zip(("MONITORING", "DECISIONS", "LEDGER"), TABLES, strict=True):
        monkeypatch.setenv(f"{name}_TABLE_NAME", table)
    ingest._ingest.cache_clear()
    gauges._gauges.cache_clear()
    made = Plane(dynamodb, capsys)
    monkeypatch.setenv("DEAD_LETTER_QUEUE_URL", made.queue)
    yield made
    made.sqs.delete_queue(QueueUrl=made.queue)


def test_metrics_sum_to_the_recount(plane: Plane) -> None:
    world = World(21, streams=2, invocations=3)
    expected = recount(world.events)
    sums: dict[tuple[str, ...], float] = defaultdict(float)
    for batch in world.deliveries():
        plane.deliver(payload(batch))
        for key, values in plane.metrics().items():
            sums[key] += sum(values)
    llm = sum(each["llm_cost"] for each in expected.total.values())
    compute = sum(each["compute_cost"] for each in expected.total.values())
    assert sums["AgentOps/Costs", "LLMCost", "test"] == pytest.approx(float(llm))
    assert sums["AgentOps/Costs", "LambdaExecutionCost", "test"] == pytest.approx(float(compute))
    assert sums["AgentOps/Costs", "TotalCost", "test"] == pytest.approx(float(llm + compute))
    by_type = [value for key, value in sums.items() if key[1] == "EventCost"]
    assert sum(by_type) == pytest.approx(float(llm + compute))
    for (_, kind), (_, cost) in expected.types.items():
        if cost and len([1 for _, other in expected.types if other == kind]) == 1:
            assert sums["AgentOps/Costs", "EventCost", "test", kind] == pytest.approx(float(cost))
    sent = sum(each["messages_sent"] for each in expected.total.values())
    assert sums["AgentOps/Collaboration", "MessageCount", "test"] == sent
    assert sums["AgentOps/Monitor", "Malformed", "test"] == 0


def test_a_redelivery_prints_no_cost(plane: Plane) -> None:
    world = World(22, streams=1)
    first = plane.deliver(payload(world.events))
    assert any(key[1] == "TotalCost" for key in plane.metrics())
    again = plane.deliver(payload(world.events))
    metrics = plane.metrics()
    assert not any(key[0] in ("AgentOps/Costs", "AgentOps/Collaboration") for key in metrics)
    assert metrics["AgentOps/Monitor", "Duplicates", "test"] == [first["events"] + first["reports"]]
    assert again["events"] == 0


def test_what_lambda_ended_and_wrong_arguments_are_metrics(plane: Plane) -> None:
    name = "agentops|test|manager|arm64"
    lines = [
        _event_line(STREAM, type="invocation_started", problems=["data is no mapping but int"]),
        "REPORT RequestId: r\tDuration: 3000.00 ms\tBilled Duration: 3000 ms\tMemory Size: 128 MB\t"
        "Max Memory Used: 70 MB\tStatus: timeout\n",
    ]
    at = 1_795_334_400_001
    events = [LogEvent(STREAM, name, str(number), at + number, text) for number, text in enumerate(lines)]
    plane.deliver(payload(events))
    metrics = plane.metrics()
    assert metrics["AgentOps/Events", "invocation_failed", "test"] == [1]
    assert metrics["AgentOps/Events", "invocation_failed", "test", "manager"] == [1]
    assert metrics["AgentOps/Monitor", "Problems", "test"] == [1]
    plane.deliver(payload(events))
    again = plane.metrics()
    assert not any(key[1] == "invocation_failed" for key in again)
    assert again["AgentOps/Monitor", "Problems", "test"] == [0]
    # The end that it told came late: what was counted is taken back.
    end = _event_line(STREAM, type="invocation_completed", id="abc-2", seq=2)
    plane.deliver(payload([LogEvent(STREAM, name, "9", at, end)]))
    assert plane.metrics()["AgentOps/Events", "invocation_failed", "test", "manager"] == [-1]


def test_a_message_that_is_delivered_twice_counts_once(plane: Plane) -> None:
    """As metrics and in the ledger; between whom it went is known where it arrives, if it named nobody."""
    data = {"from": "desk", "to": "manager", "message_id": "m1", "latency_ms": 20, "addressed_to": None}
    name = "agentops|test|manager|arm64"

    def deliver(number: int, **more: Any) -> dict[tuple[str, ...], list[float]]:
        line = _event_line(STREAM, type="message_received", id=f"abc-{number}", seq=number, data=data | more)
        plane.deliver(payload([LogEvent(STREAM, name, str(number), 1_795_334_400_000, line)]))
        return plane.metrics()

    first, second = deliver(1), deliver(2, latency_ms=5_000, redelivered=True)
    assert first["AgentOps/Collaboration", "HandoffLatency", "test"] == [20]
    assert first["AgentOps/Collaboration", "AgentCommunication", "test", "desk", "manager"] == [1]
    assert not any(key[0] == "AgentOps/Collaboration" for key in second)
    other = deliver(3, to="engineer", message_id="m2", addressed_to="engineer")
    assert not any(key[1] == "AgentCommunication" for key in other)  # its sender has counted it
    found = LedgerReader(plane.dynamodb, TABLES).window(*_HOUR)
    assert (found.total.messages_received, found.total.mean_handoff_ms) == (2, 20)
    assert (found.flows["desk", "manager"].messages, found.total.events) == (1, 3)


_HOUR = (datetime(2026, 11, 22, 8, tzinfo=UTC), datetime(2026, 11, 22, 9, tzinfo=UTC))


def _event_line(stream: str, **changes: Any) -> str:
    body = {
        "v": 1, "id": "abc-1", "type": "issue_detected", "agent": "manager", "env": "test",
        "at": "2026-11-22T08:00:00.000Z", "workflow_id": "w", "trace_id": "0" * 32, "span_id": "1" * 16,
        "parent_id": None, "request_id": "r", "seq": 1, "proof": proof("abc", stream), "data": {},
    }  # fmt: skip
    return json.dumps({"issue_detected": 1, "agentops.event": body | changes})


STREAM = "2026/11/22/manager[$LATEST]00112233445566778899aabbccddeeff"


@pytest.mark.parametrize(
    ("message", "metric", "reason"),
    [
        (_event_line(STREAM, proof="0" * 24), "Forged", "proof"),
        (_event_line(STREAM, proof=None), "Forged", "proof"),
        (_event_line("another stream"), "Forged", "proof"),
        (_event_line(STREAM)[:-40], "Malformed", "not JSON"),
        (_event_line(STREAM, at="yesterday"), "Malformed", "at is"),
        (_event_line(STREAM, v=0), "Malformed", "version 0"),
        (_event_line(STREAM, workflow_id=""), "Malformed", "workflow_id"),
        (_event_line(STREAM, seq="1"), "Malformed", "seq"),
        ('{"agentops.event": [1]}', "Malformed", "no object"),
        ("The model said: agentops.event", "Malformed", "neither"),
        ("REPORT RequestId: torn", "Malformed", "torn"),
        ('{"type":"platform.report","record":{"requestId":"r","metrics":{}}}', "Malformed", "lacks"),
        (
            '{"type":"platform.report","record":{"requestId":"r","metrics":'
            '{"durationMs":1,"billedDurationMs":1e12,"memorySizeMB":128}}}',
            "Malformed",
            "range",
        ),
    ],
)
def test_bad_lines_are_kept_whole_with_their_reason(
    plane: Plane, message: str, metric: str, reason: str
) -> None:
    good = _event_line(STREAM, id="abc-2", seq=2)
    name = "agentops|test|manager|arm64"
    events = [LogEvent(STREAM, name, "1", 1_795_334_400_000, message), LogEvent(STREAM, name, "2", 1, good)]
    assert plane.deliver(payload(events)) | {"requests": 0} == {
        "events": 1, "reports": 0, "duplicates": 0, "later": 0, "rejected": 1, "requests": 0,
    }  # fmt: skip
    metrics = plane.metrics()
    assert metrics["AgentOps/Monitor", metric, "test"] == [1]
    (letter,) = plane.dead_letters()
    (kept,) = letter["logEvents"]
    assert kept["message"] == message
    assert reason in kept["reason"]
    assert letter["logStream"] == STREAM


def test_what_cannot_be_decoded_is_kept(plane: Plane) -> None:
    plane.deliver("bm8gZ3ppcA==")
    (letter,) = plane.dead_letters()
    assert letter["awslogs"]["data"] == "bm8gZ3ppcA=="
    assert "decoded" in letter["reason"]


def test_a_bad_line_of_a_megabyte_is_kept_whole(plane: Plane) -> None:
    message = '{"agentops.event": ' + "".join(chr(33 + (i * i) % 90) for i in range(900_000))
    plane.deliver(payload([LogEvent(STREAM, "agentops|test|m|arm64", "1", 1, message)]))
    (letter,) = plane.dead_letters()
    assert letter["logEvents"][0]["message"] == message


@pytest.mark.parametrize("length", [250, 256])
def test_a_message_of_any_id_does_not_hold_up_the_others(plane: Plane, length: int) -> None:
    """Its state's key has 2,048 bytes, for reading as well; a longer id is as good as none."""
    agent, wide = "\U0001f600" * 256, "\U0001f600" * length
    data = {"from": "desk", "to": "x", "message_id": wide, "latency_ms": 20}
    lines = [_event_line(STREAM), _event_line(STREAM, id="abc-2", type="message_received", data=data)]
    lines += [_event_line(STREAM, id="abc-3", type="message_received", data=data, agent=agent)]
    name = "agentops|test|manager|arm64"
    events = [LogEvent(STREAM, name, str(n), 1_795_334_400_000, line) for n, line in enumerate(lines)]
    result = plane.deliver(payload(events))
    # The key of such an agent's counters is refused, where AWS's limit of sort keys is known.
    assert (result["events"], result["rejected"]) in ((2, 1), (3, 0))
    assert LedgerReader(plane.dynamodb, TABLES).window(*_HOUR).total.messages_received == result["events"] - 1


def test_a_model_call_without_tokens_has_no_price(plane: Plane) -> None:
    data = {"gen_ai.request.model": "claude-3-opus", "gen_ai.usage.input_tokens": 5}
    name = "agentops|test|manager|arm64"
    lines = [_event_line(STREAM, type="llm_usage", data=data)]
    plane.deliver(payload([LogEvent(STREAM, name, "1", 1_795_334_400_000, lines[0])]))
    total = LedgerReader(plane.dynamodb, TABLES).window(*_HOUR).total
    assert (total.llm_calls, total.unpriced_calls, float(total.llm_cost)) == (1, 1, 0)


def test_an_answer_that_its_provider_keeps_counts_once_whoever_fetches_it(plane: Plane) -> None:
    """The result of a batch is billed once, and can be fetched for weeks."""
    numbers = itertools.count(1)

    def fetched(**more: Any) -> str:
        data = {
            "gen_ai.request.model": "claude-3-opus", "gen_ai.provider.name": "anthropic", "source": "auto",
            "tier": "batch", "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 0,
            "gen_ai.response.id": "msg_1",
        }  # fmt: skip
        number = next(numbers)
        return _event_line(STREAM, type="llm_usage", id=f"abc-{number}", seq=number, data=data | more)

    def deliver(*lines: str) -> tuple[int, int]:
        name = "agentops|test|manager|arm64"
        events = [LogEvent(STREAM, name, str(n), 1_795_334_400_000, line) for n, line in enumerate(lines)]
        result = plane.deliver(payload(events))
        assert result["rejected"] == 0
        return result["events"], result["duplicates"]

    first = fetched()
    # Again in the same process, as one whose memory is full does; then redelivered, then by others.
    assert deliver(first, fetched(), _event_line(STREAM, id="abc-99", seq=99)) == (2, 1)
    assert deliver(first) == (0, 1)
    assert deliver(fetched(), fetched(source="manual")) == (0, 2)
    assert deliver(fetched(tier="standard"), fetched(tier="standard")) == (1, 1), (
        "fetched from the background"
    )
    # Other answers, and calls that were waited for, whose ids a server may repeat.
    assert deliver(*(fetched(**{"gen_ai.response.id": f"msg_{n}"}) for n in (2, 3))) == (2, 0)
    assert deliver(fetched(**{"gen_ai.usage.output_tokens": 1})) == (1, 0)
    assert deliver(*(fetched(duration_ms=5) for _ in range(2))) == (2, 0)
    assert deliver(*(fetched(source="manual", tier="standard") for _ in range(2))) == (2, 0)
    assert LedgerReader(plane.dynamodb, TABLES).window(*_HOUR).total.llm_calls == 9
    assert plane.dead_letters() == []


def test_control_messages_are_ignored(plane: Plane) -> None:
    plane.deliver(
        {"messageType": "CONTROL_MESSAGE", "logEvents": [{"id": "1", "timestamp": 1, "message": "x"}]}
    )
    assert plane.dead_letters() == []


def test_an_event_of_five_megabytes(plane: Plane) -> None:
    """Split into lines, larger than a transaction even when compressed."""
    noise = base64.b64encode(b"".join(_digest(i) for i in range(60_000))).decode()
    data = {"decision_type": "big", "reasoning_chain": [{"thought": noise}], "confidence_score": 0.5}
    text = json.dumps(data)
    assert len(text) > 5_000_000 // 2
    size = 50_000
    chunks = [text[start : start + size] for start in range(0, len(text), size)]
    name = "agentops|test|manager|arm64"
    lines = []
    for number, chunk in enumerate(chunks, start=1):
        line = json.loads(_event_line(STREAM, type="decision_made", part=[number, len(chunks)], chunk=chunk))
        line["decision_made"] = 1
        del line["agentops.event"]["data"]
        lines.append(LogEvent(STREAM, name, str(number), 1_795_334_400_000, json.dumps(line)))
    for start in range(0, len(lines), 7):
        plane.deliver(payload(lines[start : start + 7]))
    reader = LedgerReader(plane.dynamodb, TABLES)
    (decision,) = reader.latest_decisions(["manager"])
    assert decision["data"] == data
    (event,) = reader.workflow_events("w")
    assert event["data"] == {"decision_type": "big", "confidence_score": 0.5}
    assert plane.dead_letters() == []


@pytest.mark.parametrize(
    "printed",
    ["Thinking", "{", '{"a": 1}', '{"timestamp":"2026-11-22T08:00:00Z","message":"hi"}', "[" * 50],
)
def test_a_line_is_read_behind_what_was_printed_before_it(plane: Plane, printed: str) -> None:
    """In lines that end an invocation's text; their parts come in two deliveries."""
    data = {"timestamp": "1", "said": {"timestamp": "2"}}
    text, name = json.dumps(data), "agentops|test|manager|arm64"
    whole = json.loads(_event_line(STREAM, id="abc-9", seq=9, data=data))
    found = [{"timestamp": "2026-11-22T08:00:00.000Z", **whole}]
    for number, chunk in enumerate((text[:9], text[9:]), start=1):
        line = json.loads(_event_line(STREAM, part=[number, 2], chunk=chunk))
        del line["agentops.event"]["data"]
        found.append({"timestamp": "2026-11-22T08:00:00.000Z", **line})
    for number, line in enumerate(found):
        message = printed + json.dumps(line, separators=(",", ":"))
        plane.deliver(payload([LogEvent(STREAM, name, str(number), 1_795_334_400_000, message)]))
    assert [each["data"] for each in LedgerReader(plane.dynamodb, TABLES).workflow_events("w")] == [data] * 2
    assert plane.dead_letters() == []


def _digest(number: int) -> bytes:
    from hashlib import sha256

    return sha256(str(number).encode()).digest()


def test_gauges(plane: Plane) -> None:
    world = World(23, streams=2, invocations=3)
    expected = recount(world.events)
    for batch in world.deliveries():
        plane.deliver(payload(batch))
    reader = LedgerReader(plane.dynamodb, TABLES)
    noon = datetime(2026, 11, 22, 12, tzinfo=UTC)
    values = list(gauges.gauges(reader, "test", Decimal(10), noon))
    spent = {v.dimensions.get("AgentName"): v.value for v in values if v.name == "SpendToDate"}
    total = sum((usd for (day, _), usd in expected.day_spend.items() if day == "2026-11-22"), Fraction(0))
    assert spent[None] == pytest.approx(float(total))
    used = [v.value for v in values if v.name == "BudgetUtilization" and len(v.dimensions) == 1]
    assert used == [pytest.approx(float(total) * 10)]
    tomorrow = gauges.gauges(reader, "test", Decimal(10), noon + timedelta(days=1))
    assert {v.value for v in tomorrow} == {0.0}
    assert {v.dimensions.get("AgentName") for v in values} == {*spent}


@pytest.mark.parametrize("text", ["", "ten", "-1", "NaN"])
def test_a_budget_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="COST_ALERT_THRESHOLD"):
        budgets.threshold(text)

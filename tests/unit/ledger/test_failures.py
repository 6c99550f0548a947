"""Invocations that Lambda ended: their event is made of Lambda's report, whatever comes when."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import pytest

from agentops_monitoring.export.spans import span_of
from agentops_monitoring.export.stream import event_of
from agentops_monitoring.ledger.forget import Forget
from agentops_monitoring.ledger.metrics import BusiestPairs, metric_lines
from agentops_monitoring.ledger.parse import read_payload
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.totals import rollups
from agentops_monitoring.ledger.writer import LedgerWriter, WriteResult
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.fake_dynamodb import FakeDynamoDB
from tests.unit.ledger.streams import LogEvent, payload, proof, rfc3339

STREAM = "2026/11/22/[$LATEST]00112233445566778899aabbccddeeff"
REQUEST = "8f507cfc-fe13-4e04-9f23-1e2f5d1ce93d"
WORKFLOW, SPAN, PARENT = "a" * 32, "b" * 16, "c" * 16
BEGUN = 1_795_334_400_000
NOW = datetime.fromtimestamp(BEGUN / 1000, UTC)


def event(number: int, kind: str, data: Any = None, **more: Any) -> LogEvent:
    body = {
        "v": 1, "id": f"abc-{number}", "type": kind, "agent": "manager", "env": "test",
        "at": rfc3339(BEGUN + number), "workflow_id": WORKFLOW, "trace_id": WORKFLOW,
        "span_id": f"{number:016x}", "parent_id": SPAN, "request_id": REQUEST, "seq": number,
        "proof": proof("abc", STREAM),
        "data": data or {}, **more,
    }  # fmt: skip
    return logged(BEGUN + number, json.dumps({kind: 1, "agentops.event": body}), f"{number:056d}")


def logged(at_ms: int, message: str, id_: str) -> LogEvent:
    return LogEvent(STREAM, "agentops|test|manager|arm64", id_, at_ms, message)


def report(number: int = 90, *, ms: float = 90, status: str = "timeout", error: str = "") -> LogEvent:
    told = f"\tStatus: {status}" if status != "success" else "\t"
    told += f"\tError Type: {error}" if error else ""
    return logged(
        BEGUN + number,
        f"REPORT RequestId: {REQUEST}\tDuration: {ms:.2f} ms\tBilled Duration: {int(ms) + 1} ms\t"
        f"Memory Size: 128 MB\tMax Memory Used: 70 MB{told}\n",
        f"{number:056d}",
    )


START = event(1, "invocation_started", span_id=SPAN, parent_id=PARENT, user_id="u1", session_id="s1")
CALL = event(2, "llm_usage", {"gen_ai.request.model": "no-such-model"})
END = event(50, "invocation_completed", {"duration_ms": 49}, span_id=SPAN, parent_id=PARENT)


class Ledger:
    """What is left of lines that were delivered one by one."""

    def __init__(self, *deliveries: list[LogEvent]) -> None:
        self.client = FakeDynamoDB()
        self.results: list[WriteResult] = []
        writer = LedgerWriter(self.client, TABLES, shards=2)
        for batch in deliveries:
            self.results.append(writer.write(read_payload(payload(batch), "us-east-1")))
        self.reader = LedgerReader(self.client, TABLES, shards=2)

    def failures(self) -> list[dict[str, Any]]:
        return self.reader.events_of_type("invocation_failed", NOW, NOW.replace(hour=23))

    def counted(self) -> tuple[int, int]:
        agents = self.reader.last(1, NOW).agents
        by_type = {name: each.by_type.get("invocation_failed", 0) for name, each in agents.items()}
        return by_type.pop("manager", 0), sum(by_type.values())

    def numbers(self) -> dict[str, Any]:
        """Every counter that is not zero."""
        found = self.reader.last(1, NOW)
        kept = {"": found.total, **found.agents, **found.models}
        counters = {name: {k: v for k, v in each.counters.items() if v} for name, each in kept.items()}
        return {**counters, "types": found.types}

    def told(self) -> int:
        """The sum of the metric that ingest emits."""
        return sum(change for result in self.results for change in result.failures.values())


def test_a_time_out_is_where_its_invocation_was() -> None:
    ledger = Ledger([START, CALL, report(ms=3000)])
    (failed,) = ledger.failures()
    assert failed["id"] == f"report-{90:056d}-{SPAN}"
    assert failed["at"] == rfc3339(BEGUN + 90)
    for name, value in {
        "workflow_id": WORKFLOW, "trace_id": WORKFLOW, "span_id": SPAN, "parent_id": PARENT,
        "agent": "manager", "request_id": REQUEST, "user_id": "u1", "session_id": "s1",
    }.items():  # fmt: skip
        assert failed[name] == value
    assert failed["data"] == {
        "error": {
            "type": "Lambda.Timeout",
            "message": "timed out after 3.00 s, with 70 of 128 MB in use",
        },
        "duration_ms": 3000.0,
        "source": "report",
    }
    assert failed in ledger.reader.workflow_events(WORKFLOW)
    assert ledger.counted() == (1, 0)
    assert ledger.told() == 1


@pytest.mark.parametrize("error", ["Runtime.OutOfMemory", "Runtime.ExitError"])
def test_a_crash_has_lambdas_word_for_it(error: str) -> None:
    (failed,) = Ledger([START, report(status="error", error=error)]).failures()
    assert failed["data"]["error"]["type"] == error
    assert failed["data"]["error"]["message"].startswith("ended by Lambda after 0.09 s")


def test_what_ends_before_the_monitor_begins_has_a_workflow_of_its_own() -> None:
    ledger = Ledger([report(status="error", error="Runtime.ImportModuleError")])
    (failed,) = ledger.failures()
    own = REQUEST.replace("-", "")
    assert (failed["workflow_id"], failed["trace_id"], failed["agent"]) == (own, own, "manager")
    assert ledger.reader.workflow_events(own) == [failed]
    assert ledger.counted() == (1, 0)


@pytest.mark.parametrize(
    "lines", [[START, END], [START, event(50, "invocation_failed", span_id=SPAN)], [END]]
)
def test_an_invocation_that_told_its_end_has_no_other(lines: list[LogEvent]) -> None:
    ledger = Ledger([*lines, report()])
    assert [each for each in ledger.failures() if each["id"].startswith("report-")] == []
    assert ledger.told() == 0


def test_any_order_of_delivery_ends_in_the_same(full_size: bool) -> None:
    lines = [START, CALL, END, report(80, ms=20), report(status="error", error="Runtime.ExitError")]
    retry = event(100, "invocation_started", span_id="d" * 16, parent_id=None)
    lines += [retry, report(200, ms=100)]
    orders = list(permutations([[each] for each in lines]))
    wanted = Ledger(lines)
    assert [each["span_id"] for each in wanted.failures()] == ["d" * 16]
    for order in orders[:: 5 if full_size else 97]:
        ledger = Ledger(*order, lines)
        assert ledger.failures() == wanted.failures()
        assert ledger.numbers() == wanted.numbers()
        assert ledger.told() == wanted.told() == 1
        assert ledger.reader.workflow_events(WORKFLOW) == wanted.reader.workflow_events(WORKFLOW)
        assert ledger.reader.workflow_events(REQUEST.replace("-", "")) == []


def test_a_start_that_comes_late_takes_its_failure_home() -> None:
    ledger = Ledger([report()], [START])
    (failed,) = ledger.failures()
    assert (failed["workflow_id"], failed["span_id"]) == (WORKFLOW, SPAN)
    assert ledger.reader.workflow_events(REQUEST.replace("-", "")) == []
    assert [result.failures for result in ledger.results] == [
        {(BEGUN, "manager"): 1},
        {(BEGUN, "manager"): 0},
    ]


def test_a_failure_that_moves_within_its_workflow_is_new_to_stream_readers() -> None:
    """Who began without a message has the workflow that a report alone makes: the items' keys differ."""
    own = REQUEST.replace("-", "")
    start = event(1, "invocation_started", span_id=SPAN, parent_id=None, workflow_id=own, trace_id=own)
    ledger = Ledger([report()], [start])
    items = ledger.client.scan(TableName=TABLES.monitoring)["Items"]
    kept = [item for item in items if item["sk"]["S"].partition("#")[2].startswith("report-")]
    assert sorted("withdrawn" in item for item in kept) == [False, True]
    (failed,) = ledger.failures()
    assert (failed["workflow_id"], failed["span_id"]) == (own, SPAN)


def test_what_is_taken_back_is_so_in_the_minute_in_which_it_was_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else it would hide a true failure of another minute, and leave a false one in its own."""
    monkeypatch.setenv("ENVIRONMENT", "test")
    late = event(3 * 60_000, "issue_detected", request_id="another")
    ledger = Ledger([START, report(61_000, ms=60_990)], [late, END])
    sums: dict[int, float] = {}
    for result in ledger.results:
        for text in metric_lines(result, "test", BEGUN + 10 * 60_000, BusiestPairs(list)):
            line = json.loads(text)
            if line.get("AgentName") == "manager" and "invocation_failed" in line:
                minute = line["_aws"]["Timestamp"] // 60_000 * 60_000
                sums[minute] = sums.get(minute, 0) + line["invocation_failed"]
    assert sums == {BEGUN + 60_000: 0}


def test_printed_reports_without_end_neither_block_nor_count() -> None:
    """A model may print what looks like reports: each would be a failure until the true one comes."""
    printed = [report(2 + number, ms=0.5) for number in range(130)]
    end = event(140, "invocation_completed", span_id=SPAN)
    ledger = Ledger([START], *[[each] for each in printed], [end], [report(150, ms=150, status="success")])
    assert [result.rejects for result in ledger.results if result.rejects] == []
    assert ledger.failures() == []
    assert ledger.counted() == (0, 0)
    assert ledger.told() == 0
    again = Ledger([report(150, ms=150), *printed, START])
    assert [each["id"] for each in again.failures()] == [f"report-{150:056d}-{SPAN}"]


class Strict(FakeDynamoDB):
    """Does not even take what the writer would cut after a refusal."""

    def transact_write_items(self, **arguments: Any) -> Any:
        assert len(arguments["TransactItems"]) <= 100
        return super().transact_write_items(**arguments)


@pytest.mark.parametrize("start_first", [True, False])
def test_what_comes_beside_the_events_has_room_in_their_transaction(start_first: bool) -> None:
    """A handler may go by another name than its function: each failure counts for an agent of its own."""
    lines = []
    for number in range(60):
        request = f"request-{number}"
        start = event(number, "invocation_started", request_id=request, agent=f"name{number}")
        ended = report(1000 + number)
        pair = [start, ended._replace(message=ended.message.replace(REQUEST, request))]
        lines += pair if start_first else pair[::-1]
        told = {"from": f"a{number}", "to": "manager", "message_id": f"m{number}", "latency_ms": 1}
        lines.append(event(100 + number, "message_received", told, request_id=None))
    client = Strict()
    LedgerWriter(client, TABLES, shards=2).write(read_payload(payload(lines), "us-east-1"))
    found = LedgerReader(client, TABLES, shards=2)
    assert len(found.events_of_type("invocation_failed", NOW, NOW.replace(hour=23))) == 60
    assert len(found.last(1, NOW).flows) == 60
    agents = found.last(1, NOW).agents
    assert [agents[f"name{n}"].by_type["invocation_failed"] for n in range(60)] == [1] * 60


def test_what_was_taken_back_whole_is_not_shown() -> None:
    key = ("", "FLOW#a#b")
    assert rollups({key: {"messages_received": 0}}).flows == {}
    assert rollups({key: {"messages_received": 1}}).flows.keys() == {("a", "b")}


def test_a_report_that_comes_after_its_workflow_was_forgotten_counts_and_keeps_a_key() -> None:
    ledger = Ledger([START, CALL])
    Forget(ledger.client, TABLES).mark(WORKFLOW)
    LedgerWriter(ledger.client, TABLES, shards=2).write(read_payload(payload([report()]), "us-east-1"))
    assert ledger.counted() == (1, 0)
    assert ledger.failures() == []
    (item,) = (each for key, each in ledger.client.tables[TABLES.monitoring].items() if "#report-" in key[1])
    assert item.keys() == {"pk", "sk", "expires_at", "withdrawn"}


def test_children_of_what_was_killed_are_no_orphans() -> None:
    ledger = Ledger([START, CALL], [event(3, "issue_detected"), report()])
    spans = [
        span_of(event_of(item, "test"))
        for item in ledger.client.scan(TableName=TABLES.monitoring)["Items"]
        if "withdrawn" not in item
    ]
    told = [span for span in spans if span is not None]
    assert {span.parent_id for span in told} == {SPAN, PARENT}
    (killed,) = [span for span in told if span.span_id == SPAN]
    assert killed.error is not None
    assert killed.end_ns - killed.start_ns == 90 * 1_000_000
    assert killed.attributes["user.id"] == "u1"

"""A batch of stream records, sent to whoever receives it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentops_monitoring.export import backend
from agentops_monitoring.export.backend import DeliveryError, bounded, chunks
from agentops_monitoring.export.pipeline import Outcome, export
from agentops_monitoring.export.spans import Span
from agentops_monitoring.export.stream import Item
from tests.unit.export.factory import INVOCATION, item, record, workflow


class Receiver:
    """Confirms spans until told not to."""

    def __init__(self, fail_from: int | None = None) -> None:
        self.spans: list[Span] = []
        self.requests = 0
        self._fail_from = fail_from

    def deliver(self, spans: Sequence[Span], timeout_s: float) -> None:
        self.requests += 1
        if timeout_s <= 0 or (self._fail_from is not None and self.requests >= self._fail_from):
            raise DeliveryError("refused")
        self.spans.extend(spans)


def send(records: list[dict[str, object]], receiver: Receiver, seconds: float = 5) -> Outcome:
    return export(records, receiver, environment="test", deadline=time.monotonic() + seconds)


def test_workflow_is_one_tree() -> None:
    receiver = Receiver()
    outcome = send(workflow(), receiver)
    assert outcome == (6, 0, None, ())
    ids = {span.span_id for span in receiver.spans}
    assert len(ids) == 6
    assert [span.span_id for span in receiver.spans if span.parent_id is None] == [INVOCATION]
    assert all(span.parent_id in ids for span in receiver.spans if span.parent_id)
    assert len({span.trace_id for span in receiver.spans}) == 1


def test_redelivery_gives_the_same_spans() -> None:
    first, second = Receiver(), Receiver()
    send(workflow(), first)
    send(workflow(), second)
    assert first.spans == second.spans


def test_only_inserts_are_events() -> None:
    receiver = Receiver()
    records = [record(item("issue_detected", n), n, name) for n, name in enumerate(("MODIFY", "REMOVE"), 1)]
    assert send(records, receiver) == (0, 0, None, ())
    assert receiver.requests == 0


def test_broken_event_is_told_and_does_not_hold_up_the_stream() -> None:
    receiver = Receiver()
    broken = record({**item("issue_detected", 8), "span_id": "x"}, 8)
    outcome = send([broken, *workflow()], receiver)
    assert (outcome.exported, outcome.failed, outcome.retry_from) == (6, 1, None)
    assert "span_id" in outcome.problems[0]


def test_failure_repeats_from_the_first_that_was_not_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "MAX_SPANS", 2)
    receiver = Receiver(fail_from=2)
    outcome = send(workflow(), receiver)
    assert (outcome.exported, outcome.failed) == (2, 4)
    # Record 1 (a start) has no span, 2 and 3 were confirmed.
    assert outcome.retry_from == workflow()[3]["dynamodb"]["SequenceNumber"]
    assert receiver.requests == 2
    rest = Receiver()
    send(workflow()[3:], rest)
    assert len({span.span_id for span in receiver.spans + rest.spans}) == 6


def test_no_time_left_is_a_failure() -> None:
    outcome = send(workflow(), Receiver(), seconds=-1)
    assert (outcome.exported, outcome.failed) == (0, 6)
    assert outcome.retry_from == workflow()[1]["dynamodb"]["SequenceNumber"]


def test_what_cannot_be_completed_now_is_repeated() -> None:
    def unavailable(items: Sequence[Item]) -> Sequence[Item]:
        raise DeliveryError("table is busy")

    outcome = export(
        workflow(), Receiver(), environment="test", deadline=time.monotonic() + 5, complete=unavailable
    )
    assert outcome.retry_from == workflow()[0]["dynamodb"]["SequenceNumber"]
    assert outcome.problems == ("table is busy",)


@settings(deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=3_000_000), max_size=700))
def test_requests_cover_everything_in_order_within_limits(sizes: list[int]) -> None:
    parts = list(chunks(sizes))
    assert [index for part in parts for index in range(part.start, part.stop)] == list(range(len(sizes)))
    for part in parts:
        taken = sizes[part]
        assert 0 < len(taken) <= backend.MAX_SPANS
        assert len(taken) == 1 or sum(taken) <= backend.MAX_CHARACTERS


def test_a_hanging_call_is_given_up_on_time() -> None:
    began = time.monotonic()
    with pytest.raises(DeliveryError):
        bounded(lambda: time.sleep(5), 0.1)
    assert time.monotonic() - began < 1


def test_a_bounded_call_returns_and_raises_what_it_would() -> None:
    def broken() -> None:
        raise KeyError("x")

    assert bounded(lambda: 7, 1) == 7
    with pytest.raises(KeyError):
        bounded(broken, 1)

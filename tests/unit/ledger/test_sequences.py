"""Which events have not arrived: known to the number, told once, taken back when they come."""

from __future__ import annotations

import itertools
import json
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st

from agentops_monitoring.functions import analyze
from agentops_monitoring.ledger import intervals, sequences
from agentops_monitoring.ledger.gaps import GRACE, Change, Gaps
from agentops_monitoring.ledger.parse import read_payload
from agentops_monitoring.ledger.requests import LedgerBusy
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.fake_dynamodb import FakeDynamoDB
from tests.unit.ledger.recount import recount
from tests.unit.ledger.streams import LogEvent, World, payload
from tests.unit.ledger.test_writer import Faults, check, writer_of

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
NUMBERS = st.sets(st.integers(1, 60))


def as_intervals(numbers: set[int]) -> intervals.Intervals:
    found: intervals.Intervals = []
    for number in numbers:
        found = intervals.with_number(found, number)
    return found


def as_set(spans: Any) -> set[int]:
    return {number for first, last in spans for number in range(first, last + 1)}


@given(NUMBERS, NUMBERS)
def test_intervals_are_sets(left: set[int], right: set[int]) -> None:
    mine, yours = as_intervals(left), as_intervals(right)
    assert as_set(mine) == left
    assert all(first <= last for first, last in mine)
    assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(mine))
    assert {number for number in range(62) if intervals.has(mine, number)} == left
    assert as_set(intervals.gaps(mine)) == set(range(1, max(left, default=0) + 1)) - left
    assert as_set(intervals.minus(mine, yours)) == left - right
    assert as_set(intervals.both(mine, yours)) == left & right
    assert intervals.size(mine) == len(left)


def missing(lines: list[LogEvent]) -> dict[str, set[int]]:
    """Recount which numbers the lines lack, by process; an event counts when all its parts are here."""
    parts: dict[str, set[int]] = defaultdict(set)
    arrived: dict[str, set[int]] = defaultdict(set)
    for line in lines:
        if line.message.startswith("REPORT"):
            continue
        body = json.loads(line.message).get("agentops.event")
        if body is None:
            continue
        number, total = body.get("part", (1, 1))
        parts[body["id"]].add(number)
        if len(parts[body["id"]]) == total:
            arrived[body["id"].split("-")[0]].add(body["seq"])
    found = {nonce: set(range(1, max(some))) - some for nonce, some in arrived.items()}
    return {nonce: some for nonce, some in found.items() if some}


def known_missing(client: Any) -> dict[str, set[int]]:
    return {gap.nonce: as_set(gap.missing) for gap in Gaps(client, TABLES.ledger).all() if gap.missing}


def deliver(client: Any, batches: list[list[LogEvent]]) -> None:
    writer = writer_of(client)
    for batch in batches:
        for _ in range(1000):
            try:
                writer.write(read_payload(payload(batch), "us-east-1"))
            except (LedgerBusy, ClientError, ReadTimeoutError):
                continue
            break


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_is_missing_is_known_to_the_number(seed: int) -> None:
    dice = random.Random(seed)
    world = World(seed, streams=2)
    everything = world.events
    world.events = [each for each in everything if dice.random() < 0.9]
    client = FakeDynamoDB(Faults(seed, 0.1))
    deliver(client, world.deliveries())
    client.fault = lambda operation, when: None
    assert known_missing(client) == missing(world.events)
    # What a replay brings closes it, and counts as if it had never been away.
    client.fault = Faults(seed + 1, 0.1)
    world.events = everything
    deliver(client, world.deliveries())
    client.fault = lambda operation, when: None
    assert known_missing(client) == {}
    check(client, recount(everything))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), most=st.integers(1, 4))
def test_a_process_with_gaps_without_end_fits_into_its_items(seed: int, most: int) -> None:
    """What lies before its newest gaps is not looked for any more; it counts once nevertheless."""
    dice = random.Random(seed)
    world = World(seed, streams=2)
    everything = world.events
    world.events = [each for each in everything if dice.random() < 0.6]
    client = FakeDynamoDB(Faults(seed, 0.1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "MOST_SPANS", most)
        deliver(client, world.deliveries())
        client.fault = lambda operation, when: None
        truth, known = missing(world.events), known_missing(client)
        assert all(numbers <= truth[nonce] for nonce, numbers in known.items())
        assert all(len(gap.missing) <= most for gap in Gaps(client, TABLES.ledger).all())
        lost = sum(change.lost for change in looked(client, NOON, NOON + GRACE))
        assert lost == sum(map(len, known.values()))
        client.fault = Faults(seed + 1, 0.1)
        world.events = everything
        deliver(client, world.deliveries())
        client.fault = lambda operation, when: None
    check(client, recount(everything))
    found = sum(change.found for change in looked(client, NOON + 2 * GRACE))
    assert found <= lost, "what is out of sight has not been found"
    assert known_missing(client) == {}


def looked(client: Any, *times: datetime) -> list[Change]:
    gaps, changes = Gaps(client, TABLES.ledger), []
    for now in times:
        for change in list(gaps.look(now)):
            changes.append(change)
            gaps.keep(change)
    return changes


def test_what_is_out_of_sight_was_not_found() -> None:
    client = FakeDynamoDB()
    lines = simple(40)

    def bring(*numbers: int) -> None:
        wanted = {f'"seq": {number},' for number in numbers}
        deliver(client, [[each for each in lines if any(seq in each.message for seq in wanted)]])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "MOST_SPANS", 3)
        bring(1, 3, 5, 7, 9, 11)
        assert [change.lost for change in looked(client, NOON, NOON + GRACE)] == [0, 3]
        bring(13, 15)
        assert [change.found for change in looked(client, NOON + 2 * GRACE)] == [0]
        assert known_missing(client).popitem()[1] == {10, 12, 14}
        bring(2, 4, 10)
        assert [change.found for change in looked(client, NOON + 2 * GRACE)] == [1]


def simple(count: int) -> list[LogEvent]:
    """Return lines of a process outside any invocation."""
    world = World(7, streams=0)
    world.stream, world.filter_name = "s" * 40, "agentops|test|manager|arm64"
    world.agent, world.now = "manager", 1_795_334_400_000
    world._process()
    for number in range(count):
        world._event("issue_detected", {"n": number}, None)
    return world.events


def test_a_gap_is_told_once_and_so_is_its_end(dynamodb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    world = simple(9)
    gone, rest = world[2:5], world[:2] + world[5:]
    numbers = sum(len(some) for some in missing(rest).values())
    deliver(dynamodb, [rest])
    gaps = Gaps(dynamodb, TABLES.ledger)

    def told(after: timedelta) -> tuple[float, list[dict[str, Any]]]:
        analyze.tell_lost(gaps, "test", NOON + after)
        lines = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
        (lost,) = [line["LostEvents"] for line in lines if "LostEvents" in line]
        return lost, [line for line in lines if "LostEvents" not in line]

    five = timedelta(minutes=5)
    assert [told(times * five) for times in range(3)] == [(0, [])] * 3, "it may still come"
    lost, (about,) = told(GRACE)
    assert (lost, about["lost"], about["agent"], about["log_stream"]) == (
        numbers, numbers, "manager", world[0].stream,
    )  # fmt: skip
    assert told(GRACE + five) == (0, [])
    deliver(dynamodb, [gone])
    lost, (about,) = told(GRACE + 2 * five)
    assert (lost, about["lost"], about["found"]) == (0, 0, numbers)
    assert told(GRACE + 3 * five) == (0, [])


def test_a_line_that_comes_late_but_in_time_is_not_told(dynamodb: Any) -> None:
    lines = simple(10)
    gaps = Gaps(dynamodb, TABLES.ledger)

    def lost(after: timedelta) -> int:
        changes = list(gaps.look(NOON + after))
        for each in changes:
            gaps.keep(each)
        return sum(each.lost for each in changes)

    deliver(dynamodb, [lines[:2], lines[4:6]])
    assert lost(timedelta()) == 0
    # It came, and another gap of the same process is younger.
    deliver(dynamodb, [lines[2:4], lines[8:]])
    assert lost(GRACE) == 0
    assert lost(2 * GRACE) == sum(len(some) for some in missing(lines[:6] + lines[8:]).values())


def test_a_look_that_is_not_kept_is_repeated(dynamodb: Any) -> None:
    deliver(dynamodb, [simple(9)[3:]])
    gaps = Gaps(dynamodb, TABLES.ledger)
    for change in gaps.look(NOON):
        gaps.keep(change)
    first = [each.lost for each in gaps.look(NOON + GRACE)]
    assert first == [each.lost for each in gaps.look(NOON + GRACE)]
    assert sum(first) > 0


def test_the_copy_of_a_kept_answer_is_no_gap() -> None:
    """It is dropped, for it counts once whoever fetches it; but it has arrived."""
    world = World(7, streams=0)
    world.stream, world.filter_name, world.agent, world.now = (
        "s" * 40,
        "agentops|test|m|arm64",
        "m",
        1_795_334_400_000,
    )
    world._process()
    answer = {
        "gen_ai.request.model": "claude-3-opus", "gen_ai.response.id": "msg_1", "source": "auto",
        "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 1,
    }  # fmt: skip
    for _ in range(3):
        world._event("llm_usage", answer, None)
    world._event("issue_detected", {}, None)
    client = FakeDynamoDB()
    result = writer_of(client).write(read_payload(payload(world.events), "us-east-1"))
    assert (result.events, result.duplicates) == (2, 2)
    assert known_missing(client) == {}
    again = writer_of(client).write(read_payload(payload(world.events), "us-east-1"))
    assert (again.events, again.duplicates) == (0, 4)


def test_known_events_take_no_transaction() -> None:
    lines, client = simple(150), FakeDynamoDB()
    deliver(client, [lines])
    before = dict(client.calls)
    deliver(client, [lines])
    made = {name: count - before.get(name, 0) for name, count in client.calls.items()}
    assert {name: count for name, count in made.items() if count} == {"BatchGetItem": 1}

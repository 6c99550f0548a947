"""What agents and their models print beside good lines: the good ones equal the recount, the rest is kept."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentops_monitoring.ledger.parse import read_payload
from agentops_monitoring.ledger.writer import LedgerWriter
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.fake_dynamodb import FakeDynamoDB
from tests.unit.ledger.recount import recount
from tests.unit.ledger.streams import LogEvent, World, payload, rfc3339
from tests.unit.ledger.test_writer import check, scan, write_all, writer_of

DAY_MS = 86_400_000


def clocked(world: World, choose: Callable[[LogEvent], int]) -> dict[str, LogEvent]:
    """Return the lines by id, with times of a choice for their events, the same in all parts of one."""
    chosen: dict[str, str] = {}
    lines = {}
    for logged in world.events:
        lines[logged.id] = logged
        if '"agentops.event"' in logged.message:
            line = json.loads(logged.message)
            body = line["agentops.event"]
            body["at"] = chosen.setdefault(body["id"], rfc3339(choose(logged)))
            lines[logged.id] = logged._replace(message=json.dumps(line))
    return lines


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_clock_that_nobody_can_believe_counts_when_it_was_logged(seed: int) -> None:
    """From the far past and future; however it is delivered again, in the same hour, and once."""
    dice, world = random.Random(seed), World(seed)
    true = clocked(world, lambda logged: logged.timestamp)
    wrong = (0, 915_148_800_000, 4_070_908_800_000, None)
    told = clocked(
        world,
        lambda logged: (
            logged.timestamp
            if dice.random() < 0.7
            else (dice.choice(wrong) or logged.timestamp + DAY_MS + 60_000)
        ),
    )
    client = FakeDynamoDB()
    expected = recount(true.values())
    written = 0
    for batch in world.deliveries():
        result = writer_of(client).write(
            read_payload(payload([told[each.id] for each in batch]), "us-east-1")
        )
        assert not result.rejects
        written += result.events
    assert written == len(expected.events)
    check(client, expected)
    said = {
        item["sk"]["S"].split("#")[1]: item for item in scan(client, TABLES.monitoring) if "problems" in item
    }
    lines = [json.loads(each.message) for each in told.values() if "agentops.event" in each.message]
    for body in (line["agentops.event"] for line in lines):
        true_at = expected.events[body["id"]]["at"]
        if body["at"] != true_at:
            assert body["at"] in said[body["id"]]["problems"]["S"]
            assert (said[body["id"]]["at"]["S"], said[body["id"]]["sk"]["S"][:24]) == (true_at, body["at"])
        else:
            assert body["id"] not in said


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_clock_that_runs_backwards_within_a_day_is_taken_as_it_is(seed: int) -> None:
    dice = random.Random(seed)
    world = World(seed, streams=2)
    lines = clocked(world, lambda logged: logged.timestamp - dice.choice((0, 0, 1, 60_000, DAY_MS)))
    client = FakeDynamoDB()
    write_all(writer_of(client), [[lines[each.id] for each in batch] for batch in world.deliveries()])
    check(client, recount(lines.values()))


@pytest.mark.parametrize(
    ("days", "believed"), [(-60, True), (0, True), (0.9, True), (1.1, False), (-400, False), (30_000, False)]
)
def test_without_a_log_a_line_may_have_waited_in_a_file(days: float, believed: bool) -> None:
    """For as long as the ledger keeps events; but none comes from the future."""
    now_ms = time.time_ns() // 1_000_000
    world = World(5, streams=1)
    lines = clocked(world, lambda _: now_ms + int(days * DAY_MS))
    line = next(each.message for each in lines.values() if "invocation_started" in each.message)
    client = FakeDynamoDB()
    for _ in range(2):
        writer_of(client).write_lines([line], "laptop")
    (item,) = scan(client, TABLES.monitoring)
    own = rfc3339(now_ms + int(days * DAY_MS))
    assert item["sk"]["S"].startswith(own)
    assert (item["at"]["S"] == own, "problems" in item) == (believed, not believed)
    assert believed or rfc3339(now_ms) <= item["at"]["S"] <= rfc3339(now_ms + 60_000)


@pytest.mark.parametrize("at", ["2026-W48-1T08:00:00.000Z", "2026-11-22T24:00:00.000Z"])
def test_a_time_in_another_notation_is_refused(at: str) -> None:
    """ISO 8601 has weeks, and an hour 24: such a bucket would be nobody's, and hold up the fold for ever."""
    world = World(6, streams=1)
    line = json.loads(next(each.message for each in world.events if "invocation_started" in each.message))
    line["agentops.event"]["at"] = at
    result = writer_of(FakeDynamoDB()).write_lines([json.dumps(line)], "laptop")
    assert result.events == 0
    assert [at in reject.reason for reject in result.rejects] == [True]


def torn(dice: random.Random, text: str) -> str:
    return text[: dice.randrange(1, len(text))]


def cut_at_the_beginning(dice: random.Random, text: str) -> str:
    return text[dice.randrange(1, len(text)) :]


def forged(dice: random.Random, text: str) -> str:
    """What a model repeats of a line that it has seen, with another id."""
    line = json.loads(text)
    body = line["agentops.event"]
    nonce = f"{dice.getrandbits(96):024x}"
    line["agentops.event"] = {**body, "id": f"{nonce}-{body['seq']}"}
    return json.dumps(line)


def foreign(dice: random.Random, _text: str) -> str:
    return dice.choice(
        (
            '{"level":"INFO","message":"hello"}', "[]", "null", "{", "\x00\ud800", "START RequestId: x",
            '{"agentops.event": 7}', '{"agentops.event": {"v": 1}}', '{"type":"platform.report"}',
            '{"type":"platform.report","record":{"metrics":[]}}', "agentops.event",
            "REPORT RequestId: x\tDuration: NaN ms",
            '{"agentops.event":' + "[" * 100_000,
        )
    )  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), spoil=st.sampled_from([torn, cut_at_the_beginning, forged, foreign]))
def test_what_is_none_of_ours_changes_nothing(seed: int, spoil: Callable[[random.Random, str], str]) -> None:
    dice = random.Random(f"other than the world's {seed}")
    world = World(seed, streams=2)
    lines = [each for each in world.events if '"agentops.event"' in each.message]
    bad: dict[str, LogEvent] = {}
    client = FakeDynamoDB()
    rejected: Counter[str] = Counter()
    for number, batch in enumerate(world.deliveries()):
        like = dice.choice(lines)
        text = spoil(dice, like.message)
        junk = batch[0]._replace(id=f"junk{number}", message=text)
        bad[junk.id] = junk
        mixed = [*batch, junk]
        dice.shuffle(mixed)
        result = writer_of(client).write(read_payload(payload(mixed), "us-east-1"))
        rejected.update(each.source.log_event_id for each in result.rejects)
        assert all(each.source.message == bad[each.source.log_event_id].message for each in result.rejects)
        assert all(each.reason for each in result.rejects)
    check(client, recount(world.events))
    meant = {
        each.id
        for each in bad.values()
        if any(term in each.message for term in ("agentops.event", "platform.report", "REPORT RequestId"))
    }
    assert set(rejected) == meant, "what is meant for the ledger is kept, all else is not ours"


@pytest.mark.slow
def test_ten_thousand_events_in_one_batch(full_size: bool) -> None:
    """Of one process, in one delivery; and then the same delivery again."""
    world = World(17, streams=1, invocations=2_600 if full_size else 130)
    client = FakeDynamoDB()
    expected = recount(world.events)
    assert not full_size or len(expected.events) >= 10_000
    first = writer_of(client).write(read_payload(payload(world.events), "us-east-1"))
    assert first.events == len(expected.events)
    check(client, expected)
    again = writer_of(client).write(read_payload(payload(world.events), "us-east-1"))
    assert (again.events, again.reports) == (0, 0)
    assert again.duplicates == first.events + first.reports
    check(client, expected)
    # The number of each event that is booked tells of those that come again: nothing is tried for them.
    assert again.requests <= 10 + first.requests / 2


def test_a_busy_agent_is_no_hot_key() -> None:
    """Its streams spread over the shards: no partition of the ledger takes much more than its share."""
    shards, streams = 8, 64
    client = FakeDynamoDB()
    writes: Counter[str] = Counter()
    real = client.transact_write_items

    def counting(**arguments: Any) -> Any:
        for action in arguments["TransactItems"]:
            ((_, body),) = action.items()
            writes[(body.get("Item") or body["Key"])["pk"]["S"]] += 1
        return real(**arguments)

    client.transact_write_items = counting  # type: ignore[method-assign]
    for seed in range(streams):
        world = World(seed, streams=1, invocations=2)
        LedgerWriter(client, TABLES, shards=shards).write(read_payload(payload(world.events), "us-east-1"))
    hours = Counter({pk: count for pk, count in writes.items() if pk.startswith("H#")})
    parts = {pk.rpartition("#")[2] for pk in hours}
    assert parts == {str(shard) for shard in range(shards)}
    by_shard = Counter({part: sum(n for pk, n in hours.items() if pk.endswith(f"#{part}")) for part in parts})
    assert max(by_shard.values()) <= 2 * hours.total() / shards

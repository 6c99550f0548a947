"""docs/scale.md: what it says is what the function takes, and what that costs by another way of adding up."""

from __future__ import annotations

import math

import pytest

from agentops_monitoring.ledger import schema
from benchmarks import meter, scale


def test_the_page_is_made_of_what_was_counted() -> None:
    text = scale.PAGE.read_text(encoding="utf-8")
    assert scale.BEGIN + scale.page() + scale.END in text


def test_the_function_takes_what_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    found, stated = scale.count(1, 8, rounds=0), scale.COUNTED[1]
    assert found.events == stated.events
    for name in scale.Load._fields:
        # CPU is another machine's, and printed lines grow with the catalogue.
        if name not in ("cpu_us", "printed_bytes"):
            assert getattr(found, name) == pytest.approx(getattr(stated, name), rel=0.2), name


def test_what_is_assumed_of_the_plane_is_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTOPS_LEDGER_SHARDS", raising=False)
    monkeypatch.delenv("AGENTOPS_RAW_TTL_DAYS", raising=False)
    assert schema.shards() == scale.LEDGER_SHARDS
    assert schema.raw_ttl_s() == scale.RAW_DAYS * 86_400


def test_the_prices_by_another_way_of_adding_up() -> None:
    load = scale.Load(10, 1, 974, 500, 0, 0.2, 2, 1, 1, 4, 3, 0.1, 0.4, 1000, 400)
    direct, kinesis, aggregator = scale.ways(load, 1_000_000)
    events = 30e6

    # 8 units at $0.625 and 0.4 at $0.125 a million; 1 kB a line at $0.50 a GB, a month's stored compressed.
    assert direct.usd["tables"] == pytest.approx(30 * (8 * 0.625 + 0.4 * 0.125))
    assert direct.usd["logs"] == pytest.approx(
        events * 1000 * 0.5 / 1e9 + events * 1000 * 500 / 974 * 0.03 / 1e9
    )
    assert direct.usd["storage"] == pytest.approx(90e6 * 1000 * 0.45 / 1e9)
    # 2 ms, two requests of 10 ms, and 4 ms of CPU at 512 of 1,769 MB.
    seconds = 0.002 + 0.02 + 0.004 * 1769 / 512
    assert direct.usd["ingest"] == pytest.approx(3e6 * (seconds * 0.5 * 0.0000133334 + 0.2e-6))
    assert kinesis.usd["tables"] == direct.usd["tables"]
    assert kinesis.usd["stream"] == pytest.approx(0.015 * 720 + 3 * 0.014)
    assert kinesis.usd["ingest"] < direct.usd["ingest"]
    assert aggregator.usd["tables"] == pytest.approx(30 * ((1 + 1 + 1 + 0.04) * 0.625 + 0.4 * 0.125))
    assert aggregator.usd["ingest"] == pytest.approx(2 * kinesis.usd["ingest"])


def test_a_stream_has_batches_for_all_that_is_under_way() -> None:
    for load in scale.COUNTED.values():
        for a_day in (*scale.SCALES, 10**10):
            _, kinesis, _ = scale.ways(load, a_day)
            batches = kinesis.needs["stream shards"] * kinesis.needs["batches of a shard at once"]
            assert batches >= kinesis.needs["functions at once"]
            assert kinesis.needs["batches of a shard at once"] <= scale.PARALLEL_BATCHES


def test_logs_get_cheaper_by_the_tier() -> None:
    # $5,000 for the first 10 TB, $5,000 for the next 20, $2,000 for 20 more, $500 for the last 10.
    assert scale._log_usd(60e12) == pytest.approx(12_500)
    assert scale._log_usd(1e12) == pytest.approx(500)


def test_more_events_need_more_of_everything_and_reach_the_limits_that_are_listed() -> None:
    load = scale.COUNTED[1]
    before: dict[str, float] = {}
    for a_day in scale.SCALES:
        direct = next(iter(scale.ways(load, a_day)))
        assert all(direct.needs[name] >= each for name, each in before.items())
        before = dict(direct.needs)
    limits = scale.ends(load)
    functions = next(at for what, at in limits.items() if "functions" in what)
    assert next(iter(scale.ways(load, functions))).needs["functions at once"] == pytest.approx(
        scale.CONCURRENCY
    )
    first = min(limits.values())
    assert next(iter(scale.ways(load, 0.9 * first))).needs["ledger shards"] <= scale.LEDGER_SHARDS
    assert next(iter(scale.ways(load, 1.5 * first))).needs["ledger shards"] > scale.LEDGER_SHARDS


def test_units_are_those_of_the_items() -> None:
    tables = meter.Meter()
    item = {
        "pk": {"S": "WF#w"},
        "sk": {"S": "1"},
        "data": {"S": "x" * 1500},
        "gsi1pk": {"S": "a"},
        "n": {"N": "-12.5"},
    }
    size = meter.size(item)
    assert size == (2 + 4) + (2 + 1) + (4 + 1500) + (6 + 1) + (1 + 3)
    put = {"Put": {"TableName": "events", "Item": item, "ConditionExpression": "attribute_not_exists(pk)"}}
    add = {
        "Update": {
            "TableName": "ledger", "Key": {"pk": {"S": "H#2026-11-22T08#0"}, "sk": {"S": "TOTAL"}},
            "UpdateExpression": "ADD #a :a", "ExpressionAttributeNames": {"#a": "events"},
            "ExpressionAttributeValues": {":a": {"N": "1"}},
        }
    }  # fmt: skip
    tables.transact_write_items(TransactItems=[put, add], ClientRequestToken="t")
    tables.batch_get_item(RequestItems={"ledger": {"Keys": [{"pk": {"S": "INV#1"}, "sk": {"S": "STATE"}}]}})

    assert tables.units == meter.Units(
        calls=2,
        raw=4,
        index=2,
        hottest=2,
        counters=2,
        busiest=2,
        reads=1,
        stored=2 * (size + meter.ITEM_OVERHEAD),
    )
    assert math.isclose(tables.units.minus(meter.Units(raw=1)).raw, 3)

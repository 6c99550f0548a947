"""What the plane costs a month, and where it ends, at 10⁴, 10⁷ and 10⁹ events a day: counted, then priced.

`PYTHONPATH=runtime python -m benchmarks.scale` runs the load through the ingest function and prints what it
counts, beside what docs/scale.md rests on. With `--write` the page's tables are made anew, of the counts in
`COUNTED` and not of the machine that runs this; a test holds both against the function.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.ingest import Endpoint, ours
from benchmarks.meter import metered
from benchmarks.workload import EVENTS_AN_INVOCATION, Delivery, deliveries

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scale.md"
BEGIN, END = "<!-- made by `python -m benchmarks.scale --write` -->\n", "<!-- until here -->\n"
SCALES = (10**4, 10**7, 10**9)
"""Events a day."""
DAYS, _DAY_S = 30, 86_400

# us-east-1, USD, list prices without free tiers and discounts, as of 2025.
# https://aws.amazon.com/cloudwatch/pricing/ (Lambda's logs): up to so many TB a month, a GB costs so much.
LOG_GB = ((10, 0.50), (30, 0.25), (50, 0.10), (math.inf, 0.05))
LOG_STORED_GB, LOG_DAYS = 0.03, 30
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
LOG_OVERHEAD = 26  # bytes, of each log event
# https://aws.amazon.com/dynamodb/pricing/on-demand/: units; a month of a GB, and of point-in-time recovery
WRITE, READ, STORED_GB = 0.625e-6, 0.125e-6, 0.25 + 0.20
# https://aws.amazon.com/lambda/pricing/, arm64
GB_SECOND, REQUEST = 0.0000133334, 0.2e-6
# https://aws.amazon.com/kinesis/data-streams/pricing/
SHARD_HOUR, PAYLOAD_UNIT, PAYLOAD_BYTES = 0.015, 0.014e-6, 25 * 1024

# https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html: one vCPU at 1,769 MB
MEMORY_MB, VCPU_MB = 512, 1769
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html, adjustable
CONCURRENCY = 1000
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html
PARTITION_WRITES = 1000
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html, adjustable
TABLE_WRITES = 40_000
# https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html
SHARD_BYTES, SHARD_RECORDS = 1_000_000, 1000

# https://docs.aws.amazon.com/lambda/latest/api/API_CreateEventSourceMapping.html, ParallelizationFactor
PARALLEL_BATCHES = 10

# What is assumed, for only an account could tell.
CALL_S = 0.010
"""A request to DynamoDB and back, that of a transaction included."""
START_S = 0.002
"""What Lambda bills of an invocation beside the handler's own work."""
OVERLAP = 0.2
"""Share of transactions that may meet another one on the same counters; each that does is tried again."""

RAW_DAYS = 90
"""How long events are kept: `AGENTOPS_RAW_TTL_DAYS`."""
LEDGER_SHARDS = 4
"""`AGENTOPS_LEDGER_SHARDS` when nothing is set."""
RECORDS_A_BATCH, WINDOW_S = 100, 2.0
"""Of a Kinesis stream: at most so many, gathered for so long (constructs' `ingest_stream`)."""
HEADROOM = 1.5
"""Of a Kinesis stream's shards, over the mean."""
AGGREGATED = 1000
"""Events whose counters an aggregator would write at once."""


class Load(NamedTuple):
    """What an event takes in deliveries of one size."""

    events: int
    """Of a delivery; all that follows is for one event."""
    lines: float
    log_bytes: float
    packed_bytes: float
    printed_bytes: float
    calls: float
    raw: float
    indexes: float
    states: float
    counters: float
    busiest: float
    hottest: float
    reads: float
    stored_bytes: float
    cpu_us: float


COUNTED: Mapping[int, Load] = {
    1: Load(10, 1.1, 1053, 221, 342, 0.2, 2.4, 2.4, 1.14, 2.19, 1.39, 0.2, 0.2, 2781, 290),
    100: Load(1000, 1.1, 1058, 93.3, 4.3, 0.02, 2.4, 2.4, 1.08, 0.466, 0.322, 0.2, 0.101, 2793, 190),
}
"""By invocations of an agent in a delivery."""


def count(invocations: int, streams: int, rounds: int = 3) -> Load:
    """Run deliveries of so many invocations each through the function; the later half is counted.

    CPU is that of the best of so many rounds, and not known without any.
    """
    batches = deliveries(2 * streams, invocations)
    units = list(metered(batches))
    used, some = units[-1].minus(units[streams - 1]), batches[streams:]
    events = sum(each.events for each in some)
    lines = [line["message"] for each in some for line in each.payload["logEvents"]]
    sums = (
        len(lines), sum(len(each.encode()) for each in lines),
        sum(len(each.event["awslogs"]["data"]) * 3 / 4 for each in some),
        used.printed, used.calls, used.raw, used.index, used.states, used.counters, used.busiest,
        used.hottest, used.reads, used.stored, _cpu_s(some, rounds) * 1e6,
    )  # fmt: skip
    return Load(invocations * EVENTS_AN_INVOCATION, *(each / events for each in sums))


def _cpu_s(batches: Sequence[Delivery], rounds: int) -> float:
    if not rounds:
        return math.nan
    Endpoint().attach()
    write, ready, best = ours(), [each.event for each in batches], math.inf
    with contextlib.redirect_stdout(io.StringIO()):
        for _ in range(rounds):
            before = time.process_time()
            for event in ready:
                write(event)
            best = min(best, time.process_time() - before)
    return best


class Way(NamedTuple):
    """One way from the log groups to the tables, at one scale."""

    name: str
    usd: Mapping[str, float]
    """A month, by what is paid for."""
    needs: Mapping[str, float]

    @property
    def total(self) -> float:
        """USD a month."""
        return math.fsum(self.usd.values())


def ways(load: Load, a_day: float) -> Iterator[Way]:
    """Price the ways at so many events a day."""
    a_month, a_second = a_day * DAYS, a_day / _DAY_S
    arrivals = a_second / load.events
    work_s = load.events * (load.calls * CALL_S + load.cpu_us * 1e-6 * VCPU_MB / MEMORY_MB)
    log_bytes = load.log_bytes + load.lines * LOG_OVERHEAD + load.printed_bytes
    stored_log_bytes = log_bytes * load.packed_bytes / load.log_bytes
    common = {
        "logs": _log_usd(a_month * log_bytes) + a_day * LOG_DAYS * stored_log_bytes * LOG_STORED_GB / 1e9,
        "storage": a_day * RAW_DAYS * load.stored_bytes * STORED_GB / 1e9,
    }

    def tables(writes: float) -> float:
        return a_month * (writes * WRITE + load.reads * READ)

    def ingest(records: float) -> float:
        seconds = START_S / records + work_s
        return a_month / load.events * (seconds * MEMORY_MB / 1024 * GB_SECOND + REQUEST / records)

    # Contention: of requests to a shard's counters, so many are under way at any time.
    shards = max(a_second * load.busiest / PARTITION_WRITES, arrivals * CALL_S / OVERLAP, 1)
    writes = load.raw + load.indexes + load.states + load.counters
    direct = {
        "deliveries a second": arrivals,
        "functions at once": arrivals * (START_S + work_s),
        "ledger shards": math.ceil(shards),
        "writes a second": a_second * (load.states + load.counters),
    }
    yield Way("direct", {**common, "tables": tables(writes), "ingest": ingest(1)}, direct)

    bytes_a_second = a_second * load.packed_bytes
    busy = arrivals * work_s  # batches at work
    fill = max(arrivals / SHARD_RECORDS, bytes_a_second / SHARD_BYTES, busy / PARALLEL_BATCHES)
    stream_shards = math.ceil(fill * HEADROOM)
    units = math.ceil(load.events * load.packed_bytes / PAYLOAD_BYTES)
    stream = stream_shards * SHARD_HOUR * 24 * DAYS + a_month / load.events * units * PAYLOAD_UNIT
    records = min(RECORDS_A_BATCH, max(1, arrivals / stream_shards * WINDOW_S))
    kinesis = {
        **direct,
        "functions at once": arrivals * START_S / records + busy,
        "stream shards": stream_shards,
        "batches of a shard at once": math.ceil(busy * HEADROOM / stream_shards),
    }
    yield Way(
        "Kinesis",
        {**common, "tables": tables(writes), "ingest": ingest(records), "stream": stream},
        kinesis,
    )

    # Puts without a transaction take a unit a kilobyte; counters of many deliveries are written at once.
    share = min(1.0, load.events / AGGREGATED)
    fewer = load.raw / 2 + load.indexes + load.states + load.counters * share
    aggregator = {
        **kinesis,
        "functions at once": 2 * kinesis["functions at once"],
        "ledger shards": math.ceil(max(1, shards * share)),
        "writes a second": a_second * (load.states + load.counters * share),
    }
    yield Way(
        "aggregator",
        {**common, "tables": tables(fewer), "ingest": 2 * ingest(records), "stream": stream},
        aggregator,
    )


def _log_usd(size: float) -> float:
    usd = before = 0.0
    for tb, price in LOG_GB:
        usd += max(0.0, min(size, tb * 1e12) - before) / 1e9 * price
        before = min(size, tb * 1e12)
    return usd


def ends(load: Load) -> dict[str, float]:
    """Return the events a day at which each limit is reached by the direct way, as it is deployed."""
    (way, *_) = ways(load, _DAY_S)  # one event a second
    a_second = {
        f"{OVERLAP:.0%} of transactions meet another": OVERLAP / CALL_S * LEDGER_SHARDS * load.events,
        f"{PARTITION_WRITES:,} writes/s of one key of an index": PARTITION_WRITES / load.hottest,
        f"{PARTITION_WRITES:,} writes/s of one key of the ledger": PARTITION_WRITES
        * LEDGER_SHARDS
        / load.busiest,
        f"{TABLE_WRITES:,} writes/s of the ledger's table": TABLE_WRITES / way.needs["writes a second"],
        f"{TABLE_WRITES:,} writes/s of the events' table": TABLE_WRITES / load.raw,
        f"{CONCURRENCY:,} functions at once": CONCURRENCY / way.needs["functions at once"],
    }
    return {what: _DAY_S * rate for what, rate in a_second.items()}


def page() -> str:
    """Return the tables of docs/scale.md."""
    small, full = COUNTED[1], COUNTED[max(COUNTED)]
    rows = [
        ("events in a delivery", "events", "{:,.0f}"),
        ("log, bytes", "log_bytes", "{:,.0f}"),
        ("payload, bytes, compressed", "packed_bytes", "{:,.0f}"),
        ("printed by ingest, bytes", "printed_bytes", "{:,.0f}"),
        ("requests to DynamoDB", "calls", "{:.3f}"),
        ("write units: events and decisions", "raw", "{:.2f}"),
        ("write units: their indexes", "indexes", "{:.2f}"),
        ("those of the index key that takes most", "hottest", "{:.2f}"),
        ("write units: invocations, workflows, messages, processes", "states", "{:.2f}"),
        ("write units: counters", "counters", "{:.2f}"),
        ("read units", "reads", "{:.2f}"),
        ("stored, bytes, with indexes", "stored_bytes", "{:,.0f}"),
        ("CPU, µs", "cpu_us", "{:,.0f}"),
    ]
    lines = ["| of one event | one invocation a delivery | a hundred |", "|---|---:|---:|"]
    lines += [
        f"| {name} | {form.format(getattr(small, key))} | {form.format(getattr(full, key))} |"
        for name, key, form in rows
    ]
    names = ["logs", "ingest", "stream", "tables", "storage"]
    lines += ["", "| events a day | way | " + " | ".join(names) + " | USD a month | USD a million events |"]
    lines += ["|---:|---|" + "---:|" * (len(names) + 2)]
    for a_day in SCALES:
        for way in ways(small, a_day):
            amounts = [_usd(way.usd[name]) if name in way.usd else "" for name in names]
            million = _usd(way.total / (a_day * DAYS) * 1e6)
            lines.append(
                f"| {_power(a_day)} | {way.name} | "
                + " | ".join(amounts)
                + f" | {_usd(way.total)} | {million} |"
            )
    needs = ["deliveries a second", "functions at once", "ledger shards", "writes a second"]
    needs += ["stream shards", "batches of a shard at once"]
    lines += ["", "| events a day | way | " + " | ".join(needs) + " |", "|---:|---|" + "---:|" * len(needs)]
    for a_day in SCALES:
        for way in ways(small, a_day):
            found = [_short(way.needs[name]) if name in way.needs else "" for name in needs]
            lines.append(f"| {_power(a_day)} | {way.name} | " + " | ".join(found) + " |")
    lines += [
        "",
        f"| with {LEDGER_SHARDS} ledger shards, the direct way reaches | at events a day |",
        "|---|---:|",
    ]
    lines += [f"| {what} | {at:.1e} |" for what, at in sorted(ends(small).items(), key=lambda each: each[1])]
    return "\n".join(lines) + "\n"


def _usd(amount: float) -> str:
    return f"{amount:,.2f}" if amount < 100 else f"{amount:,.0f}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def _power(value: int) -> str:
    return "10" + str(round(math.log10(value))).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def main() -> None:
    """Count, and print or write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the tables of docs/scale.md")
    options = parser.parse_args()
    if options.write:
        text = PAGE.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        PAGE.write_text(before + BEGIN + page() + END + rest.split(END)[1], encoding="utf-8")
        return
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    for invocations, stated in COUNTED.items():
        load = count(invocations, 40 if invocations == 1 else 4)
        print(f"{invocations}: Load(" + ", ".join(f"{value:.4g}" for value in load) + "),")
        for name, value in load._asdict().items():
            print(f"  {name:<14}{value:>12.4g}   the page says {getattr(stated, name):.4g}")


if __name__ == "__main__":
    main()

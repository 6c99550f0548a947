"""The results as tables that people like to read, and our targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks import ingest
from benchmarks.cases import EVENT, INVOCATION, LLM, OURS
from benchmarks.peers import GENAI_PRICES, POWERTOOLS

Results = Mapping[str, Any]


class Target(NamedTuple):
    """What we promise, and what was measured."""

    what: str
    limit: float
    measured: float
    unit: str
    at_least: bool = False
    """Whether the limit is the least, not the most."""

    @property
    def met(self) -> bool:
        """Whether the promise holds."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def targets(results: Results) -> list[Target]:
    """Return our targets with what was measured; those whose peer failed are left out."""
    jobs = {(each["job"], each["who"]): each for each in results["jobs"]}
    footprints = {each["who"]: each for each in results["footprints"]}
    ours = footprints.get(OURS, {})

    def us(job: str, who: str) -> float | None:
        found: float | None = jobs.get((job, who), {}).get("us")
        return found

    flush, lookup = us(EVENT, POWERTOOLS), us(LLM, GENAI_PRICES)
    wanted = (
        ("event: 1/7 of Powertools' flush of the same line", flush and flush / 7, us(EVENT, OURS), "µs"),
        ("LLM usage: 1/8 of genai-prices' lookup", lookup and lookup / 8, us(LLM, OURS), "µs"),
        ("the wrapper alone", 100, us(INVOCATION, f"{OURS}, no events"), "µs"),
        ("import", 15, ours.get("import_ms"), "ms"),
        ("memory of the import", 4, ours.get("import_mb"), "MB"),
        ("bytes in the bundle", 300, ours.get("bytes") and ours["bytes"] / 1000, "kB"),
        ("requests and sockets in an invocation", 0, _network(jobs.get((INVOCATION, OURS))), ""),
    )
    found = [
        Target(what, limit, measured, unit)
        for what, limit, measured, unit in wanted
        if limit is not None and measured is not None
    ]
    for each in results["ingest"]:
        if each["who"] == OURS and each.get("events_a_second") is not None:
            rate, calls = each["events_a_second"], each["calls_a_thousand"]
            found.append(Target("ingest: events/s of a core's CPU", ingest.EVENTS_A_SECOND, rate, "", True))
            found.append(Target("ingest: API calls per 1,000 events", ingest.CALLS_A_THOUSAND, calls, ""))
    return found


def _network(invocation: Mapping[str, Any] | None) -> float | None:
    if invocation is None or invocation.get("us") is None:
        return None
    return float(invocation["requests"] + invocation["sockets"])


def text(results: Results) -> str:
    """Render all tables."""
    return "\n".join(
        (
            *_jobs(results),
            *_footprints(results),
            *_ingest(results),
            *_targets(targets(results)),
            "",
            results["about"],
        )
    )


def _jobs(results: Results) -> Iterator[str]:
    previous = None
    ours: float | None = None
    for each in results["jobs"]:
        if each["job"] != previous:
            previous, ours = each["job"], each.get("us")
            yield f"\n{previous:<44}{'µs':>12}{'× ours':>9}{'requests':>10}"
        if each.get("us") is None:
            yield f"  {each['who']:<42}{'failed':>12}  {each['error']}"
            continue
        ratio = f"{each['us'] / ours:>8.1f}×" if ours else f"{'':>9}"
        yield f"  {each['who']:<42}{each['us']:>12,.2f}{ratio}{each['requests']:>10}  {each['note']}"


def _footprints(results: Results) -> Iterator[str]:
    yield f"\n{'to have it':<44}{'import ms':>12}{'MB':>9}{'bundle kB':>11}"
    for each in results["footprints"]:
        if each.get("import_ms") is None:
            yield f"  {each['who']:<42}{'failed':>12}  {each['error']}"
            continue
        size = "" if each["bytes"] is None else f"{each['bytes'] / 1000:,.0f}"
        yield f"  {each['who']:<42}{each['import_ms']:>12.1f}{each['import_mb']:>9.1f}{size:>11}"


def _ingest(results: Results) -> Iterator[str]:
    yield f"\n{'lines into the tables':<44}{'events/s':>12}{'':>9}{'calls/1000':>11}"
    for each in results["ingest"]:
        if each.get("events_a_second") is None:
            yield f"  {each['who']:<42}{'failed':>12}  {each['error']}"
            continue
        calls = f"{each['calls_a_thousand']:>20,.1f}"
        yield f"  {each['who']:<42}{each['events_a_second']:>12,.0f}{calls}  {each['note']}"


def _targets(found: list[Target]) -> Iterator[str]:
    yield f"\n{'our targets':<54}{'limit':>11}{'measured':>13}"
    for each in found:
        yield (
            f"  {each.what:<50}{'≥' if each.at_least else '≤'} {each.limit:>8.4g} {each.unit:<2}"
            f"{each.measured:>10.4g} {each.unit:<2}  {'met' if each.met else 'MISSED'}"
        )

"""An independent recount: the raw log lines, the model server and AgentOps against the tables and the ledger.

Nothing here shares code with the runtime but the price of a token: the lines are parsed again, the proof of
their origin is computed again, Lambda's bill is added up again. So a fault in the runtime's own reading
shows as a difference, to the last digit.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from agentops_monitoring.pricing import TokenUsage, llm_cost

# USD per GB-second and request: https://aws.amazon.com/lambda/pricing/, first tier, common regions (2025).
GB_SECOND_USD = {"x86_64": Decimal("0.0000166667"), "arm64": Decimal("0.0000133334")}
REQUEST_USD = Decimal("0.20") / 1_000_000
_TEXT_REPORT = re.compile(
    r"^REPORT RequestId: (\S+).*?Billed Duration: (\d+) ms\s+Memory Size: (\d+) MB(?:.*\sStatus: (\w+))?",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Source:
    """A log group that ingest subscribes to; the filter's name says whose it is and on which architecture."""

    group: str
    agent: str
    architecture: str


class Logged(NamedTuple):
    """One line of a log group."""

    stream: str
    id: str
    at_ms: int
    message: str


@dataclass(slots=True)
class Lines:
    """What the raw lines hold."""

    events: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    forged: int = 0
    unreadable: int = 0
    incomplete: int = 0
    compute_usd: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    reports: Counter[str] = field(default_factory=Counter)

    @property
    def traces(self) -> set[str]:
        """The trace of every workflow that left an event."""
        return {str(event["trace_id"]) for event in self.events.values() if event.get("trace_id")}


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison of two numbers that were found in different ways."""

    name: str
    expected: str
    actual: str
    ok: bool
    detail: str = ""

    def as_json(self) -> dict[str, Any]:
        """For summary.json."""
        return asdict(self)


def sources(logs: Any, environment: str) -> list[Source]:
    """Find the agents' log groups by their filters, named ``agentops|<env>|<agent>|<architecture>``."""
    found = []
    for page in logs.get_paginator("describe_log_groups").paginate():
        for group in page["logGroups"]:
            name = group["logGroupName"]
            filters = logs.describe_subscription_filters(logGroupName=name)["subscriptionFilters"]
            parted = [each["filterName"].split("|") for each in filters]
            found += [
                Source(name, p[2], p[3]) for p in parted if p[:2] == ["agentops", environment] and len(p) == 4
            ]
    return sorted(found, key=lambda source: (source.agent, source.group))


def messages(logs: Any, group: str) -> Iterator[Logged]:
    """Every line of a log group, each once, those of a stream in their order."""
    for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group):
        for one in page["events"]:
            yield Logged(one["logStreamName"], one["eventId"], one["timestamp"], one["message"])


def count_lines(source: Source, lines: Iterable[Logged], into: Lines) -> None:
    """Add one log group's lines to the count."""
    parts: dict[str, set[int]] = {}
    attempts: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for logged in lines:
        stream, text = logged.stream, logged.message.strip()
        report = _TEXT_REPORT.match(text)
        if report:
            _bill(source, int(report[2]), int(report[3]), into)
            _close(source, attempts.pop((stream, report[1]), {}), logged, report[1], report[4], into)
            continue
        if not text.startswith("{"):
            continue
        try:
            line = json.loads(text)
        except ValueError:
            into.unreadable += '"agentops.event"' in text
            continue
        if line.get("type") == "platform.report" and "record" in line:
            metrics, request_id = line["record"]["metrics"], line["record"]["requestId"]
            _bill(source, int(metrics["billedDurationMs"]), int(metrics["memorySizeMB"]), into)
            attempt = attempts.pop((stream, request_id), {})
            _close(source, attempt, logged, request_id, line["record"].get("status"), into)
        event = line.get("agentops.event")
        if not isinstance(event, dict):
            continue
        nonce = str(event["id"]).rpartition("-")[0]
        proof = blake2b(nonce.encode(), key=stream.encode()[-64:], digest_size=12).hexdigest()
        if event.get("proof") != proof:
            into.forged += 1
            continue
        if "part" in event:
            number, of = event["part"]
            seen = parts.setdefault(event["id"], set())
            seen.add(int(number))
            if len(seen) < int(of):
                into.events.setdefault(event["id"], event)
                continue
            parts[event["id"]] = set()
        into.events[event["id"]] = event
        if str(event["type"]).startswith("invocation_"):
            attempts[stream, str(event.get("request_id"))][event["type"]] = event
    for identity, seen in parts.items():
        if seen:
            into.incomplete += 1
            into.events.pop(identity, None)


def _bill(source: Source, billed_ms: int, memory_mb: int, into: Lines) -> None:
    with localcontext() as exact:
        exact.prec = 60
        gb_seconds = Decimal(billed_ms) / 1000 * Decimal(memory_mb) / 1024
        into.compute_usd[source.agent] += gb_seconds * GB_SECOND_USD[source.architecture] + REQUEST_USD
        into.reports[source.agent] += 1


def _close(
    source: Source,
    attempt: Mapping[str, Mapping[str, Any]],
    report: Logged,
    request_id: str,
    status: str | None,
    into: Lines,
) -> None:
    """Add the failure that an attempt did not live to write: Lambda ended it, as its report says.

    One that ended before it wrote its start has a workflow of its own, by its request.
    """
    if status in (None, "success") or attempt.keys() & {"invocation_completed", "invocation_failed"}:
        return
    own = {"agent": source.agent, **dict.fromkeys(("workflow_id", "trace_id"), request_id.replace("-", ""))}
    own["span_id"] = blake2b(report.id.encode(), digest_size=8).hexdigest()
    begun = attempt.get("invocation_started", own)
    into.events[f"report-{report.id}-{begun['span_id']}"] = {
        **begun,
        "type": "invocation_failed",
        "at": datetime.fromtimestamp(report.at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "data": {"status": status},
    }


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file; none when the file was never written."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def model_cost(calls: Iterable[Mapping[str, Any]], region: str) -> tuple[Decimal, int]:
    """USD of the model server's own record of its calls, and how many of them have no price."""
    total, unpriced = Decimal(0), 0
    for call in calls:
        usage = TokenUsage(
            input_tokens=int(call["input_tokens"]),
            output_tokens=int(call["output_tokens"]),
            cache_read_tokens=int(call.get("cache_read_tokens") or 0),
            cache_write_tokens=int(call.get("cache_write_tokens") or 0),
        )
        at = datetime.fromisoformat(call["at"]) if call.get("at") else None
        cost = llm_cost(str(call["model"]), usage, at=at, region=region)
        unpriced += cost is None
        total += cost or 0
    return total, unpriced


def table_keys(dynamodb: Any, table: str) -> Counter[str]:
    """Event ids of a table of events, from its sort keys ``<time>#<id>``, with how often each occurs."""
    asked = {"TableName": table, "ProjectionExpression": "pk, sk, withdrawn", "ConsistentRead": True}
    return Counter(
        item["sk"]["S"].split("#")[1]
        for page in dynamodb.get_paginator("scan").paginate(**asked)
        for item in page["Items"]
        if item["pk"]["S"].startswith("WF#") and "withdrawn" not in item
    )


def _difference(expected: set[str], actual: set[str]) -> str:
    missing, extra = sorted(expected - actual), sorted(actual - expected)
    said = [f"missing {', '.join(missing[:3])}"] if missing else []
    return "; ".join(said + ([f"unexpected {', '.join(extra[:3])}"] if extra else []))


def compare(
    lines: Lines,
    *,
    stored: Counter[str],
    decisions: Counter[str],
    ledger_llm_usd: Decimal,
    ledger_compute_usd: Decimal,
    calls: list[dict[str, Any]],
    spans: list[dict[str, Any]],
    region: str,
) -> list[Check]:
    """Hold what the lines, the model server and AgentOps say against what the tables and the ledger hold."""
    written, kept = set(lines.events), set(stored)
    decided = {key for key, event in lines.events.items() if event.get("type") == "decision_made"}
    llm_usd, unpriced = model_cost(calls, region)
    compute_usd = sum(lines.compute_usd.values(), Decimal(0))
    ids: dict[str, set[str]] = {}
    for span in spans:
        ids.setdefault(span["trace_id"], set()).add(span["span_id"])
    orphans = sum(
        1 for s in spans if s.get("parent_span_id") and s["parent_span_id"] not in ids[s["trace_id"]]
    )
    strange = {"forged": lines.forged, "unreadable": lines.unreadable, "incomplete": lines.incomplete}
    return [
        Check(
            "events written = events in agent-monitoring",
            str(len(written)),
            str(sum(stored.values())),
            written == kept and len(kept) == sum(stored.values()) and not any(strange.values()),
            "; ".join(
                [f"{n} {what}" for what, n in strange.items() if n] + [_difference(written, kept)]
            ).strip("; "),
        ),
        Check(
            "decisions written = decisions in agent-decisions",
            str(len(decided)),
            str(sum(decisions.values())),
            decided == set(decisions) and len(decided) == sum(decisions.values()),
            _difference(decided, set(decisions)),
        ),
        Check(
            "LLM cost in the ledger = price book × tokens in the model's log",
            f"{llm_usd.normalize():f}",
            f"{ledger_llm_usd.normalize():f}",
            llm_usd == ledger_llm_usd and not unpriced,
            f"{len(calls)} calls" + (f", {unpriced} without a price" if unpriced else ""),
        ),
        Check(
            "compute cost in the ledger = sum over the report lines",
            f"{compute_usd.normalize():f}",
            f"{ledger_compute_usd.normalize():f}",
            compute_usd == ledger_compute_usd,
            f"{sum(lines.reports.values())} report lines",
        ),
        Check(
            "workflows = traces that AgentOps received",
            str(len(lines.traces)),
            str(len(ids)),
            lines.traces == set(ids),
            _difference(lines.traces, set(ids)),
        ),
        Check("orphan spans in AgentOps", "0", str(orphans), orphans == 0, f"{len(spans)} spans"),
    ]

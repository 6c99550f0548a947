"""A recount of raw log lines that shares no code with the ledger.

Money is in fractions; nothing is rounded but the compute slices, which the ledger defines as rounded down at
10⁻¹⁵ USD.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from fractions import Fraction
from functools import cache
from hashlib import blake2b
from math import floor
from typing import Any, NamedTuple

from tests.unit.ledger.streams import CANONICAL, DOMAIN, PRICES, LogEvent, rfc3339

QUANTUM = 10**15
OWN = ("fix_deployed", "typo")
"""Types that are none of ours; the second is not even declared."""
ENDED = ("invocation_completed", "invocation_failed")


class Count(NamedTuple):
    """What the ledger must hold: everything by hour."""

    events: dict[str, dict[str, Any]]
    total: dict[str, dict[str, Fraction]]
    agents: dict[tuple[str, str], dict[str, Fraction]]
    models: dict[tuple[str, str], dict[str, Fraction]]
    flows: dict[tuple[str, str, str], dict[str, Fraction]]
    types: dict[tuple[str, str], list[Fraction]]
    """[events, cost]"""
    outcomes: dict[tuple[str, str, str], int]
    day_spend: dict[tuple[str, str], Fraction]
    workflow_spend: dict[str, dict[str, Fraction]]
    """By workflow: `llm_cost`, `compute_cost`, and their sum by agent, and by model."""
    failures: dict[str, dict[str, Any]]
    """Invocations that Lambda ended and that wrote no end: what their event must hold."""


def lambda_usd(billed: int, memory: int, architecture: str, more: list[str], kept_ready: bool) -> Fraction:
    """Reckon in us-east-1: per GB-second of memory and of storage beyond half a GB, and per request."""
    rates = {
        ("x86_64", False): "0.0000166667",
        ("x86_64", True): "0.0000097222",
        ("arm64", False): "0.0000133334",
        ("arm64", True): "0.0000077778",
    }
    storage = max([512, *(int(field[4:]) for field in more if field.startswith("tmp="))]) - 512
    rate = memory * Fraction(rates[architecture, kept_ready]) + storage * Fraction("0.0000000309")
    return Fraction(billed, 1024 * 1000) * rate + Fraction("0.0000002")


@cache
def bucket(ms: Fraction) -> int:
    """Return a duration's bucket in a sketch: the first whose limit 0.001·(51/49)^i is not below it."""
    found, limit = 0, Fraction(1, 1000)
    while limit < ms:
        found, limit = found + 1, limit * Fraction(51, 49)
    return found


def recount(log: Iterable[LogEvent]) -> Count:
    events: dict[str, dict[str, Any]] = {}
    parts: dict[str, dict[int, str]] = defaultdict(dict)
    custom: dict[str, bool] = {}
    invocations: dict[tuple[str, str], dict[str, list[Any]]] = defaultdict(lambda: {"e": [], "r": []})
    seen: set[str] = set()
    for logged in log:
        if logged.id in seen:
            continue
        seen.add(logged.id)
        if logged.message.startswith("REPORT"):
            fields = dict(each.split(": ", 1) for each in logged.message.strip().split("\t") if ": " in each)
            invocations[logged.stream, fields["REPORT RequestId"]]["r"].append(
                (
                    logged.timestamp,
                    logged.id,
                    Fraction(fields["Duration"].split()[0]),
                    int(fields["Billed Duration"].split()[0]),
                    int(fields["Memory Size"].split()[0]),
                    logged.filter_name,
                    fields.get("Status", "success"),
                    fields.get("Error Type"),
                    "Init Duration" in fields,
                )
            )
            continue
        line = json.loads(logged.message)
        if line.get("type") == "platform.report":
            record = line["record"]
            metrics = record["metrics"]
            invocations[logged.stream, record["requestId"]]["r"].append(
                (
                    logged.timestamp,
                    logged.id,
                    Fraction(str(metrics["durationMs"])),
                    metrics["billedDurationMs"],
                    metrics["memorySizeMB"],
                    logged.filter_name,
                    record["status"],
                    record.get("errorType"),
                    "initDurationMs" in metrics,
                )
            )
            continue
        body = line["agentops.event"]
        custom[body["id"]] = custom.get(body["id"], False) or "custom_event" in line
        if "part" in body:
            parts[body["id"]][body["part"][0]] = body["chunk"]
            if len(parts[body["id"]]) < body["part"][1]:
                continue
            body["data"] = json.loads("".join(text for _, text in sorted(parts[body["id"]].items())))
        body["stream"] = logged.stream
        events[body["id"]] = body

    def table() -> Any:
        return defaultdict(lambda: defaultdict(Fraction))

    count = Count(
        events,
        table(),
        table(),
        table(),
        table(),
        defaultdict(lambda: [Fraction(0), Fraction(0)]),
        defaultdict(int),
        defaultdict(Fraction),
        table(),
        {},
    )
    endings: dict[str, tuple[str, str, str]] = {}
    members: dict[str, set[str]] = defaultdict(set)

    def add(at: str, agent: str, name: str, value: Fraction | int) -> None:
        count.total[at[:13]][name] += value
        count.agents[at[:13], agent][name] += value

    def time(at: str, agent: str, name: str, letter: str, ms: Fraction, *more: Any) -> None:
        for target in (count.total[at[:13]], count.agents[at[:13], agent], *more):
            for counter, value in ((f"{name}_ms", ms), (f"{name}_n", 1), (f"q{letter}{bucket(ms)}", 1)):
                target[counter] += value

    first_receipts: dict[tuple[str, str], tuple[str, str]] = {}
    for body in events.values():
        if body["type"] == "message_received":
            receipt = body["agent"], body["data"].get("message_id", body["id"])
            this = body["at"], body["id"]
            first_receipts[receipt] = min(this, first_receipts.get(receipt, this))
    for body in events.values():
        kind, at, agent, data = body["type"], body["at"], body["agent"], body["data"]
        hour, metric = at[:13], "custom_event" if custom[body["id"]] else kind
        members[body["workflow_id"]].add(agent)
        add(at, agent, "events", 1)
        count.types[hour, metric][0] += 1
        count.agents[hour, agent][f"n.{'custom_event' if kind in OWN else kind}"] += 1
        if kind == "llm_usage":
            names = (
                "gen_ai.usage.input_tokens",
                "gen_ai.usage.output_tokens",
                "gen_ai.usage.cache_read.input_tokens",
                "gen_ai.usage.cache_creation.input_tokens",
                "cache_creation_1h.input_tokens",
            )
            tokens = [data.get(name, 0) for name in names]
            model = data["gen_ai.request.model"]
            prices = PRICES[model]
            values = dict(
                zip(
                    (
                        "input_tokens",
                        "output_tokens",
                        "cache_read_tokens",
                        "cache_write_tokens",
                        "cache_write_1h_tokens",
                    ),
                    tokens,
                    strict=True,
                )
            )
            values["llm_calls"] = 1
            body["usd"] = Fraction(0)
            if prices is None:
                values["unpriced"] = 1
            else:
                body["usd"] = (
                    sum((n * Fraction(p) for n, p in zip(tokens, prices, strict=True)), Fraction(0)) / 10**6
                )
                values["llm_cost"] = body["usd"]
                count.day_spend[at[:10], agent] += body["usd"]
                for name in ("llm_cost", f"a.{agent}", f"m.{CANONICAL[model]}"):
                    count.workflow_spend[body["workflow_id"]][name] += body["usd"]
            of_model = count.models[hour, CANONICAL.get(model, model)]
            for name, value in values.items():
                add(at, agent, name, value)
                of_model[name] += value
            time(at, agent, "llm", "l", Fraction(repr(data["duration_ms"])), of_model)
            if body["request_id"] is None:
                count.types[hour, "llm_usage"][1] += body["usd"]
        elif kind == "decision_made" and "confidence_score" in data:
            add(at, agent, "confidence_sum", Fraction(repr(data["confidence_score"])))
            add(at, agent, "confidence_n", 1)
        elif kind == "message_sent":
            add(at, agent, "messages_sent", 1)
            if "to" in data:
                count.flows[hour, data["from"], data["to"]]["messages_sent"] += 1
        elif kind == "message_received":
            message = data.get("message_id", body["id"])
            if (at, body["id"]) == first_receipts[agent, message]:
                pair = count.flows[hour, data["from"], data["to"]]
                for target in (count.total[hour], count.agents[hour, agent], pair):
                    target["messages_received"] += 1
                time(at, agent, "handoff", "m", Fraction(repr(data["latency_ms"])), pair)
                pair["messages_unaddressed"] += "addressed_to" in data and data["addressed_to"] is None
        elif kind in ENDED:
            time(at, agent, "handler", "h", Fraction(repr(data["duration_ms"])))
            if kind == "invocation_failed":
                add(at, agent, "errors", 1)
        elif kind.startswith("workflow_"):
            endings[body["workflow_id"]] = max(
                endings.get(body["workflow_id"], ("", "", "")), (at, body["id"], kind)
            )
        if body["request_id"] is not None:
            invocations[body["stream"], body["request_id"]]["e"].append(body)
    for workflow, (at, _, kind) in endings.items():
        name = kind.replace("workflow_", "workflows_")
        count.total[at[:13]][name] += 1
        for agent in members[workflow]:
            count.outcomes[at[:13], agent, name] += 1
    for (_, request), invocation in invocations.items():
        _count_invocation(count, invocation, add, time, request)
    return count


def _count_invocation(
    count: Count, invocation: dict[str, list[Any]], add: Any, time: Any, request: str
) -> None:
    first: dict[str, str] = {}
    for body in invocation["e"]:
        nonce = body["id"].split("-")[0]
        relevant = body["type"] in DOMAIN or body["type"] == "invocation_started" or body.get("usd")
        if relevant:
            first[nonce] = min(first.get(nonce, "~"), body["at"])
    ordered = [
        b
        for b in invocation["e"]
        if b["id"].split("-")[0] in first
        and (b["type"] in DOMAIN or b["type"] == "invocation_started" or b.get("usd"))
    ]
    ordered.sort(key=lambda b: (first[b["id"].split("-")[0]], b["id"].split("-")[0], b["seq"]))
    clock = 0
    for body in ordered:
        clock = max(clock, round(datetime.fromisoformat(body["at"]).timestamp() * 1000))
        body["clock"] = clock
    for index, body in enumerate(ordered):
        if body["type"] == "llm_usage":
            target = "overhead"
            for later in ordered[index + 1 :]:
                if later["type"] == "invocation_started":
                    break
                if later["type"] in DOMAIN:
                    target = later["type"]
                    break
            count.types[body["at"][:13], target][1] += body["usd"]
    genuine: list[Any] = []
    for report in sorted(invocation["r"], reverse=True):
        if not genuine or report[0] <= genuine[-1][0] - genuine[-1][2]:
            genuine.append(report)
    after = 0
    ends = {b["span_id"] for b in invocation["e"] if b["type"] in ENDED}
    starts = {b["span_id"] for b in invocation["e"] if b["type"] == "invocation_started"}
    ended_by_lambda: list[dict[str, Any]] = []
    for at_ms, id_, duration, billed, memory, filter_name, status, error, cold in genuine[::-1]:
        mine = [b for b in ordered if b["clock"] <= at_ms and (not after or after < b["clock"])]
        after = at_ms
        begun = [b for b in mine if b["type"] == "invocation_started"]
        _, _, agent, architecture, *more = filter_name.split("|")
        kept_ready = bool(begun) and begun[-1]["data"].get("initialization") == "provisioned-concurrency"
        usd = lambda_usd(billed, memory, architecture, more, kept_ready)
        at = rfc3339(at_ms)
        for name, value in (
            ("compute_cost", usd),
            ("invocations", 1),
            ("billed_ms", billed),
            ("duration_ms", duration),
            ("cold_starts", int(cold)),
            ("failed_runs", int(status != "success")),
            ("provisioned_runs", int(kept_ready)),
            ("unstarted_runs", int(not begun)),
        ):
            add(at, agent, name, value)
        count.day_spend[at[:10], agent] += usd
        if begun:
            for name in ("compute_cost", f"a.{agent}"):
                count.workflow_spend[begun[-1]["workflow_id"]][name] += usd
        if status != "success" and (begun[-1]["span_id"] not in ends if begun else not ends - starts):
            own = {"workflow_id": request, "agent": agent, "parent_id": None, "span_id": None}
            span = begun[-1]["span_id"] if begun else blake2b(id_.encode(), digest_size=8).hexdigest()
            ended_by_lambda.append(
                {name: (begun[-1] if begun else own)[name] for name in own}
                | {"id": f"report-{id_}-{span}", "at": at, "type": "invocation_failed", "request_id": request}
                | {"error": error or "Lambda.Timeout", "ms": duration}
            )
        rest = usd
        domain = [b for b in mine if b["type"] in DOMAIN]
        if domain:
            started = [Fraction(b["clock"]) for b in mine if b["type"] == "invocation_started"]
            begin = started[0] if started else min(at_ms - duration, Fraction(mine[0]["clock"]))
            end = max(begin + duration, Fraction(domain[-1]["clock"]))
            before = begin
            for body in domain:
                here = max(Fraction(body["clock"]), before)
                if end > begin:
                    part = Fraction(floor(usd * (here - before) / (end - begin) * QUANTUM), QUANTUM)
                    count.types[at[:13], body["type"]][1] += part
                    rest -= part
                before = here
        count.types[at[:13], "overhead"][1] += rest
    for body in ended_by_lambda[-8:]:
        count.failures[body["id"]] = body
        add(body["at"], body["agent"], "events", 1)
        add(body["at"], body["agent"], "errors", 1)
        time(body["at"], body["agent"], "handler", "h", body["ms"])
        count.types[body["at"][:13], "invocation_failed"][0] += 1
        count.agents[body["at"][:13], body["agent"]]["n.invocation_failed"] += 1

"""Random log streams of agents, and a recount of them that shares no code with the ledger.

The recount reads the raw lines only. Money is in fractions; nothing is rounded but the compute slices, which
the ledger defines as rounded down at 10⁻¹⁵ USD.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from fractions import Fraction
from hashlib import blake2b
from math import floor
from typing import Any, NamedTuple

DOMAIN = ("issue_detected", "code_generated", "test_passed", "test_failed", "decision_made", "fix_deployed")
# USD per million tokens: input, output, cache read, cache write (5 min), cache write (1 h).
PRICES = {
    "claude-3-opus": ("15", "75", "1.5", "18.75", "30"),
    "claude-haiku-4-5": ("1", "5", "0.1", "1.25", "2"),
    "no-such-model": None,
}
CANONICAL = {"claude-3-opus": "claude-3-opus-latest", "claude-haiku-4-5": "claude-haiku-4-5"}
QUANTUM = 10**15


class LogEvent(NamedTuple):
    stream: str
    filter_name: str
    id: str
    timestamp: int
    message: str


def proof(nonce: str, stream: str) -> str:
    return blake2b(nonce.encode(), key=stream.encode()[-64:], digest_size=12).hexdigest()


def rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class World:
    """Builds streams; `events` is everything that was ever logged."""

    def __init__(
        self, seed: int, *, streams: int = 3, invocations: int = 4, start_ms: int = 1_795_334_390_000
    ) -> None:
        self.random = random.Random(seed)
        self.events: list[LogEvent] = []
        self.counter = 0
        self.workflows = [f"{self.random.getrandbits(128):032x}" for _ in range(4)]
        for index in range(streams):
            agent = ("manager", "engineer", "qa", "a#b%c")[index % 4]
            architecture = self.random.choice(("arm64", "x86_64"))
            self._stream(agent, architecture, start_ms + self.random.randrange(8000), invocations)

    def _stream(self, agent: str, architecture: str, now: int, invocations: int) -> None:
        r = self.random
        self.stream = f"2026/11/22/{agent}[$LATEST]{r.getrandbits(128):032x}"
        self.filter_name = f"agentops|test|{agent}|{architecture}"
        self.agent, self.now = agent, now
        self._process()
        for _ in range(invocations):
            request = f"{r.getrandbits(128):032x}"
            for _ in range(r.choice((1, 1, 1, 2))):
                self._attempt(request)
                self.now += r.randrange(0, 3000)
            if r.random() < 0.1:
                self._process()
        if r.random() < 0.5:
            self._event("llm_usage", self._llm(), None)

    def _process(self) -> None:
        self.nonce, self.seq = f"{self.random.getrandbits(96):024x}", 0

    def _attempt(self, request: str) -> None:
        r = self.random
        workflow = r.choice(self.workflows)
        begun = self.now
        if r.random() < 0.95:
            self._event("invocation_started", {"cold_start": False}, request, workflow)
        for _ in range(r.randrange(0, 9)):
            self.now += r.randrange(0, 400)
            self._random_event(request, workflow)
        if r.random() < 0.1:
            forged = r.randrange(1, 5000)
            self._report(request, r.choice((self.now - begun, 0.5)), forged)
        self.now += r.randrange(0, 50)
        if r.random() < 0.8:
            self._event("invocation_completed", {"duration_ms": 12.345}, request, workflow)
        if r.random() < 0.9:
            self.now += 1
            self._report(request, self.now - begun + r.choice((0, 0.25, -0.5)), r.randrange(1, 9000))

    def _random_event(self, request: str, workflow: str) -> None:
        r = self.random
        kind = r.choice(
            (
                *DOMAIN,
                "llm_usage",
                "llm_usage",
                "llm_usage",
                "message_sent",
                "message_received",
                "typo",
                "span",
                "workflow_completed",
                "workflow_failed",
            )
        )
        data: Any = {"note": "ünï" * r.randrange(3)}
        if kind == "llm_usage":
            data = self._llm()
        elif kind == "decision_made":
            data = {
                "decision_id": f"d{r.random()}",
                "decision_type": r.choice(("a", "b")),
                "reasoning_chain": [{"thought": "x" * r.randrange(50)}],
                "inputs": {},
                "outputs": None,
            }
            if r.random() < 0.8:
                data["confidence_score"] = round(r.random(), r.randrange(1, 17))
        elif kind in ("message_sent", "message_received"):
            data = {
                "from": self.agent,
                "to": r.choice(("manager", "qa")),
                "message_type": "x",
                "message_id": f"m{r.random()}",
            }
            if kind == "message_received":
                data["latency_ms"] = round(r.random() * 1000, 3)
            elif r.random() < 0.2:
                del data["to"]
        self._event(kind, data, request, workflow)

    def _llm(self) -> dict[str, Any]:
        r = self.random
        data: dict[str, Any] = {
            "gen_ai.request.model": r.choice(list(PRICES)),
            "gen_ai.usage.input_tokens": r.randrange(0, 100_000),
            "gen_ai.usage.output_tokens": r.randrange(0, 5000),
            "duration_ms": r.randrange(1000),
        }
        if r.random() < 0.3:
            data |= {
                "gen_ai.usage.cache_read.input_tokens": r.randrange(5000),
                "gen_ai.usage.cache_creation.input_tokens": r.randrange(5000),
                "cache_creation_1h.input_tokens": r.randrange(50),
            }
        return data

    def _event(self, kind: str, data: Any, request: str | None, workflow: str = "f" * 32) -> None:
        self.seq += 1
        metric = kind if kind != "typo" else "custom_event"
        at = self.now - (3 if self.random.random() < 0.05 else 0)
        body = {
            "v": 1,
            "id": f"{self.nonce}-{self.seq}",
            "type": kind,
            "agent": self.agent,
            "env": "test",
            "at": rfc3339(at),
            "workflow_id": workflow,
            "trace_id": workflow,
            "span_id": f"{self.seq:016x}",
            "parent_id": None,
            "request_id": request,
            "seq": self.seq,
            "proof": proof(self.nonce, self.stream),
        }
        head: dict[str, Any] = {"timestamp": body["at"], "level": "INFO", "AgentName": self.agent}
        if kind != "span":
            head = {"_aws": {}, **head, metric: 1}
        if self.random.random() < 0.08:
            text = json.dumps(data)
            cuts = sorted(self.random.randrange(len(text) + 1) for _ in range(self.random.randrange(1, 4)))
            chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
            for number, chunk in enumerate(chunks, start=1):
                line = head if number == 1 else {"timestamp": body["at"]}
                self._log({**line, "agentops.event": {**body, "part": [number, len(chunks)], "chunk": chunk}})
        else:
            self._log({**head, "agentops.event": {**body, "data": data}})

    def _report(self, request: str, duration: float, billed: int) -> None:
        memory = self.random.choice((128, 512, 1769))
        if self.random.random() < 0.5:
            self._log(
                f"REPORT RequestId: {request}\tDuration: {duration:.2f} ms\tBilled Duration: {billed} ms\t"
                f"Memory Size: {memory} MB\tMax Memory Used: 70 MB\tInit Duration: 100.20 ms\t\n"
            )
        else:
            metrics = {
                "durationMs": duration,
                "billedDurationMs": billed,
                "memorySizeMB": memory,
                "maxMemoryUsedMB": 9,
            }
            record = {"requestId": request, "status": "success", "metrics": metrics}
            self._log({"time": rfc3339(self.now), "type": "platform.report", "record": record})

    def _log(self, line: Any) -> None:
        self.counter += 1
        text = line if isinstance(line, str) else json.dumps(line)
        self.events.append(LogEvent(self.stream, self.filter_name, f"{self.counter:056d}", self.now, text))

    def deliveries(self, *, redelivered: float = 0.2, reorder: bool = True) -> list[list[LogEvent]]:
        """Cut the streams into batches, deliver some events again in others, and mix the order."""
        r = self.random
        batches: list[list[LogEvent]] = []
        by_stream: dict[str, list[LogEvent]] = defaultdict(list)
        for event in self.events:
            by_stream[event.stream].append(event)
        for events in by_stream.values():
            events = [*events, *(each for each in events if r.random() < redelivered)]
            if reorder:
                r.shuffle(events)
            while events:
                size = r.choice((1, 3, 10, 200))
                batches.append(events[:size])
                events = events[size:]
        if reorder:
            r.shuffle(batches)
        return batches


def payload(batch: list[LogEvent]) -> dict[str, Any]:
    return {
        "messageType": "DATA_MESSAGE", "owner": "123456789012", "logGroup": "/aws/lambda/x",
        "logStream": batch[0].stream, "subscriptionFilters": [batch[0].filter_name],
        "logEvents": [{"id": e.id, "timestamp": e.timestamp, "message": e.message} for e in batch],
    }  # fmt: skip


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


def lambda_usd(billed: int, memory: int, architecture: str) -> Fraction:
    price = Fraction("0.0000133334") if architecture == "arm64" else Fraction("0.0000166667")
    return Fraction(billed * memory, 1024 * 1000) * price + Fraction("0.0000002")


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
    )
    endings: dict[str, tuple[str, str, str]] = {}
    members: dict[str, set[str]] = defaultdict(set)

    def add(at: str, agent: str, name: str, value: Fraction | int) -> None:
        count.total[at[:13]][name] += value
        count.agents[at[:13], agent][name] += value

    for body in events.values():
        kind, at, agent, data = body["type"], body["at"], body["agent"], body["data"]
        hour, metric = at[:13], "custom_event" if custom[body["id"]] else kind
        members[body["workflow_id"]].add(agent)
        add(at, agent, "events", 1)
        count.types[hour, metric][0] += 1
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
            for name, value in values.items():
                add(at, agent, name, value)
                count.models[hour, CANONICAL.get(model, model)][name] += value
            if body["request_id"] is None:
                count.types[hour, "llm_usage"][1] += body["usd"]
        elif kind == "decision_made" and "confidence_score" in data:
            add(at, agent, "confidence_sum", Fraction(repr(data["confidence_score"])))
            add(at, agent, "confidence_n", 1)
        elif kind.startswith("message_"):
            add(at, agent, "messages_sent" if kind == "message_sent" else "messages_received", 1)
            if "to" in data:
                flow = count.flows[hour, data["from"], data["to"]]
                flow["messages_sent" if kind == "message_sent" else "messages_received"] += 1
            if "latency_ms" in data:
                for target in (
                    count.total[hour],
                    count.agents[hour, agent],
                    count.flows[hour, data["from"], data["to"]],
                ):
                    target["handoff_ms"] += Fraction(repr(data["latency_ms"]))
                    target["handoff_n"] += 1
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
    for invocation in invocations.values():
        _count_invocation(count, invocation, add)
    return count


def _count_invocation(count: Count, invocation: dict[str, list[Any]], add: Any) -> None:
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
    for at_ms, _, duration, billed, memory, filter_name in genuine[::-1]:
        _, _, agent, architecture = filter_name.split("|")
        usd = lambda_usd(billed, memory, architecture)
        at = rfc3339(at_ms)
        for name, value in (
            ("compute_cost", usd),
            ("invocations", 1),
            ("billed_ms", billed),
            ("duration_ms", duration),
        ):
            add(at, agent, name, value)
        count.day_spend[at[:10], agent] += usd
        mine = (
            [b for b in ordered if after < b["clock"] <= at_ms]
            if after
            else [b for b in ordered if b["clock"] <= at_ms]
        )
        after = at_ms
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

"""Random log streams of agents."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple

DOMAIN = ("issue_detected", "code_generated", "test_passed", "test_failed", "decision_made", "fix_deployed")
# USD per million tokens: input, output, cache read, cache write (5 min), cache write (1 h).
PRICES = {
    "claude-3-opus": ("15", "75", "1.5", "18.75", "30"),
    "claude-haiku-4-5": ("1", "5", "0.1", "1.25", "2"),
    "no-such-model": None,
}
CANONICAL = {"claude-3-opus": "claude-3-opus-latest", "claude-haiku-4-5": "claude-haiku-4-5"}
# What Lambda reports of an attempt, and what a process writes of its own.
STATUSES = (
    ("success", ""),
    ("timeout", ""),
    ("error", "Runtime.ExitError"),
    ("error", "Runtime.OutOfMemory"),
)
ENDS: tuple[tuple[str, Any], ...] = (
    ("invocation_completed", {"duration_ms": 12.345}),
    ("invocation_failed", {"duration_ms": 3.5, "error": {"type": "KeyError"}}),
)


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
        more = r.choice(("", "", "|tmp=512", "|tmp=2048", "|of-a-later-version=1|tmp=10240"))
        self.filter_name = f"agentops|test|{agent}|{architecture}{more}"
        self.kept_ready = r.random() < 0.3
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
        begun, span = self.now, f"{r.getrandbits(64):016x}"
        if r.random() < 0.95:
            kept_ready = {"initialization": "provisioned-concurrency"} if self.kept_ready else {}
            self._event("invocation_started", {"cold_start": False, **kept_ready}, request, workflow, span)
        for _ in range(r.randrange(0, 9)):
            self.now += r.randrange(0, 400)
            self._random_event(request, workflow)
        if r.random() < 0.1:
            forged = r.randrange(1, 5000)
            self._report(request, r.choice((self.now - begun, 0.5)), forged, *r.choice(STATUSES))
        self.now += r.randrange(0, 50)
        ended = r.random() < 0.8
        if ended:
            kind, data = r.choice(ENDS)
            self._event(kind, data, request, workflow, span)
        if r.random() < 0.9:
            self.now += 1
            status = ("success", "") if ended and r.random() < 0.9 else r.choice(STATUSES)
            duration = self.now - begun + r.choice((0, 0.25, -0.5))
            self._report(request, duration, r.randrange(1, 9000), *status)
            if status[0] != "success" and r.random() < 0.7:
                # Most that Lambda ends start again as another process.
                self._process()

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
                "decision_outcome",
                "workflow_completed",
                "workflow_failed",
            )
        )
        data: Any = {"note": "ünï" * r.randrange(3)}
        if kind == "llm_usage":
            data = self._llm()
        elif kind == "decision_made":
            data = {
                # Few: agents may number their decisions anew in each workflow.
                "decision_id": f"d{r.randrange(6)}",
                "decision_type": r.choice(("a", "b")),
                "reasoning_chain": [{"thought": "x" * r.randrange(50)}],
                "inputs": {},
                "outputs": None,
            }
            if r.random() < 0.8:
                data["confidence_score"] = round(r.random(), r.randrange(1, 17))
        elif kind == "decision_outcome":
            data = {
                "decision_id": f"d{r.randrange(6)}",
                "correct": r.choice((True, False, None)),
                "score": r.choice((None, 0, round(r.random(), 3))),
                "evidence": r.choice((None, "tests passed", {"passed": 3})),
            }
        elif kind in ("message_sent", "message_received"):
            data = {
                "from": self.agent,
                "to": r.choice(("manager", "qa")),
                "message_type": "x",
                "message_id": f"m{r.randrange(30)}",
            }
            if r.random() < 0.1:
                del data["message_id"]
            if kind == "message_received":
                data["latency_ms"] = round(r.random() * 1000, 3)
                data |= r.choice(({}, {"addressed_to": None}, {"addressed_to": self.agent}))
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

    def _event(
        self, kind: str, data: Any, request: str | None, workflow: str = "f" * 32, span: str | None = None
    ) -> None:
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
            "trace_id": workflow[:32],
            "span_id": span or f"{self.seq:016x}",
            "parent_id": span and span[::-1],
            "request_id": request,
            "seq": self.seq,
            "proof": proof(self.nonce, self.stream),
        }
        if self.random.random() < 0.2:
            body |= {"user_id": "u1", "session_id": "s1", "tags": {"team": "shop"}}
        head: dict[str, Any] = {"timestamp": body["at"], "level": "INFO", "AgentName": self.agent}
        if kind not in ("span", "decision_outcome"):
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

    def _report(
        self, request: str, duration: float, billed: int, status: str = "success", error: str = ""
    ) -> None:
        memory = self.random.choice((128, 512, 1769))
        if self.random.random() < 0.5:
            self._log(
                f"REPORT RequestId: {request}\tDuration: {duration:.2f} ms\tBilled Duration: {billed} ms\t"
                f"Memory Size: {memory} MB\tMax Memory Used: 70 MB\tInit Duration: 100.20 ms\t"
                + (f"Status: {status}" if status != "success" else "")
                + (f"\tError Type: {error}" if error else "")
                + "\n"
            )
        else:
            metrics = {
                "durationMs": duration,
                "billedDurationMs": billed,
                "memorySizeMB": memory,
                "maxMemoryUsedMB": 9,
            }
            record = {"requestId": request, "status": status, "metrics": metrics}
            record |= {"errorType": error} if error else {}
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

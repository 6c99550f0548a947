"""A small run: log lines as the contract has them, and AWS clients that answer from it."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from local.report.recount import Logged

HOSTILE = '"><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>'
MODEL = "anthropic.claude-3-haiku-20240307-v1:0"


def now_text(offset_s: float = 0.0) -> str:
    moment = datetime.fromtimestamp(time.time() + offset_s, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Process:
    """Writes the lines of one Lambda process."""

    def __init__(self, agent: str, stream: str, nonce: str) -> None:
        self.agent, self.stream, self.nonce = agent, stream, nonce
        self.lines: list[str] = []
        self._seq = 0

    @property
    def proof(self) -> str:
        return blake2b(self.nonce.encode(), key=self.stream.encode()[:64], digest_size=12).hexdigest()

    def event(
        self, type_: str, data: Mapping[str, Any], workflow: str = "a" * 32, **more: Any
    ) -> dict[str, Any]:
        self._seq += 1
        event = {
            "v": 1, "id": f"{self.nonce}-{self._seq}", "type": type_, "agent": self.agent, "env": "demo",
            "at": now_text(), "workflow_id": workflow, "trace_id": workflow, "span_id": f"{self._seq:016x}",
            "parent_id": None, "request_id": "req-1", "seq": self._seq, "proof": self.proof, "data": data,
            **more,
        }  # fmt: skip
        self.lines.append(
            json.dumps({"level": "INFO", "AgentName": self.agent, "agentops.event": event}) + "\n"
        )
        return event

    def call(self, tokens_in: int, tokens_out: int) -> dict[str, Any]:
        usage = {"gen_ai.usage.input_tokens": tokens_in, "gen_ai.usage.output_tokens": tokens_out}
        self.event("llm_usage", {"gen_ai.request.model": MODEL, **usage, "cost_usd": "0", "source": "auto"})
        return {"model": MODEL, "input_tokens": tokens_in, "output_tokens": tokens_out, "at": now_text()}

    def logged(self) -> list[Logged]:
        return [
            Logged(self.stream, f"{self.stream}/{n}", 1_000 * n, line) for n, line in enumerate(self.lines)
        ]

    def report(
        self, billed_ms: int, memory_mb: int = 256, request_id: str = "req-1", status: str = "success"
    ) -> None:
        metrics = {"durationMs": billed_ms - 0.4, "billedDurationMs": billed_ms, "memorySizeMB": memory_mb,
                   "maxMemoryUsedMB": 80}  # fmt: skip
        record = {"requestId": request_id, "metrics": metrics, "status": status}
        self.lines.append(json.dumps({"time": now_text(), "type": "platform.report", "record": record}))

    def text_report(
        self, billed_ms: int, memory_mb: int = 128, request_id: str = "req-1", status: str = ""
    ) -> None:
        self.lines.append(
            f"REPORT RequestId: {request_id}\tDuration: {billed_ms - 0.5} ms\t"
            f"Billed Duration: {billed_ms} ms\t"
            f"Memory Size: {memory_mb} MB\tMax Memory Used: 60 MB\t{status and f'Status: {status}'}\n"
        )


class Pages:
    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def paginate(self, **asked: Any) -> list[Any]:
        return [self._answer(**asked)]


class FakeLogs:
    """The Logs API over processes."""

    class meta:
        region_name = "us-east-1"

    def __init__(self, groups: Mapping[str, Sequence[Process]], environment: str = "demo") -> None:
        self._groups, self._environment = groups, environment

    def get_paginator(self, name: str) -> Pages:
        return Pages(getattr(self, f"_{name}"))

    def _describe_log_groups(self) -> Any:
        return {"logGroups": [{"logGroupName": name} for name in [*self._groups, "/aws/lambda/unrelated"]]}

    def _filter_log_events(self, logGroupName: str) -> Any:
        events = [
            {"logStreamName": one.stream, "eventId": one.id, "timestamp": one.at_ms, "message": one.message}
            for process in self._groups[logGroupName]
            for one in process.logged()
        ]
        return {"events": events}

    def describe_subscription_filters(self, logGroupName: str) -> Any:
        processes = self._groups.get(logGroupName, [])
        names = {f"agentops|{self._environment}|{process.agent}|arm64" for process in processes}
        return {"subscriptionFilters": [{"filterName": name} for name in [*names, "somebody-elses"]]}


class FakeCloudWatch:
    """Dashboards, alarms and metric values; `values` gives the points of a metric name or an expression."""

    def __init__(self, boards: Mapping[str, Any], values: Mapping[str, Sequence[float]]) -> None:
        self._boards, self._values = boards, values
        self.asked: list[dict[str, Any]] = []

    def get_paginator(self, name: str) -> Pages:
        return Pages(getattr(self, f"_{name}"))

    def get_dashboard(self, DashboardName: str) -> Any:
        return {"DashboardBody": json.dumps(self._boards[DashboardName])}

    def _list_dashboards(self, DashboardNamePrefix: str) -> Any:
        names = [name for name in self._boards if name.startswith(DashboardNamePrefix)]
        return {"DashboardEntries": [{"DashboardName": name} for name in names]}

    def _describe_alarms(self, AlarmTypes: list[str], AlarmNames: list[str] | None = None) -> Any:
        states = {"AgentOps-demo-HighCost": "ALARM", "AgentOps-demo-DeadLetters": "OK"}
        alarms = [
            {
                "AlarmName": name,
                "StateValue": state,
                "StateUpdatedTimestamp": datetime.now(UTC),
                "StateReason": HOSTILE,
            }
            for name, state in states.items()
            if AlarmNames is None or name in AlarmNames
        ]
        return {"MetricAlarms": alarms}

    def _get_metric_data(self, MetricDataQueries: list[Any], StartTime: datetime, **asked: Any) -> Any:
        self.asked.append({"queries": MetricDataQueries, "start": StartTime, **asked})
        results = []
        for query in MetricDataQueries:
            if not query["ReturnData"]:
                continue
            stat = query.get("MetricStat")
            values = self._values.get(stat["Metric"]["MetricName"] if stat else query["Expression"], [])
            period = stat["Period"] if stat else query["Period"]
            times = [
                datetime.fromtimestamp(StartTime.timestamp() + period * n, UTC) for n in range(len(values))
            ]
            label = query.get("Label", "unnamed")
            results.append({"Id": query["Id"], "Label": label, "Timestamps": times, "Values": list(values)})
        return {"MetricDataResults": results}


class FakeLambda:
    """Answers custom widgets."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.events: list[dict[str, Any]] = []

    def invoke(self, FunctionName: str, Payload: bytes) -> Any:
        event = json.loads(Payload)
        self.events.append(event)
        answer = self._answer(event)
        if isinstance(answer, Exception):
            failed = json.dumps({"errorMessage": str(answer)}).encode()
            return {"FunctionError": "Unhandled", "Payload": io.BytesIO(failed)}
        return {"Payload": io.BytesIO(json.dumps(answer).encode())}

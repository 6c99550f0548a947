"""The log of one invocation: Lambda's own lines around the function's, in AWS's order and formats."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from local.aws import logs, permissions
from local.aws.runtime_api import LogLine, Outcome

LEVELS = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40, "FATAL": 50}


class InvocationLog:
    """Collects an invocation's log events, then writes them at once: INIT, START, lines, END, REPORT."""

    def __init__(self, config: Mapping[str, Any], request_id: str) -> None:
        settings = config.get("LoggingConfig") or {}
        self._config = config
        self._id = request_id
        self._json = settings.get("LogFormat") == "JSON"
        self._level = LEVELS[settings.get("ApplicationLogLevel") or "INFO"]
        self._system = not self._json or LEVELS[settings.get("SystemLogLevel") or "INFO"] <= LEVELS["INFO"]
        self._events: list[tuple[int, str]] = []

    def init(self) -> None:
        """Add the line of a cold start."""
        record = {
            "initializationType": "on-demand",
            "phase": "init",
            "functionName": self._config["FunctionName"],
        }
        self._platform("initStart", record, f"INIT_START Runtime Version: python:{sys.version.split()[0]}")

    def start(self) -> None:
        """Add the line before the function's own."""
        record = {"requestId": self._id, "version": "$LATEST"}
        self._platform("start", record, f"START RequestId: {self._id} Version: $LATEST")

    def lines(self, lines: list[LogLine]) -> None:
        """Add what the function wrote; with JSON logging, lines below its level are dropped."""
        for line in lines:
            level = line.level or (_level(line.text) if self._json else "")
            if not self._json or LEVELS.get(level, LEVELS["INFO"]) >= self._level:
                self._events.append((line.at_ms, line.text))

    def report(self, outcome: Outcome, init_seconds: float | None, peak_mb: int) -> None:
        """Add the end of the invocation. Lambda bills INIT too, and rounds up to the millisecond."""
        duration = round(outcome.seconds * 1000, 2)
        init = round((init_seconds or 0) * 1000, 2)
        billed = math.ceil(round(duration + init, 2))
        memory = int(self._config.get("MemorySize") or 128)
        record: dict[str, Any] = {
            "requestId": self._id,
            "metrics": {
                "durationMs": duration,
                "billedDurationMs": billed,
                "memorySizeMB": memory,
                "maxMemoryUsedMB": peak_mb,
                **({} if init_seconds is None else {"initDurationMs": init}),
            },
            "status": outcome.status,
        }
        text = (
            f"REPORT RequestId: {self._id}\tDuration: {duration:.2f} ms\tBilled Duration: {billed} ms\t"
            f"Memory Size: {memory} MB\tMax Memory Used: {peak_mb} MB\t"
        )
        text += "" if init_seconds is None else f"Init Duration: {init:.2f} ms\t"
        if outcome.status == "timeout":
            self._text(f"{_rfc3339(_now_ms())} {self._id} {outcome.message}\n")
            text += "Status: timeout"
        elif outcome.status == "failure":
            self._text(f"RequestId: {self._id} Error: {outcome.message}\n{outcome.error_type}")
            text += f"Status: error\tError Type: {outcome.error_type}"
        if outcome.status in ("error", "failure"):
            record["errorType"] = outcome.error_type
        self._text(f"END RequestId: {self._id}")
        self._platform("report", record, text)

    def write(self, stream: str) -> None:
        """Store the events, if the function's role lets Lambda; else they are lost, as on AWS."""
        group = log_group(self._config)
        _, _, _, region, account, *_ = self._config["FunctionArn"].split(":")
        resource = f"arn:aws:logs:{region}:{account}:log-group:{group}:log-stream:{stream}"
        for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
            if why := permissions.refusal(self._config, action, resource):
                permissions.tell(f"the log of {self._config['FunctionName']} is lost: {why}")
                return
        logs.write(group, stream, self._events)

    def tail(self) -> str:
        """Return the last 4 KB, which a caller may ask for."""
        return "\n".join(message for _, message in self._events).encode()[-4096:].decode("utf-8", "ignore")

    def _text(self, text: str) -> None:
        if not self._json:
            self._events.append((_now_ms(), text))

    def _platform(self, kind: str, record: Mapping[str, Any], text: str) -> None:
        at_ms = _now_ms()
        if self._json:
            text = json.dumps({"time": _rfc3339(at_ms), "type": f"platform.{kind}", "record": record})
        if self._system:
            self._events.append((at_ms, text))


def log_group(config: Mapping[str, Any]) -> str:
    """Return the log group that the function's configuration names."""
    group = (config.get("LoggingConfig") or {}).get("LogGroup")
    return str(group or f"/aws/lambda/{config['FunctionName']}")


def _level(text: str) -> str:
    """Return the level of a line that is a JSON object with one; any other line counts as INFO on AWS."""
    if not text.startswith("{") or '"level"' not in text:
        return ""
    try:
        return str(json.loads(text).get("level")).upper()
    except ValueError:
        return ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _rfc3339(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"

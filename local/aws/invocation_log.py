"""The log of one invocation: Lambda's own lines around the function's, in AWS's order and formats."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ministack.core.responses import get_account_id, get_region

from local.aws import logs, permissions
from local.aws.runtime_api import LogLine, Outcome

LEVELS = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40, "FATAL": 50}
# Lambda takes a handler's exception for an invocation that went well: the runtime has answered.
STATUS = {"error": "success", "failure": "error"}


class InvocationLog:
    """Collects an invocation's log events, then writes them at once: INIT, START, lines, END, REPORT.

    How AWS writes them, with sources, is in ``tests/contract/corpus/logs``.
    """

    def __init__(self, config: Mapping[str, Any], request_id: str) -> None:
        settings = config.get("LoggingConfig") or {}
        self._config = config
        self._id = request_id
        self._json = settings.get("LogFormat") == "JSON"
        self._level = LEVELS[settings.get("ApplicationLogLevel") or "INFO"]
        self._system_level = LEVELS[settings.get("SystemLogLevel") or "INFO"]
        self._events: list[tuple[int, str]] = []

    def init(self, outcome: Outcome, lines: list[LogLine], phase: str = "init") -> None:
        """Add a start of the runtime, in phase ``init``, or in ``invoke`` after one that failed."""
        about = {"initializationType": "on-demand", "phase": phase}
        runtime = f"python:{sys.version.split()[0]}"
        arn = f"arn:aws:lambda:{get_region()}::runtime:{0:064x}"
        took = outcome.seconds * 1000
        if phase == "init":
            function = {"functionName": self._config["FunctionName"], "functionVersion": "$LATEST"}
            version = {"runtimeVersion": runtime, "runtimeVersionArn": arn}
            text = f"INIT_START Runtime Version: {runtime}\tRuntime Version ARN: {arn}"
            self._platform("initStart", "INFO", {**about, **version, **function}, text, _now_ms() - int(took))
        self.lines(lines)
        ending, level = _ending(outcome), "DEBUG" if outcome.status == "success" else "WARN"
        self._platform("initRuntimeDone", level, {**about, **ending})
        text = f"INIT_REPORT Init Duration: {took:.2f} ms\tPhase: {phase}{_tail(ending)}"
        record = {**about, **ending, "metrics": {"durationMs": round(took, 3)}}
        self._platform("initReport", level, record, "" if level == "DEBUG" else text)

    def start(self) -> None:
        """Add the line before the function's own."""
        record = {"requestId": self._id, "functionArn": self._config["FunctionArn"], "version": "$LATEST"}
        self._platform("start", "INFO", record, f"START RequestId: {self._id} Version: $LATEST")

    def lines(self, lines: list[LogLine]) -> None:
        """Add what the function wrote; with JSON logging, lines below its level are dropped."""
        for line in lines:
            level = line.level or (_level(line.text) if self._json else "")
            if not self._json or LEVELS.get(level, LEVELS["INFO"]) >= self._level:
                self._events.append((line.at_ms, line.text))

    def report(self, outcome: Outcome, init_seconds: float | None, peak_mb: int) -> None:
        """Add the end of the invocation. Lambda bills INIT too, and rounds up to the millisecond."""
        digits = 3 if self._json else 2
        duration, init = (round((seconds or 0) * 1000, digits) for seconds in (outcome.seconds, init_seconds))
        billed = math.ceil(round(duration + init, digits))
        memory = int(self._config.get("MemorySize") or 128)
        ending = _ending(outcome)
        level = "INFO" if ending["status"] == "success" else "WARN"
        produced = len(outcome.payload) if outcome.status == "success" else 0
        done: dict[str, Any] = {"requestId": self._id, **ending}
        done["metrics"] = {"durationMs": duration, "producedBytes": produced}
        self._platform("runtimeDone", "DEBUG" if level == "INFO" else level, done)
        self._platform("end", "", {}, f"END RequestId: {self._id}")
        metrics = {
            "durationMs": duration,
            "billedDurationMs": billed,
            "memorySizeMB": memory,
            "maxMemoryUsedMB": peak_mb,
        }
        text = (
            f"REPORT RequestId: {self._id}\tDuration: {duration:.2f} ms\tBilled Duration: {billed} ms\t"
            f"Memory Size: {memory} MB\tMax Memory Used: {peak_mb} MB"
        )
        if init_seconds is not None:
            metrics["initDurationMs"] = init
            text += f"\tInit Duration: {init:.2f} ms"
        text += _tail(ending) if level == "WARN" else "\t"
        self._platform("report", level, {"requestId": self._id, "metrics": metrics, **ending}, text)

    def write(self, stream: str) -> None:
        """Store the events, if the function's role lets Lambda; else they are lost, as on AWS."""
        group = log_group(self._config)
        resource = f"arn:aws:logs:{get_region()}:{get_account_id()}:log-group:{group}:log-stream:"
        needed = {"CreateLogGroup": ""} if not logs.exists(group) else {}
        for action, name in {**needed, "CreateLogStream": stream, "PutLogEvents": stream}.items():
            if why := permissions.refusal(self._config, f"logs:{action}", resource + name):
                permissions.tell(f"the log of {self._config['FunctionName']} is lost: {why}")
                return
        logs.write(group, stream, self._events)

    def tail(self) -> str:
        """Return the last 4 KB, which a caller may ask for."""
        text = "".join(f"{message.rstrip()}\n" for _, message in self._events)
        return text.encode()[-4096:].decode("utf-8", "ignore")

    def _platform(
        self, kind: str, level: str, record: Mapping[str, Any], text: str = "", at_ms: int = 0
    ) -> None:
        """Add a line of Lambda's own: the record with JSON logging, if of its level, else the text if any."""
        at_ms = at_ms or _now_ms()
        if self._json and level and LEVELS[level] >= self._system_level:
            event = {"time": _rfc3339(at_ms), "type": f"platform.{kind}", "record": record}
            self._events.append((at_ms, json.dumps(event, separators=(",", ":"))))
        elif text and not self._json:
            self._events.append((at_ms, f"{text}\n"))


def _ending(outcome: Outcome) -> dict[str, str]:
    """Return the status in Lambda's words, with the type of what ended the runtime."""
    status = STATUS.get(outcome.status, outcome.status)
    return {"status": status, **({"errorType": outcome.error_type} if status == "error" else {})}


def _tail(ending: Mapping[str, str]) -> str:
    error = f"\tError Type: {ending['errorType']}" if "errorType" in ending else ""
    return f"\tStatus: {ending['status']}{error}"


def log_group(config: Mapping[str, Any]) -> str:
    """Return the log group that the function's configuration names."""
    group = (config.get("LoggingConfig") or {}).get("LogGroup")
    return str(group or f"/aws/lambda/{config['FunctionName']}")


def _level(text: str) -> str:
    """Return the level of a JSON object that has one and an RFC 3339 time; any other line counts as INFO."""
    if not text.startswith("{") or '"level"' not in text:
        return ""
    try:
        document = json.loads(text)
        at = datetime.fromisoformat(document["timestamp"])
        return str(document["level"]).upper() if at.tzinfo else ""
    except (ValueError, KeyError, TypeError):
        return ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _rfc3339(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"

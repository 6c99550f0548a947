"""Lambda functions: their code, their pools of execution environments, their log and report lines."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import sys
import sysconfig
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ministack.services import lambda_svc

from local.aws import metrics, permissions
from local.aws.faults import Faults, Rule
from local.aws.invocation_log import InvocationLog, log_group
from local.aws.records import Record, account_of, reserved_concurrency
from local.aws.runtime_api import Environment, Outcome

MOST_ENVIRONMENTS = 64  # processes over all functions; AWS's account limit is 1,000 concurrent executions
BOOTSTRAP = Path(__file__).with_name("bootstrap.py").read_text()
# What Lambda's Python runtime brings: its interface client, boto3, and what these two need.
RUNTIME = (
    "awslambdaric", "boto3", "botocore", "dateutil", "jmespath", "python_dateutil", "runtime_client",
    "s3transfer", "simplejson", "six", "snapshot_restore_py", "urllib3",
)  # fmt: skip
SAME_FOR_ALL = {
    "LANG": "en_US.UTF-8",
    "TZ": ":UTC",
    "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
    "AWS_EC2_METADATA_DISABLED": "true",
}
READY = Outcome("success", b"", 0.0)


class ThrottledError(Exception):
    """No free concurrency: HTTP 429 on AWS, with the text of this as its reason."""


@dataclass(frozen=True, slots=True)
class Result:
    """What an invocation gave back.

    Parameters
    ----------
    payload
        The function's response, or the error document.
    error_type
        Empty on success.
    tail
        The last 4 KB of its log.
    """

    payload: Any
    error_type: str
    tail: str
    request_id: str

    @property
    def failed(self) -> bool:
        """Whether the function ended in an error, a time-out or its process's end."""
        return bool(self.error_type)


@dataclass(slots=True)
class _Pool:
    idle: list[Environment] = field(default_factory=list)
    busy: int = 0


class Functions:
    """Every function's execution environments.

    Parameters
    ----------
    endpoint
        Where functions reach the local AWS.
    faults
        What is to go wrong.
    folder
        Where code is unpacked, once per hash.
    variables
        Added to each function's environment (`--function-env`).
    """

    def __init__(self, endpoint: str, folder: Path, variables: Mapping[str, str], faults: Faults) -> None:
        self._endpoint = endpoint
        self._faults = faults
        self._folder = folder
        self._runtime = _lay_out_runtime(folder / "runtime")
        self._variables = dict(variables)
        self._pools: dict[str, _Pool] = {}
        self._lock = threading.Lock()
        self._code_lock = threading.Lock()
        self._all: dict[str, Environment] = {}  # by access key
        self._closed = False

    @property
    def running(self) -> int:
        """Number of invocations in progress."""
        with self._lock:
            return sum(pool.busy for pool in self._pools.values())

    def environment_of(self, access_key: str) -> Environment | None:
        """Return the environment that an access key belongs to."""
        with self._lock:
            return self._all.get(access_key)

    def invoke(self, record: Record, event: Any, request_id: str = "", *, delivery: bool = False) -> Result:
        """Run one invocation to its end, and log and measure it; a service's delivery under ordered faults.

        Raises
        ------
        ThrottledError
            When the reserved concurrency, or the limit over all functions, is in use.
        """
        config = record["config"]
        name = config["FunctionName"]
        fault = self._faults.of_delivery(name, "throttle", "kill") if delivery else None
        request_id = request_id or str(uuid.uuid4())
        with account_of(config):
            try:
                if fault is not None and fault.fault == "throttle":
                    raise ThrottledError("ConcurrentInvocationLimitExceeded")
                environment = self._acquire(record)
            except ThrottledError:
                metrics.record("AWS/Lambda", "Throttles", 1, "Count", {"FunctionName": name})
                raise
            return self._invoke_in(environment, record, json.dumps(event).encode(), request_id, fault)

    def retire(self, name: str) -> None:
        """End a function's idle environments: its code or configuration changed, or it is gone."""
        with self._lock:
            pool = self._pools.setdefault(name, _Pool())
            idle, pool.idle = pool.idle, []
        for environment in idle:
            self._close(environment)

    def close(self) -> None:
        """End every process."""
        with self._lock:
            self._closed = True
            everything = list(self._all.values())
        for environment in everything:  # a busy one is closed by the thread that drives it
            environment.kill()

    def _invoke_in(
        self,
        environment: Environment | None,
        record: Record,
        event: bytes,
        request_id: str,
        fault: Rule | None,
    ) -> Result:
        config = record["config"]
        log = InvocationLog(config, request_id)
        timeout = float(config.get("Timeout") or 3)
        outcome, init, spent = READY, None, 0.0
        try:
            if environment is None:
                environment = self._start(record)
                outcome = environment.initialise()
                init = outcome.seconds
                log.init(outcome, environment.take_lines())
                if outcome.status != "success":  # once more, as on AWS, on the invocation's time
                    failed, environment = environment, None
                    self._close(failed)
                    environment = self._start(record, failed.log_stream)
                    outcome = environment.initialise(timeout)
                    init, spent = None, outcome.seconds
                    log.init(outcome, environment.take_lines(), "invoke")
            log.start()
            if outcome.status == "success":
                after = math.inf if fault is None else fault.seconds
                left = timeout - spent
                outcome = environment.invoke(request_id, config["FunctionArn"], event, left, after)
                outcome = replace(outcome, seconds=spent + outcome.seconds)
            log.lines(environment.take_lines())
            log.report(outcome, init, environment.peak_memory_mb())
            log.write(environment.log_stream)
            dimensions = {"FunctionName": config["FunctionName"]}
            metrics.record("AWS/Lambda", "Invocations", 1, "Count", dimensions)
            metrics.record("AWS/Lambda", "Errors", int(outcome.status != "success"), "Count", dimensions)
            metrics.record("AWS/Lambda", "Duration", outcome.seconds * 1000, "Milliseconds", dimensions)
            metrics.record("AWS/Lambda", "Throttles", 0, "Count", dimensions)
        finally:
            self._release(config["FunctionName"], environment)
        return Result(_payload(outcome, request_id), outcome.error_type, log.tail(), request_id)

    def _acquire(self, record: Record) -> Environment | None:
        """Take a slot; return an idle environment, or None when a new one is to be started."""
        config, reserved = record["config"], reserved_concurrency(record)
        done_with: list[Environment] = []
        try:
            with self._lock:
                pool = self._pools.setdefault(config["FunctionName"], _Pool())
                if self._closed or (reserved is not None and pool.busy >= reserved):
                    raise ThrottledError("ReservedFunctionConcurrentInvocationLimitExceeded")
                while pool.idle:
                    environment = pool.idle.pop()
                    if environment.alive and environment.revision == config["RevisionId"]:
                        pool.busy += 1
                        return environment
                    done_with.append(environment)
                if sum(pool.busy + len(pool.idle) for pool in self._pools.values()) >= MOST_ENVIRONMENTS:
                    done_with.append(self._least_recently_used())
                pool.busy += 1
                return None
        finally:
            for environment in done_with:
                self._close(environment)

    def _least_recently_used(self) -> Environment:
        idle = [pool for pool in self._pools.values() if pool.idle]
        if not idle:
            raise ThrottledError("ConcurrentInvocationLimitExceeded")
        return min(idle, key=lambda pool: pool.idle[0].idle_since).idle.pop(0)

    def _release(self, name: str, environment: Environment | None) -> None:
        with self._lock:
            pool = self._pools[name]
            pool.busy -= 1
            there = name in lambda_svc._functions and not self._closed  # it may be gone since
            if environment is not None and environment.alive and there:
                environment.idle_since = time.monotonic()
                pool.idle.append(environment)
                return
        if environment is not None:
            self._close(environment)

    def _close(self, environment: Environment) -> None:
        environment.close()
        shutil.rmtree(self._scratch(environment.log_stream), ignore_errors=True)
        with self._lock:
            self._all.pop(environment.access_key, None)
        permissions.revoke(environment.access_key)

    def _scratch(self, log_stream: str) -> Path:
        """Return an environment's folder for temporary files, which lives as long as it does."""
        return self._folder / f"tmp-{log_stream[-32:]}"

    def _start(self, record: Record, stream: str = "") -> Environment:
        config = record["config"]
        folder = self._unpack(record.get("code_zip"))
        layers = [self._unpack(lambda_svc._resolve_layer_zip(layer)) for layer in config.get("Layers") or []]
        if not stream:  # in a log group that functions may share it names its function
            name = config["FunctionName"]
            name = "" if log_group(config) == f"/aws/lambda/{name}" else name
            stream = f"{datetime.now(UTC):%Y/%m/%d}/{name}[$LATEST]{uuid.uuid4().hex}"
        self._scratch(stream).mkdir(parents=True)
        command = [sys.executable, "-S", "-c", BOOTSTRAP, config["Handler"]]  # -S: no packages of the host's
        variables = self._process_variables(config, folder, layers, stream)
        environment = Environment(command, variables, folder, int(config.get("MemorySize") or 128), stream)
        environment.revision = config["RevisionId"]
        with self._lock:
            self._all[environment.access_key] = environment
            closed = self._closed
        if closed:
            environment.kill()
        return environment

    def _process_variables(
        self, config: Record, folder: Path, layers: list[Path], stream: str
    ) -> dict[str, str]:
        region = config["FunctionArn"].split(":")[3]
        logging = config.get("LoggingConfig") or {}
        places = [folder, *(layer / "python" for layer in layers), self._runtime]
        variables = {
            **SAME_FOR_ALL,
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self._scratch(stream)),  # not the user's: no ~/.aws
            "TMPDIR": str(self._scratch(stream)),
            "_HANDLER": config["Handler"],
            "LAMBDA_TASK_ROOT": str(folder),
            "LAMBDA_RUNTIME_DIR": str(self._runtime),
            "PYTHONPATH": os.pathsep.join(map(str, places)),
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_LAMBDA_FUNCTION_NAME": config["FunctionName"],
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.get("MemorySize") or 128),
            "AWS_LAMBDA_LOG_GROUP_NAME": log_group(config),
            "AWS_LAMBDA_LOG_STREAM_NAME": stream,
            **permissions.credentials(config, stream),
            "AWS_ENDPOINT_URL": self._endpoint,
            "AWS_ENDPOINT_URL_S3": self._endpoint,
        }
        if logging.get("LogFormat") == "JSON":
            variables["AWS_LAMBDA_LOG_FORMAT"] = "JSON"
            variables["AWS_LAMBDA_LOG_LEVEL"] = logging.get("ApplicationLogLevel") or "INFO"
        variables |= (config.get("Environment") or {}).get("Variables") or {}
        return {name: str(value) for name, value in (variables | self._variables).items()}

    def _unpack(self, archive: bytes | None) -> Path:
        if not archive:
            raise ValueError("the function has no code")
        folder = self._folder / hashlib.sha256(archive).hexdigest()
        with self._code_lock:
            if not folder.exists():
                part = folder.with_suffix(".part")
                with zipfile.ZipFile(io.BytesIO(archive)) as content:
                    content.extractall(part)
                part.rename(folder)
        return folder


def _lay_out_runtime(folder: Path) -> Path:
    """Link Lambda's Python runtime into a folder of its own, so that functions see no more of the host."""
    folder.mkdir()
    for site in {Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib")}:
        for path in (path for name in RUNTIME for path in site.glob(f"{name}*")):
            (folder / path.name).symlink_to(path)
    return folder


def _payload(outcome: Outcome, request_id: str) -> Any:
    if outcome.message:
        return {
            "errorType": outcome.error_type,
            "errorMessage": f"RequestId: {request_id} Error: {outcome.message}",
        }
    return json.loads(outcome.payload or b"null")


def install(functions: Functions, submit: Callable[[Record, Any], object]) -> None:
    """Run every invocation of MiniStack in ``functions``; asynchronous ones go to ``submit``."""

    def execute(record: Record, event: Any) -> dict[str, Any]:
        try:
            result = functions.invoke(record, event)
        except ThrottledError as error:
            throttled: dict[str, Any] = lambda_svc._throttle_response(str(error), "Rate Exceeded.")
            return throttled
        answer: dict[str, Any] = {"body": result.payload, "log": result.tail}
        return answer | {"error": True, "function_error": "Unhandled"} if result.failed else answer

    def invalidate(func_name: str, **_: Any) -> None:
        functions.retire(func_name)

    lambda_svc._execute_function = execute
    lambda_svc._execute_function_with_config_scope = execute
    lambda_svc.invoke_async_with_retry = submit
    lambda_svc.invalidate_worker = invalidate
    lambda_svc._emit_lambda_metrics = lambda *_, **__: None  # `Functions` measures

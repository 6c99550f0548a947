"""Lambda entry point: the monitoring table's stream, as traces in AgentOps.

Environment: `AGENTOPS_API_KEY_SECRET` (name or ARN of a secret) or, for local runs, `AGENTOPS_API_KEY`;
`AGENTOPS_API_ENDPOINT` and `AGENTOPS_EXPORTER_ENDPOINT` for another service than the public one;
`ENVIRONMENT`; `DECISIONS_TABLE_NAME`, where the reasoning chains are, and `LEDGER_TABLE_NAME`, where data
too large for one item is.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import lru_cache
from typing import Any

from agentops_monitoring import settings
from agentops_monitoring.catalogue import MONITOR
from agentops_monitoring.emf import MetricValue, emf_lines
from agentops_monitoring.export import agentops_sdk
from agentops_monitoring.export.backend import Backend, DeliveryError
from agentops_monitoring.export.lookup import Lookup
from agentops_monitoring.export.pipeline import Outcome, export
from agentops_monitoring.ledger import schema

MAX_SECONDS = 25.0
"""For one batch; what is not confirmed by then is delivered again."""

RESERVE_SECONDS = 2.0
"""Kept of the function's own time, to answer and to print."""


def handler(event: dict[str, Any], context: Any) -> dict[str, list[dict[str, str]]]:
    """Export one batch of stream records.

    Returns
    -------
    dict
        `batchItemFailures` with the first record that was not delivered: Lambda repeats the batch from there.
    """
    environment = settings.load().environment
    outcome = export(
        event.get("Records", []),
        _backend(),
        environment=environment,
        deadline=time.monotonic() + _seconds(context),
        complete=_lookup().complete,
    )
    _report(outcome, environment)
    if outcome.retry_from is None:
        return {"batchItemFailures": []}
    return {"batchItemFailures": [{"itemIdentifier": outcome.retry_from}]}


def _seconds(context: Any) -> float:
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    if remaining is None:
        return MAX_SECONDS
    return min(MAX_SECONDS, float(remaining()) / 1000 - RESERVE_SECONDS)


@lru_cache(maxsize=1)
def _backend() -> Backend:
    """One for the life of the process: it keeps the token and the connection."""
    return agentops_sdk.AgentOpsBackend(
        _api_key,
        api_endpoint=os.environ.get("AGENTOPS_API_ENDPOINT") or agentops_sdk.DEFAULT_API_ENDPOINT,
        exporter_endpoint=os.environ.get("AGENTOPS_EXPORTER_ENDPOINT")
        or agentops_sdk.DEFAULT_EXPORTER_ENDPOINT,
    )


@lru_cache(maxsize=1)
def _lookup() -> Lookup:
    return Lookup(schema.client, schema.Tables.from_environment())


def _api_key() -> str:
    secret = os.environ.get("AGENTOPS_API_KEY_SECRET")
    key = _from_secret(secret) if secret else os.environ.get("AGENTOPS_API_KEY", "")
    if not key.strip():
        raise DeliveryError("no API key: set AGENTOPS_API_KEY_SECRET to a secret that holds it")
    return key.strip()


def _from_secret(name: str) -> str:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(connect_timeout=2, read_timeout=3, retries={"total_max_attempts": 2})
    try:
        answer = boto3.client("secretsmanager", config=config).get_secret_value(SecretId=name)
    except (BotoCoreError, ClientError) as error:
        raise DeliveryError(f"secret {name} cannot be read: {error}") from error
    text = answer.get("SecretString")
    if text is None:
        raise DeliveryError(f"secret {name} holds bytes, expected the API key as text")
    try:
        fields = json.loads(text)
    except ValueError:
        return text
    # The console makes key/value secrets by default.
    return str(fields.get("AGENTOPS_API_KEY", "")) if isinstance(fields, dict) else text


def _report(outcome: Outcome, environment: str) -> None:
    now_ms = time.time_ns() // 1_000_000
    lines = [
        json.dumps({"level": "ERROR", "message": "export", "problem": problem})
        for problem in outcome.problems
    ]
    dimensions = {"Environment": environment}
    values = [
        MetricValue(MONITOR, "ExportedSpans", outcome.exported, dimensions),
        MetricValue(MONITOR, "ExportFailures", outcome.failed, dimensions),
    ]
    lines.extend(emf_lines(values, at_ms=now_ms))
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()

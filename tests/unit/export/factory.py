"""Stream records as the ledger writes them, for the export tests."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from boto3.dynamodb.types import TypeSerializer

TRACE = "0af7651916cd43dd8448eb211c80319c"
INVOCATION = "00f067aa0ba902b7"
AT = "2026-11-22T08:00:01.500Z"

_serialize = TypeSerializer().serialize


def span_id(number: int) -> str:
    return f"{0xA0000000 + number:016x}"


def item(
    type_: str,
    number: int,
    data: Mapping[str, Any] | None = None,
    *,
    span: str | None = None,
    parent: str | None = INVOCATION,
    **overrides: Any,
) -> dict[str, Any]:
    return {
        "pk": f"WF#{TRACE}",
        "sk": f"{AT}#nonce-{number}",
        "type": type_,
        "agent": "manager",
        "at": AT,
        "request_id": "6f1f3e0e-0000-4000-8000-000000000000",
        "trace_id": TRACE,
        "span_id": span or span_id(number),
        "parent_id": parent,
        "data": json.dumps(data or {}),
        **overrides,
    }


def image(content: Mapping[str, Any]) -> dict[str, Any]:
    """The item in DynamoDB's JSON."""
    return {key: _serialize(value) for key, value in content.items()}


def record(content: Mapping[str, Any], number: int, name: str = "INSERT") -> dict[str, Any]:
    """The item as a record of the stream, as Lambda hands it to a function."""
    new = {key: _as_json(value) for key, value in image(content).items()}
    return {"eventName": name, "dynamodb": {"SequenceNumber": f"{number:021d}", "NewImage": new}}


def _as_json(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"B": base64.b64encode(bytes(value["B"])).decode()} if "B" in value else value


LLM = {
    "gen_ai.request.model": "claude-3-opus",
    "gen_ai.provider.name": "anthropic",
    "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.output_tokens": 500,
    "gen_ai.usage.cache_read.input_tokens": 200,
    "gen_ai.usage.cache_creation.input_tokens": 30,
    "cache_creation_1h.input_tokens": 4,
    "cost_usd": "9.99",
    "duration_ms": 812.4,
}

CHAIN = [{"thought": "Analyzing error pattern", "action": "query_metrics", "observation": "Spike — 500s"}]


def workflow() -> list[dict[str, Any]]:
    """One workflow of one agent, as records in the order of the stream."""
    items = [
        item("invocation_started", 1, {"cold_start": True}, span=INVOCATION, parent=None),
        item("issue_detected", 2, {"severity": "high"}),
        item("llm_usage", 3, LLM, cost_usd=Decimal("0.0525")),
        item("decision_made", 4, {"decision_type": "remediation", "reasoning_chain": CHAIN}),
        item("message_sent", 5, {"from": "manager", "to": "engineer", "message_type": "issue.found"}),
        item("workflow_completed", 6, {"reason": "fixed", "duration_ms": 1400}),
        item("invocation_completed", 7, {"duration_ms": 1500}, span=INVOCATION, parent=None),
    ]
    return [record(content, number) for number, content in enumerate(items, 1)]

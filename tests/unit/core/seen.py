"""A model call as our instrumentation records it, and what lines say of calls."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import Any

from agentops_monitoring import AgentOpsMonitor, llm, trace
from agentops_monitoring.pricing import TokenUsage
from agentops_monitoring.trace import TraceContext

MODEL = "us.anthropic.claude-sonnet-4-20250514-v1:0"
EXAMPLES = 3_000 if os.environ.get("AGENTOPS_TEST_SIZE") == "full" else 120


def see(
    monitor: AgentOpsMonitor,
    usage: TokenUsage | None,
    *,
    model: str = MODEL,
    response_id: str | None = "r1",
    context: TraceContext | None = None,
    region: str | None = "us-east-1",
) -> Decimal | None:
    """Record a call as our instrumentation does."""
    return llm.record_call(
        monitor,
        model=model,
        tokens={name: getattr(usage, name, None) for name, _ in llm.TOKEN_FIELDS},
        tier=usage.tier if usage else "standard",
        extra=usage.extra if usage else (),
        region=region,
        provider="aws.bedrock",
        response_id=response_id,
        duration_ms=12.5,
        problems=[] if usage else ["the stream was not read to its end"],
        context=context or trace.current(),
    )


def calls(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == "llm_usage"]


def notes(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == "llm_annotation"]

"""What is measured: the same job by us and by each peer, in the smallest code that does it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

Job = Callable[[], object]

EVENT = {"issue_type": "high_error_rate", "severity": "high", "error_rate": 0.15}
MODEL = "claude-3-opus"
INPUT_TOKENS, OUTPUT_TOKENS = 1000, 500


class Case(NamedTuple):
    """One job, by whom, and how to make it ready to run."""

    job: str
    who: str
    prepare: Callable[[], Job]


def _our_event() -> Job:
    from agentops_monitoring import AgentEventType, AgentOpsMonitor

    monitor = AgentOpsMonitor("bench")
    return lambda: monitor.record_event(AgentEventType.ISSUE_DETECTED, EVENT)


def _powertools_event() -> Job:
    from aws_lambda_powertools import Metrics  # type: ignore[import-not-found,unused-ignore]

    metrics = Metrics(namespace="bench", service="bench")

    def job() -> None:
        metrics.add_metric(name="issue_detected", unit="Count", value=1)
        for name, value in EVENT.items():
            metrics.add_metadata(key=name, value=value)
        metrics.flush_metrics()

    return job


def _emf_event() -> Job:
    from aws_embedded_metrics.logger.metrics_context import (  # type: ignore[import-not-found,unused-ignore]
        MetricsContext,
    )
    from aws_embedded_metrics.serializers.log_serializer import (  # type: ignore[import-not-found,unused-ignore]
        LogSerializer,
    )

    def job() -> None:
        context = MetricsContext.empty()
        context.namespace = "bench"
        context.put_dimensions({"AgentName": "bench"})
        context.put_metric("issue_detected", 1, "Count")
        for name, value in EVENT.items():
            context.set_property(name, value)
        for line in LogSerializer.serialize(context):
            print(line)

    return job


def _our_price() -> Job:
    from agentops_monitoring.pricing import TokenUsage, llm_cost

    return lambda: llm_cost(MODEL, TokenUsage(INPUT_TOKENS, OUTPUT_TOKENS))


def _our_usage() -> Job:
    from agentops_monitoring import AgentOpsMonitor

    monitor = AgentOpsMonitor("bench")
    return lambda: monitor.track_llm_usage(
        model=MODEL, input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS
    )


def _genai_price() -> Job:
    from genai_prices import Usage, calc_price

    usage = Usage(input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS)
    return lambda: calc_price(usage, model_ref=MODEL, provider_id="anthropic").total_price


CASES = (
    Case("one event, encoded and written", "agentops_monitoring", _our_event),
    Case("one event, encoded and written", "Powertools Metrics", _powertools_event),
    Case("one event, encoded and written", "aws-embedded-metrics", _emf_event),
    Case("price of one model call", "agentops_monitoring", _our_price),
    Case("price of one model call", "genai-prices", _genai_price),
    Case("one model call, priced and written", "agentops_monitoring", _our_usage),
)


class Discarding(io.TextIOBase):
    """Standard output that costs nothing but the call, so that encoding is what is measured."""

    def write(self, text: str) -> int:
        """Drop the text."""
        return len(text)


def measure(case: Case, repeats: int, rounds: int) -> float:
    """Return the best round's microseconds per run of the job."""
    from time import perf_counter

    kept: Any = sys.stdout
    job = case.prepare()
    sys.stdout = Discarding()
    try:
        for _ in range(repeats // 10):
            job()
        best = float("inf")
        for _ in range(rounds):
            begun = perf_counter()
            for _ in range(repeats):
                job()
            best = min(best, perf_counter() - begun)
    finally:
        sys.stdout = kept
    return best / repeats * 1e6

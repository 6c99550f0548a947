"""What is measured: the same job by us and by each peer, in the smallest code that does it.

All write the same: one event with its data, ids and time, with one metric by environment and by agent where
metrics are what they write; the SDKs that make spans put the same fields in attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Job = Callable[[], object]

EVENTS_AN_INVOCATION = 10

DATA = {"issue_type": "high_error_rate", "severity": "high", "error_rate": 0.15}
MODEL = "claude-3-opus"
INPUT_TOKENS, OUTPUT_TOKENS = 1000, 500
USAGE = {
    "gen_ai.request.model": MODEL,
    "gen_ai.provider.name": "anthropic",
    "gen_ai.usage.input_tokens": INPUT_TOKENS,
    "gen_ai.usage.output_tokens": OUTPUT_TOKENS,
}
# Peers get their ids for nothing: ours alone draws them in the measured time.
IDS = {
    "v": 1, "id": "0123456789abcdef01234567-1", "agent": "bench", "env": "production",
    "workflow_id": "0123456789abcdef0123456789abcdef", "trace_id": "0123456789abcdef0123456789abcdef",
    "span_id": "0123456789abcdef", "parent_id": "fedcba9876543210",
    "request_id": "8f507cfc-1234-4697-b07a-ac58fc914c95", "seq": 1, "proof": "0123456789abcdef01234567",
}  # fmt: skip


class Case(NamedTuple):
    """One job, by whom, and how to make it ready to run."""

    job: str
    who: str
    prepare: Callable[[str], Job]
    """Takes the address of the sink, which stands for every service behind an SDK."""
    note: str = ""
    environment: str = ".venv-bench"


class Context:
    """What Lambda gives a handler."""

    function_name = "bench"
    function_version = "$LATEST"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:bench"
    aws_request_id = IDS["request_id"]
    log_group_name = "/aws/lambda/bench"
    log_stream_name = "2026/11/22/[$LATEST]0123456789abcdef0123456789abcdef"

    def get_remaining_time_in_millis(self) -> int:
        """Return what is left of the time limit, in milliseconds."""
        return 60_000


def _in_invocation() -> Any:
    from agentops_monitoring import AgentOpsMonitor
    from agentops_monitoring.invocation import Invocation

    monitor = AgentOpsMonitor("bench")
    Invocation(monitor, {}, Context()).__enter__()
    return monitor


def _our_event(_sink: str) -> Job:
    from agentops_monitoring import AgentEventType

    monitor = _in_invocation()
    return lambda: monitor.record_event(AgentEventType.ISSUE_DETECTED, DATA)


def _our_usage(_sink: str) -> Job:
    monitor = _in_invocation()
    return lambda: monitor.track_llm_usage(
        model=MODEL, input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS
    )


def _our_invocation(_sink: str) -> Job:
    from agentops_monitoring import AgentEventType, AgentOpsMonitor, monitored

    monitor = AgentOpsMonitor("bench")

    @monitored
    def handler(_event: object, _context: object) -> None:
        for _ in range(EVENTS_AN_INVOCATION):
            monitor.record_event(AgentEventType.ISSUE_DETECTED, DATA)

    context = Context()
    return lambda: handler({}, context)


def _our_wrapper(_sink: str) -> Job:
    from agentops_monitoring import monitored

    @monitored
    def handler(_event: object, _context: object) -> None:
        pass

    context = Context()
    return lambda: handler({}, context)


def _our_price(_sink: str) -> Job:
    from agentops_monitoring.pricing import TokenUsage, llm_cost

    return lambda: llm_cost(MODEL, TokenUsage(INPUT_TOKENS, OUTPUT_TOKENS))


OURS = "agentops_monitoring"
EVENT = "one event"
LLM = "one LLM usage with its price"
INVOCATION = f"an invocation with {EVENTS_AN_INVOCATION} events"

OUR_CASES = (
    Case(EVENT, OURS, _our_event),
    Case(LLM, OURS, _our_usage),
    Case(LLM, f"{OURS}, the price", _our_price, "the lookup alone"),
    Case(INVOCATION, OURS, _our_invocation, "the wrapper, started and completed"),
    Case(INVOCATION, f"{OURS}, no events", _our_wrapper, "the wrapper alone"),
)

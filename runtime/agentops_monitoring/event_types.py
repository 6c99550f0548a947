"""The kinds of events an agent records; the value of each is its CloudWatch metric name."""

from __future__ import annotations

from enum import StrEnum


class AgentEventType(StrEnum):
    """Event types that every deployment knows."""

    ISSUE_DETECTED = "issue_detected"
    CODE_GENERATED = "code_generated"
    TEST_PASSED = "test_passed"
    TEST_FAILED = "test_failed"
    DECISION_MADE = "decision_made"
    LLM_USAGE = "llm_usage"
    MESSAGE_SENT = "message_sent"
    MESSAGE_RECEIVED = "message_received"
    INVOCATION_STARTED = "invocation_started"
    INVOCATION_COMPLETED = "invocation_completed"
    INVOCATION_FAILED = "invocation_failed"
    WORKFLOW_COMPLETED = "workflow_completed"
    WORKFLOW_FAILED = "workflow_failed"


CUSTOM_EVENT = "custom_event"
"""Metric name of events whose type nobody declared: kept in full, counted together."""

OVERHEAD = "overhead"
"""`EventType` of `EventCost` for cost that no domain event of the invocation follows."""

DOMAIN_EVENTS: tuple[AgentEventType, ...] = (
    AgentEventType.ISSUE_DETECTED,
    AgentEventType.CODE_GENERATED,
    AgentEventType.TEST_PASSED,
    AgentEventType.TEST_FAILED,
    AgentEventType.DECISION_MADE,
)
"""What agents achieve, as opposed to how they ran: the events that costs are attributed to."""

BUILT_IN: frozenset[str] = frozenset(str(member) for member in AgentEventType)

SPAN = "span"
"""Type of the record that `span()` and `track_tool()` leave: a part of the trace."""

DECISION_OUTCOME = "decision_outcome"
"""Type of the record that proves an earlier decision right or wrong."""

TIME_RUNNING_OUT = "time_running_out"
"""Type of the record of an invocation that nears its time limit."""

LLM_ANNOTATION = "llm_annotation"
"""Type of the record of what else is known of a model call that was counted already; see `llm`."""

RECORDS: frozenset[str] = frozenset({SPAN, DECISION_OUTCOME, TIME_RUNNING_OUT, LLM_ANNOTATION})
"""What is kept like an event, but has no metric of its own."""

MAX_NAME_LENGTH = 64

# A metric's name is a key of the line, beside these.
_RESERVED = RECORDS | {"timestamp", "level"}


def is_valid_name(name: str) -> bool:
    """Whether `name` can be a declared event type: snake_case, at most 64 characters, not reserved.

    The name becomes a metric name and part of DynamoDB keys, where `#` is the separator.
    """
    return (
        0 < len(name) <= MAX_NAME_LENGTH
        and name not in _RESERVED
        and name.isascii()
        and name[0].isalpha()
        and name == name.lower()
        and name.replace("_", "a").isalnum()
    )

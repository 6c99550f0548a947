"""One event as one span."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentops_monitoring.event_types import RECORDS, AgentEventType
from agentops_monitoring.export.spans import MalformedEvent, Span, span_of
from agentops_monitoring.export.stream import event_of
from tests.unit.export.factory import CHAIN, INVOCATION, LLM, TRACE, image, item

AT_NS = 1795334401500 * 1_000_000


def span(type_: str, data: dict[str, Any] | None = None, **overrides: Any) -> Span:
    made = span_of(event_of(image(item(type_, 1, data, **overrides)), "test"))
    assert made is not None
    return made


def test_started_invocation_has_no_span_of_its_own() -> None:
    assert span_of(event_of(image(item("invocation_started", 1)), "test")) is None


def test_invocation_is_one_span_that_begins_when_it_began() -> None:
    root = span("invocation_completed", {"duration_ms": 1500}, span=INVOCATION, parent=None)
    assert (root.trace_id, root.span_id, root.parent_id) == (TRACE, INVOCATION, None)
    assert (root.end_ns, root.end_ns - root.start_ns) == (AT_NS, 1_500_000_000)
    assert (root.name, root.kind, root.error) == ("manager.agent", "server", None)
    assert root.attributes["agentops.span.kind"] == "agent"
    assert root.attributes["gen_ai.agent.name"] == "manager"
    assert root.resource["service.name"] == "manager"
    assert root.resource["deployment.environment.name"] == "test"


@settings(deadline=None)
@given(st.floats(min_value=0, max_value=900_000), st.integers(min_value=0, max_value=999_999))
def test_nothing_inside_an_invocation_starts_before_it(duration_ms: float, nanoseconds: int) -> None:
    """`at` is cut to milliseconds, `duration_ms` is not: the root must still come first."""
    began = AT_NS + nanoseconds
    ended_ms = (began + int(duration_ms * 1_000_000)) // 1_000_000
    at = f"{ended_ms}"
    root = span("invocation_completed", {"duration_ms": duration_ms}, at=_rfc3339(int(at)), parent=None)
    first_child = span("issue_detected", at=_rfc3339(began // 1_000_000))
    assert root.start_ns <= first_child.start_ns


def _rfc3339(ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def test_failed_invocation_says_why() -> None:
    error = {"type": "KeyError", "message": "'order'", "stack": "Traceback …"}
    failed = span("invocation_failed", {"duration_ms": 3, "error": error}, span=INVOCATION)
    assert failed.error == "KeyError: 'order'"
    assert failed.kind == "consumer"
    assert failed.attributes["error.type"] == "KeyError"
    assert failed.attributes["exception.stacktrace"] == "Traceback …"


def test_model_call_counts_cached_tokens_as_each_reader_expects() -> None:
    """Ours exclude cached tokens, OpenTelemetry includes them, AgentOps adds cache reads to the prompt."""
    attributes = span("llm_usage", LLM).attributes
    assert attributes["gen_ai.usage.input_tokens"] == 1000 + 200 + 30 + 4
    assert attributes["gen_ai.usage.cache_read.input_tokens"] == 200
    assert attributes["gen_ai.usage.cache_creation.input_tokens"] == 34
    prompt, completion = (attributes[f"gen_ai.usage.{name}_tokens"] for name in ("prompt", "completion"))
    assert (prompt, completion) == (1034, 500)
    read = attributes["gen_ai.usage.cache_read_input_tokens"]
    assert isinstance(prompt, int)
    assert isinstance(completion, int)
    assert isinstance(read, int)
    assert attributes["gen_ai.usage.total_tokens"] == prompt + completion + read


def test_model_call_is_a_client_span_with_length_and_the_ledgers_price() -> None:
    """What the agent was told (`cost_usd` in the data) is not the truth; the ledger's own price is."""
    call = span("llm_usage", LLM, cost_usd=Decimal("0.0525"))
    assert (call.name, call.kind) == ("chat claude-3-opus", "client")
    assert call.end_ns - call.start_ns == 813 * 1_000_000
    assert call.attributes["gen_ai.usage.total_cost"] == 0.0525
    assert call.attributes["agentops.cost.usd"] == "0.0525"
    assert call.attributes["agentops.cost.status"] == "priced"


def test_remarks_on_a_model_call_go_with_it() -> None:
    assert span("llm_usage", {**LLM, "metadata": {"step": 1}}).attributes["agentops.metadata"] == '{"step":1}'
    assert "agentops.metadata" not in span("llm_usage", LLM).attributes


def test_unpriced_call_says_so_and_claims_no_cost() -> None:
    attributes = span("llm_usage", LLM).attributes
    assert attributes["agentops.cost.status"] == "unpriced"
    assert "gen_ai.usage.total_cost" not in attributes
    assert "agentops.cost.usd" not in attributes


def test_free_call_is_priced_at_nothing() -> None:
    attributes = span("llm_usage", LLM, cost_usd=Decimal(0)).attributes
    assert attributes["agentops.cost.status"] == "priced"
    assert attributes["gen_ai.usage.total_cost"] == 0.0


def test_tiny_prices_stay_exact() -> None:
    attributes = span("llm_usage", LLM, cost_usd=Decimal("0.000000125")).attributes
    assert attributes["agentops.cost.usd"] == "0.000000125"


def test_decision_carries_its_whole_chain() -> None:
    import json

    data = {
        "decision_id": "d-1",
        "decision_type": "remediation",
        "reasoning_chain": CHAIN * 500,
        "inputs": {"metrics": [1, 2]},
        "outputs": "restart",
        "confidence_score": 0.92,
    }
    made = span("decision_made", data)
    assert json.loads(str(made.attributes["agent.reasoning"])) == CHAIN * 500
    assert json.loads(str(made.attributes["agentops.entity.input"])) == {"metrics": [1, 2]}
    assert made.attributes["agentops.entity.output"] == "restart"
    assert made.attributes["agentops.decision.confidence"] == 0.92
    assert made.name == "decision remediation.operation"


@pytest.mark.parametrize(("type_", "kind"), [("message_sent", "producer"), ("message_received", "consumer")])
def test_messages_name_both_agents(type_: str, kind: str) -> None:
    message = span(type_, {"from": "manager", "to": "engineer", "message_type": "issue.found", "hop": 1})
    assert message.kind == kind
    assert message.attributes["from_agent"] == "manager"
    assert message.attributes["to_agent"] == "engineer"


def test_workflow_end_decides_the_state_of_the_trace() -> None:
    done = span("workflow_completed", {"reason": "patched", "duration_ms": 90_000})
    failed = span("workflow_failed", {"reason": "gave up after 3 attempts"})
    assert (done.error, failed.error) == (None, "gave up after 3 attempts")
    assert done.start_ns == done.end_ns == AT_NS
    assert done.attributes["agentops.workflow.duration_ms"] == 90_000
    assert failed.attributes["agentops.session.end_state"] == "Error"


@pytest.mark.parametrize("type_", [str(type_) for type_ in AgentEventType] + ["backup_taken"])
def test_only_model_calls_look_like_model_calls(type_: str) -> None:
    """AgentOps draws a span by the end of its name, and by any gen_ai attribute where that says nothing."""
    made = span_of(event_of(image(item(type_, 1, LLM if type_ == "llm_usage" else {})), "test"))
    if made is None:
        assert type_ == "invocation_started"
        return
    ending = made.name.rpartition(".")[2]
    if type_ == "llm_usage":
        assert ending not in {"agent", "operation", "workflow", "session", "task", "tool"}
    else:
        assert ending == made.attributes["agentops.span.kind"]


@pytest.mark.parametrize(
    "broken",
    [
        {"trace_id": "0" * 32},
        {"trace_id": "not-hexadecimal"},
        {"span_id": "0" * 16},
        {"span_id": "abc"},
        {"parent_id": "0" * 16},
        {"at": "yesterday"},
        {"data": "{"},
        {"data": None},
        {"agent": ""},
    ],
)
def test_what_cannot_be_a_span_is_told(broken: dict[str, Any]) -> None:
    with pytest.raises(MalformedEvent):
        span_of(event_of(image({**item("issue_detected", 1), **broken}), "test"))


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
known_keys = st.sampled_from(
    [*LLM, "error", "hop", "reason", "reasoning_chain", "confidence_score", "from"]
    + ["score", "correct", "evidence", "decision_type", "remaining_ms", "metadata"]
    + [f"gen_ai.tool.{name}" for name in ("name", "call.arguments", "call.result")]
)


@settings(deadline=None)
@given(
    st.sampled_from([str(type_) for type_ in (*AgentEventType, *RECORDS) if type_ != "invocation_started"]),
    st.dictionaries(known_keys, json_values, max_size=6),
)
def test_odd_data_never_makes_a_span_that_cannot_be_encoded(type_: str, data: dict[str, Any]) -> None:
    """A span that fails to encode would fail its whole request, and every repetition of it."""
    made = span(type_, data | {"gen_ai.operation.name": "execute_tool"})
    assert 0 <= made.start_ns <= made.end_ns
    for text in (made.name, made.error or "", *made.resource.values()):
        text.encode()
    for value in [value for told in (made.attributes, *made.events.values()) for value in told.values()]:
        if isinstance(value, str | tuple):
            "".join(value).encode()
        else:
            assert isinstance(value, float) or abs(value) < 2**63


def test_same_event_same_span() -> None:
    assert span("llm_usage", LLM) == span("llm_usage", LLM)


def test_stretch_of_work_is_the_parent_of_what_is_inside() -> None:
    stretch = span("span", {"name": "fetch logs", "duration_ms": 40.5, "error": {"type": "TimeoutError"}})
    assert (stretch.name, stretch.error) == ("fetch logs.task", "TimeoutError")
    assert stretch.end_ns - stretch.start_ns == 41 * 1_000_000


@pytest.mark.parametrize(("status", "said"), [(429, "anthropic.RateLimitError: 429"), (None, None)])
def test_model_call_that_failed_is_a_client_span_without_tokens_or_cost(
    status: int | None, said: str | None
) -> None:
    error = {"type": "anthropic.RateLimitError"} | ({"status_code": status} if status else {})
    data = {
        "name": "chat claude-opus-4-8", "gen_ai.operation.name": "chat", "duration_ms": 40.5,
        "gen_ai.request.model": "claude-opus-4-8", "gen_ai.provider.name": "anthropic", "error": error,
    }  # fmt: skip
    made = span("span", data)
    assert (made.name, made.kind) == ("chat claude-opus-4-8", "client")
    assert made.error == (said or "anthropic.RateLimitError")
    assert made.end_ns - made.start_ns == 41 * 1_000_000
    assert made.attributes["agentops.span.kind"] == "llm"
    assert made.attributes["gen_ai.request.model"] == "claude-opus-4-8"
    assert made.attributes["gen_ai.provider.name"] == "anthropic"
    assert made.attributes["error.type"] == "anthropic.RateLimitError"
    assert not [name for name in made.attributes if "usage" in name or "cost" in name]


def test_span_of_an_agents_own_that_names_a_model_is_a_stretch_of_work() -> None:
    made = span("span", {"name": "ask", "gen_ai.request.model": "m", "error": None})
    assert (made.name, made.error) == ("ask.task", None)


def test_tool_is_told_in_both_vocabularies() -> None:
    data = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "search",
        "gen_ai.tool.call.arguments": {"query": "orders"},
        "gen_ai.tool.call.result": "3 found",
        "duration_ms": 12.5,
        "error": None,
    }
    made = span("span", data)
    assert (made.name, made.error) == ("execute_tool search.tool", None)
    assert made.end_ns - made.start_ns == 13 * 1_000_000
    told = made.attributes
    assert told["agentops.span.kind"] == "tool"
    assert told["gen_ai.tool.name"] == told["tool.name"] == "search"
    assert told["gen_ai.tool.call.arguments"] == told["tool.parameters"] == '{"query":"orders"}'
    assert told["gen_ai.tool.call.result"] == told["tool.result"] == "3 found"
    assert told["tool.status"] == "succeeded"


@pytest.mark.parametrize(
    ("error", "said", "kind"),
    [
        ({"type": "TimeoutError", "message": "no answer"}, "TimeoutError: no answer", "TimeoutError"),
        ("no answer", "Error: no answer", "Error"),
    ],
)
def test_tool_that_failed_says_why(error: Any, said: str, kind: str) -> None:
    made = span("span", {"gen_ai.operation.name": "execute_tool", "error": error})
    assert made.error == said
    assert made.attributes["error.type"] == kind
    assert made.attributes["tool.status"] == "failed"


@pytest.mark.parametrize(("correct", "label"), [(True, "correct"), (False, "incorrect"), (None, None)])
def test_outcome_of_a_decision_is_an_evaluation(correct: bool | None, label: str | None) -> None:
    data = {"decision_id": "d1", "correct": correct, "score": 0.75, "evidence": {"passed": 3}}
    made = span("decision_outcome", data | {"decision_type": "remediation"})
    assert made.name == "outcome remediation.operation"
    assert made.attributes["agentops.decision.id"] == "d1"
    assert made.attributes.get("agentops.decision.correct") is correct
    (told,) = made.events.values()
    assert list(made.events) == ["gen_ai.evaluation.result"]
    assert told["gen_ai.evaluation.name"] == "remediation"
    assert told["gen_ai.evaluation.score.value"] == 0.75
    assert told.get("gen_ai.evaluation.score.label") == label
    assert told["gen_ai.evaluation.explanation"] == '{"passed":3}'


def test_time_running_out_is_an_event_of_no_length() -> None:
    made = span("time_running_out", {"remaining_ms": 900, "duration_ms": 8100.0, "limit_ms": 9000})
    assert made.start_ns == made.end_ns
    assert made.events == {
        "time_running_out": {
            "agentops.time.remaining_ms": 900,
            "agentops.time.spent_ms": 8100.0,
            "agentops.time.limit_ms": 9000,
        }
    }


def test_annotation_names_its_call_and_adds_no_tokens() -> None:
    made = span("llm_annotation", {"annotates": "n-3", "gen_ai.request.model": "m", "metadata": {"step": 1}})
    assert made.attributes["agentops.annotates"] == "n-3"
    assert made.attributes["agentops.metadata"] == '{"step":1}'
    assert not [name for name in made.attributes if name.startswith("gen_ai.usage")]


def test_user_session_and_tags_are_attributes_where_they_are_known() -> None:
    told = span("issue_detected", user_id="u1", session_id="s1", tags='{"team":"shop","tries":2}').attributes
    assert (told["user.id"], told["session.id"]) == ("u1", "s1")
    assert told["agentops.tags"] == ("team:shop", "tries:2")
    assert not {"user.id", "session.id", "agentops.tags"} & span("issue_detected").attributes.keys()


def test_invocation_that_lambda_ended_closes_its_span() -> None:
    error = {"type": "Lambda.Timeout", "message": "timed out after 3.00 s"}
    data = {"error": error, "duration_ms": 3000.0, "source": "report"}
    root = span("invocation_failed", data, span=INVOCATION, parent=None)
    assert (root.span_id, root.error) == (INVOCATION, "Lambda.Timeout: timed out after 3.00 s")
    assert root.end_ns - root.start_ns == 3_000 * 1_000_000


def test_data_that_is_no_object_is_kept() -> None:
    event = event_of(image({**item("issue_detected", 1), "data": "[1,2]"}), "test")
    assert event.data == {"value": [1, 2]}

"""What a line says of a model call."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentops_monitoring import AgentOpsMonitor, llm, transport
from agentops_monitoring.ledger.parse import read_lines
from agentops_monitoring.pricing import TokenUsage, llm_cost
from agentops_monitoring.trace import TraceContext

from .conftest import Recorded, read_events
from .seen import EXAMPLES, MODEL, see


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    model=st.sampled_from(["claude-opus-4-8", "gpt-5.4", MODEL, "nobody-knows-it"]) | st.text(max_size=30),
    counts=st.tuples(*[st.none() | st.integers(0, 10**9)] * 5),
    tier=st.sampled_from(["standard", "batch", "fast", "standard@us"]) | st.text(max_size=20),
    region=st.none() | st.text(max_size=20),
    response_id=st.none() | st.text(max_size=20),
    duration=st.none() | st.floats() | st.integers(),
    extra=st.dictionaries(st.sampled_from(["web_searches", "input_audio_tokens"]), st.integers(1, 99)),
    metadata=st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.floats()),
)
def test_a_line_says_what_the_call_was(
    model: str,
    counts: tuple[int | None, ...],
    tier: str,
    region: str | None,
    response_id: str | None,
    duration: Any,
    extra: dict[str, int],
    metadata: Any,
) -> None:
    sink = Recorded()
    transport.replace(sink)
    problems: list[str] = []
    cost = llm._record(
        AgentOpsMonitor("a"), model, counts, tier, tuple(extra.items()), region, None, response_id, duration,
        "auto", problems, TraceContext("w"), metadata,
    )  # fmt: skip
    (event,) = read_events(sink.stream.getvalue())
    data = event["data"]
    assert tuple(data[field] for _, field in llm.TOKEN_FIELDS) == counts
    assert data["cost_usd"] == (None if cost is None else f"{cost:f}")
    if None not in counts:
        usage = TokenUsage._make((*counts, tier, tuple(extra.items())))
        assert cost == llm_cost(model, usage, region=region)
    assert data.get("extra_usage", {}) == extra
    for name, value in (("gen_ai.request.model", model), ("tier", tier), ("region", region)):
        if value is not None and value.isprintable():
            assert data[name] == value


def test_fees_without_a_price_are_named(recorded: Any) -> None:
    response = {
        "id": "resp_1", "model": "gpt-4.1", "output": [{"type": "code_interpreter_call"}],
        "usage": {"input_tokens": 1_000, "input_tokens_details": {}, "output_tokens": 0, "total_tokens": 1},
    }  # fmt: skip
    assert AgentOpsMonitor("a").track_llm_usage(response=response) == Decimal("0.002")
    (event,) = recorded()
    assert event["data"]["extra_usage"] == {"code_interpreter_calls": 1}
    assert event["problems"] == ["code_interpreter_calls are not in the price"]


def test_filters_apply_to_what_a_call_says(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def call() -> None:
        AgentOpsMonitor("a").track_llm_usage(
            model="secret-model", input_tokens=1, output_tokens=1, metadata={"k": "secret"}
        )

    call()
    monkeypatch.setattr("agentops_monitoring.redaction.filters", (lambda text: text.replace("secret", "*"),))
    call()
    before, event = recorded()
    assert before["data"]["gen_ai.request.model"] == "secret-model"
    assert event["data"]["gen_ai.request.model"] == "*-model"
    assert event["data"]["metadata"] == {"k": "*"}


class Text(str):
    """A text that raises when it is touched."""

    def _raise(self, *_: object) -> Any:
        raise RuntimeError("do not touch")

    __bool__ = __len__ = __str__ = __repr__ = __format__ = __eq__ = __iter__ = _raise
    __hash__ = _raise
    startswith = partition = lower = strip = _raise


@pytest.mark.parametrize("count", [10**12, 10**5000, -1, float("nan"), 2.5, "7", True], ids=type)
def test_what_is_no_number_of_tokens_is_said_and_nothing_is_lost(count: Any, recorded: Any) -> None:
    AgentOpsMonitor("a").track_llm_usage(model="gpt-4o", input_tokens=count, output_tokens=1)
    see(AgentOpsMonitor("a"), TokenUsage(10**5000, 1))
    reported, seen = recorded()
    assert reported["data"]["gen_ai.usage.input_tokens"] is None
    assert reported["problems"][0].startswith("input_tokens")
    assert seen["data"]["gen_ai.usage.input_tokens"] is None
    assert seen["data"]["cost_usd"] is None


def test_texts_that_raise_are_texts(recorded: Any) -> None:
    odd = Text("gpt-4o")
    cost = AgentOpsMonitor("a").track_llm_usage(
        model=odd, input_tokens=1_000_000, output_tokens=0, tier=Text("standard"), region=odd, provider=odd,
        response_id=odd,
    )  # fmt: skip
    (event,) = recorded()
    assert cost == Decimal("2.5")
    assert event["data"]["gen_ai.provider.name"] == "gpt-4o"


def test_strict_mode_names_the_argument(monkeypatch: pytest.MonkeyPatch, recorded: Any) -> None:
    monkeypatch.setenv("AGENTOPS_STRICT", "1")
    monitor = AgentOpsMonitor("a")
    for name, value in {"metadata": "v3", "tier": 3, "input_tokens": -1, "model": ""}.items():
        given: dict[str, Any] = {"model": "gpt-4o", "input_tokens": 1, "output_tokens": 1, name: value}
        with pytest.raises(ValueError, match=name):
            monitor.track_llm_usage(**given)
    assert recorded() == []


@pytest.mark.parametrize("model", ["claude-opus-4-8", MODEL, "gpt-5.4", "gpt-audio-mini", "my-own"])
@settings(max_examples=EXAMPLES // 5, deadline=None)
@given(
    counts=st.tuples(*[st.integers(0, 10**6)] * 5),
    tier=st.sampled_from(["standard", "batch", "fast@us"]),
    extra=st.dictionaries(
        st.sampled_from(["web_searches", "output_audio_tokens", "made_up"]), st.integers(1, 99)
    ),
)
def test_the_ledger_books_what_the_agent_was_told(
    model: str, counts: tuple[int, ...], tier: str, extra: dict[str, int]
) -> None:
    sink = Recorded()
    transport.replace(sink)
    usage = TokenUsage._make((*counts, tier, tuple(extra.items())))
    cost = see(AgentOpsMonitor("a"), usage, model=model, context=TraceContext("w"))
    (event,) = read_lines([sink.stream.getvalue()], "").events
    assert event.call is not None
    assert event.call.cost == cost
    assert event.call.usage == usage

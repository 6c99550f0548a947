"""Tokens and dollars of real response shapes, against sums made by hand from the providers' price pages.

Each shape in `model_responses.json` names where it was recorded or is documented, and its price page; texts
are shortened. The sum is of [count, USD per million] and knows nothing of the price book.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentops_monitoring import AgentOpsMonitor, responses
from agentops_monitoring.pricing import llm_cost

SHAPES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "model_responses.json").read_text()
)
AT = "2026-11-22T12:00:00.000Z"


def by_hand(shape: dict[str, Any]) -> Decimal:
    return sum((count * Decimal(usd) for count, usd in shape["usd"]), Decimal(0)) / 1_000_000


def read(shape: dict[str, Any], given: Any) -> responses.Reading:
    if shape["how"] == "response":
        return responses.read_response(given)
    if shape["how"] == "body":
        return responses.Reading(None, given.get("id"), responses.body_usage(given, shape.get("headers", {})))
    reader = responses.StreamReader()
    ended = [reader.see(event) for event in given]
    assert ended == [False] * (len(given) - 1) + [True]
    return reader.reading


def as_objects(value: Any) -> Any:
    """Return a shape as the objects of an SDK."""
    if isinstance(value, dict):
        return SimpleNamespace(**{key: as_objects(item) for key, item in value.items()})
    return [as_objects(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["name"])
def test_tokens_and_dollars_of_a_recorded_shape(shape: dict[str, Any]) -> None:
    found = read(shape, shape["given"])
    assert found.usage is not None
    assert list(found.usage[:5]) == shape["tokens"]
    assert found.usage.tier == shape["tier"]
    assert dict(found.usage.extra) == shape["extra"]
    assert found.response_id == shape["response_id"]
    model = shape["model"] or found.model
    assert model
    assert llm_cost(model, found.usage, at=AT, region=shape["region"]) == by_hand(shape)


@pytest.mark.parametrize(
    "shape", [each for each in SHAPES if each["region"] is None], ids=lambda shape: shape["name"]
)
def test_an_sdks_objects_say_the_same_as_their_json(shape: dict[str, Any]) -> None:
    given = shape["given"]
    objects = [as_objects(each) for each in given] if shape["how"] == "stream" else as_objects(given)
    assert read(shape, objects) == read(shape, given)


@pytest.mark.parametrize(
    "shape", [each for each in SHAPES if each["how"] == "response"], ids=lambda shape: shape["name"]
)
def test_a_response_that_is_reported_by_hand_has_its_tokens_and_price_in_the_line(
    shape: dict[str, Any], recorded: Any
) -> None:
    cost = AgentOpsMonitor("a").track_llm_usage(
        model=shape["model"], response=shape["given"], region=shape["region"]
    )
    assert cost == by_hand(shape)
    (event,) = recorded()
    data = event["data"]
    assert [data[name] for name in list(data) if "tokens" in name] == shape["tokens"]
    assert data.get("extra_usage", {}) == shape["extra"]
    assert Decimal(data["cost_usd"]) == cost
    assert data["tier"] == shape["tier"]
    assert "problems" not in event


@pytest.mark.parametrize(
    "shape", [each for each in SHAPES if each["how"] == "stream"], ids=lambda shape: shape["name"]
)
def test_a_stream_that_ends_early_has_no_tokens_it_does_not_know(shape: dict[str, Any]) -> None:
    reader = responses.StreamReader()
    for event in shape["given"][:-2]:
        assert not reader.see(event)
    usage = reader.reading.usage
    # Anthropic names the prompt's tokens first; what is known then is no more than what was billed.
    assert usage is None or all(
        known <= whole for known, whole in zip(usage[:5], shape["tokens"], strict=True)
    )


@pytest.mark.parametrize(
    "odd",
    [
        None, 3, "text", [], {}, {"usage": None}, {"usage": 3}, {"usage": {}}, {"usage": {"tokens": 3}},
        {"ResponseMetadata": None}, {"custom_id": "x"}, SimpleNamespace(usage=SimpleNamespace()), object(),
    ],
)  # fmt: skip
def test_what_is_no_response_says_nothing(odd: Any) -> None:
    assert responses.read_response(odd).usage is None
    reader = responses.StreamReader()
    reader.see(odd)
    assert reader.reading == (None, None, None)


def test_inference_that_costs_otherwise_is_told_and_unpriced() -> None:
    """The book has no prices for it: https://aws.amazon.com/bedrock/pricing/, latency optimized, flex."""
    usage = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}
    headers = {"x-amzn-bedrock-input-token-count": "10", "x-amzn-bedrock-output-token-count": "5"}
    found = [
        responses.converse_usage({"usage": usage, "performanceConfig": {"latency": "optimized"}}),
        responses.body_usage({}, {**headers, "x-amzn-bedrock-performanceconfig-latency": "optimized"}),
        responses.converse_usage({"usage": usage, "serviceTier": {"type": "flex"}}),
        responses.body_usage({}, {**headers, "x-amzn-bedrock-service-tier": "flex"}),
    ]
    assert [each and each.tier for each in found] == ["optimized", "optimized", "flex", "flex"]
    for each in found:
        assert each is not None
        assert each[:2] == (10, 5)
        assert llm_cost("us.amazon.nova-pro-v1:0", each) is None
        assert llm_cost("us.amazon.nova-pro-v1:0", each._replace(tier="standard")) is not None


def test_what_a_stream_writes_to_a_cache_after_its_start_lives_as_long() -> None:
    reader = responses.StreamReader()
    start = {
        "input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 100,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 100},
    }  # fmt: skip
    reader.see({"type": "message_start", "message": {"id": "m", "model": "claude-opus-4-8", "usage": start}})
    total = {"output_tokens": 9, "cache_creation_input_tokens": 150}
    reader.see({"type": "message_delta", "delta": {}, "usage": total})
    usage = reader.reading.usage
    assert usage is not None
    assert usage[:5] == (1, 9, 0, 0, 150)

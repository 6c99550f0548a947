"""The worst case of a call: never below what it can take, whatever stands in its request."""

from __future__ import annotations

import json
import unicodedata
from decimal import Decimal, Inexact, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentops_monitoring import pricing
from agentops_monitoring.enforcement import bounds, prices
from agentops_monitoring.enforcement.bounds import Bound, Unbounded

TEXTS = st.text(st.characters(codec="utf-8"), max_size=200) | st.text("ﷺ½字e\u0301🧮", max_size=50)
KINDS = ("anthropic", "chat", "responses", "converse", "invoke", "embeddings")


def request(kind: str, texts: list[str], limit: int) -> tuple[str, str, Any]:
    """Return a request of each kind that holds these texts, in this and that place."""
    said = [{"role": "user", "content": text} for text in texts]
    if kind == "anthropic":
        tools = [{"name": "t", "description": texts[0], "input_schema": {"type": "object"}}]
        return "anthropic", "/v1/messages", {"messages": said, "tools": tools, "max_tokens": limit}
    if kind == "chat":
        return "openai", "/chat/completions", {"messages": said, "max_completion_tokens": limit}
    if kind == "responses":
        return "openai", "/responses", {"input": said, "max_output_tokens": limit}
    if kind == "embeddings":
        return "openai", "/embeddings", {"input": texts}
    if kind == "converse":
        blocks = [{"role": "user", "content": [{"text": text}]} for text in texts]
        body: Any = {"messages": blocks, "inferenceConfig": {"maxTokens": limit}}
        return "converse", "", json.dumps(body).encode()
    body = {"anthropic_version": "bedrock-2023-05-31", "messages": said, "max_tokens": limit}
    return "invoke", "", json.dumps(body)


@given(st.sampled_from(KINDS), st.lists(TEXTS, min_size=1, max_size=4), st.integers(1, 100_000))
def test_there_are_no_more_tokens_than_bytes(kind: str, texts: list[str], limit: int) -> None:
    (bound,) = bounds.of_request(*request(kind, texts, limit))
    assert bound.input_tokens is not None
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        # One token a byte is what a tokenizer falls back on; a provider adds some to each message.
        pieces = sum(len(unicodedata.normalize(form, text).encode()) + 4 for text in texts)
        assert bound.input_tokens >= pieces
    assert bound.output_tokens == (0 if kind == "embeddings" else limit)


@pytest.mark.parametrize(("text", "grown"), [("ﷺ" * 1000, 33_000), ("é" * 1000, 3000), ("a" * 1000, 1000)])
def test_a_text_that_grows_when_it_is_normalized(text: str, grown: int) -> None:
    assert grown <= bounds.weight(text) <= grown + 100


@given(
    st.sampled_from([f"{each.provider}/{each.id}" for each in pricing.price_book().models()]),
    st.tuples(*[st.integers(0, 400_000)] * 5),
    st.integers(0, 100_000),
    st.booleans(),
)
def test_no_call_within_its_bound_costs_more_than_its_worst_case(
    model: str, counts: tuple[int, int, int, int, int], more: int, cached: bool
) -> None:
    fresh, output, read, written, hour = counts
    if not cached:
        written = hour = 0
    try:
        most = prices.worst_case(
            model, None, [Bound(fresh + read + written + hour + more, output + more, cached=cached)]
        )
    except Unbounded:
        return
    cost = pricing.llm_cost(model, pricing.TokenUsage(fresh, output, read, written, hour))
    assert cost is None or cost <= most


NOTHING: list[Any] = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    ("kind", "path", "body", "expected"),
    [
        ("anthropic", "/v1/messages", {"max_tokens": 9, "thinking": {"budget_tokens": 50}}, 50),
        ("anthropic", "/v1/messages", {"messages": NOTHING}, None),
        ("openai", "/chat/completions", {"messages": NOTHING, "max_tokens": 7}, 7),
        ("openai", "/chat/completions", {"messages": NOTHING}, None),
        ("openai", "/completions", {"prompt": "x"}, 16),
        ("converse", "", {"messages": [], "inferenceConfig": {"maxTokens": 5}}, 5),
        (
            "converse",
            "",
            {"inferenceConfig": {"maxTokens": 5}, "additionalModelRequestFields": {"max_tokens": 80}},
            80,
        ),
        (
            "openai",
            "/chat/completions",
            {"messages": NOTHING, "max_tokens": 7, "prediction": {"type": "content", "content": "y" * 90}},
            7 + len("typecontentcontent") + 90 + 2 + 4,  # what was predicted and is not so is billed too
        ),
        ("invoke", "", {"prompt": "x", "max_gen_len": 12}, 12),
        ("invoke", "", {"inputText": "x", "textGenerationConfig": {"maxTokenCount": 13}}, 13),
        ("invoke", "", {"messages": [], "inferenceConfig": {"max_new_tokens": 14}}, 14),
        ("invoke", "", {"prompt": "x"}, None),
    ],
)
def test_the_limit_of_an_answer(kind: str, path: str, body: Any, expected: int | None) -> None:
    sent = json.dumps(body) if kind in ("converse", "invoke") else body
    (bound,) = bounds.of_request(kind, path, sent)
    assert bound.output_tokens == expected


PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}
MORE_THAN_TEXT: dict[str, tuple[str, str, Any]] = {
    "a picture": ("anthropic", "/v1/messages", {"messages": [{"role": "user", "content": [PICTURE]}]}),
    "a picture that a tool answered": (
        "anthropic",
        "/v1/messages",
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [PICTURE]}]}]},
    ),
    "a picture's address": (
        "openai",
        "/chat/completions",
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}
            ]
        },
    ),
    "an audio that was answered": (
        "openai",
        "/chat/completions",
        {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]},
    ),
    "a conversation": ("openai", "/responses", {"input": "x", "previous_response_id": "resp_1"}),
    "reasoning that the provider keeps": (
        "openai",
        "/responses",
        {"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]},
    ),
    "a thread": ("anthropic", "/v1/messages", {"thread": {"type": "continue"}, "messages": NOTHING}),
    "what Gemini keeps": (
        "openai",
        "/chat/completions",
        {"messages": NOTHING, "extra_body": {"google": {"cached_content": "cachedContents/1"}}},
    ),
    "an image among inputs": ("invoke", "", {"inputs": [{"content": [{"type": "image_url"}]}]}),
    "a file": ("openai", "/responses", {"input": [{"role": "user", "content": [{"type": "input_file"}]}]}),
    "a document": (
        "converse",
        "",
        {
            "messages": [
                {"role": "user", "content": [{"document": {"name": "d", "source": {"s3Location": {}}}}]}
            ]
        },
    ),
    "an image to Nova": ("invoke", "", {"messages": [{"role": "user", "content": [{"image": {}}]}]}),
    "an image to embed": ("invoke", "", {"inputImage": "iVBO"}),
}


@pytest.mark.parametrize("what", MORE_THAN_TEXT)
def test_what_no_byte_bounds_takes_the_context_window(what: str) -> None:
    kind, path, body = MORE_THAN_TEXT[what]
    (bound,) = bounds.of_request(kind, path, json.dumps(body) if kind in ("converse", "invoke") else body)
    assert bound.input_tokens is None
    # 200,000 tokens at $3 a million, and 5 % for windows that are told in round numbers.
    cost = prices.worst_case(
        "claude-sonnet-4-5", None, [bound._replace(output_tokens=0, cached=False, audio=False)]
    )
    assert Decimal("0.6") < cost < Decimal("2")


@pytest.mark.parametrize(
    ("kind", "path", "body", "why"),
    [
        ("anthropic", "/v1/messages", {"mcp_servers": [{"url": "https://x"}]}, "MCP"),
        ("anthropic", "/v1/messages", {"tools": [{"type": "code_execution_20250825"}]}, "code_execution"),
        ("anthropic", "/v1/messages", {"context_management": {"edits": [{"type": "compact"}]}}, "compacts"),
        ("anthropic", "/v1/messages", {"fallbacks": [{"model": "claude-opus-5"}]}, "other models"),
        ("anthropic", "/v1/messages", {"compaction": {"type": "auto"}}, "compacts"),
        ("openai", "/responses", {"tools": [{"type": "file_search"}]}, "file_search"),
        ("openai", "/responses", {"context_management": [{"type": "compaction"}]}, "compacts"),
        ("openai", "/chat/completions", {"messages": [], "web_search_options": {}}, "web"),
        ("openai", "/chat/completions", {"messages": [], "modalities": ["text", "audio"]}, "audio"),
        ("openai", "/audio/speech", {"input": "x"}, "audio/speech"),
        ("converse", "", {"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}}, "tool"),
        ("openai", "/chat/completions", {"messages": [object()]}, "object"),
        ("invoke", "", object(), "no text"),
        ("openai", "/embeddings", None, "JSON object"),
    ],
)
def test_what_nothing_bounds(kind: str, path: str, body: Any, why: str) -> None:
    sent = json.dumps(body) if kind == "converse" else body
    with pytest.raises(Unbounded, match=why):
        bounds.of_request(kind, path, sent)


def test_many_marks_on_a_letter_are_counted_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """To put them in order takes the square of their number: minutes for a text of a megabyte."""
    seen: list[int] = []

    def normalize(form: Any, text: str) -> str:
        seen.append(len(text))
        return unicodedata.normalize(form, text)

    bounds._longest.cache_clear()
    monkeypatch.setattr(bounds, "normalize", normalize)
    assert bounds.weight("a" + "\u0301\u0323" * 500) == 1 + 4 * 500
    assert set(seen) == {1}


def worst_of(model: str, kind: str, path: str, body: Any) -> Decimal:
    return prices.worst_case(model, None, bounds.of_request(kind, path, body))


def test_sound_and_pictures_count_at_their_own_price() -> None:
    def chat(part: Any) -> Any:
        return {"messages": [{"role": "user", "content": [part]}], "max_tokens": 1000}

    sound = chat({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}})
    usage = pricing.TokenUsage(0, 0, extra=(("input_audio_tokens", 128_000),))
    billed = pricing.llm_cost("gpt-audio", usage)
    assert billed is not None
    assert worst_of("gpt-audio", "openai", "/chat/completions", sound) > billed
    with pytest.raises(Unbounded, match="audio has no price"):
        worst_of("gpt-4o", "openai", "/chat/completions", sound)
    made = pricing.llm_cost(
        "gemini-2.5-flash-image", pricing.TokenUsage(0, 0, extra=(("output_image_tokens", 1000),))
    )
    assert made is not None
    words = chat({"type": "text", "text": "Draw audio"})
    assert worst_of("gemini-2.5-flash-image", "openai", "/chat/completions", words) > made


@pytest.mark.parametrize("betas", ["", "context-1m-2025-08-07"])
def test_a_longer_window_on_demand(betas: str) -> None:
    body = {"messages": [{"role": "user", "content": [PICTURE]}], "max_tokens": 1}
    worst = worst_of("claude-sonnet-4-5", "anthropic", f"/v1/messages?{betas}", body)
    full = pricing.llm_cost("claude-sonnet-4-5", pricing.TokenUsage(1_000_000, 0))
    assert full is not None
    assert (worst > full) is bool(betas)
    within = {"anthropic_version": "bedrock-2023-05-31", "anthropic_beta": [betas], **body}
    assert (worst_of("claude-sonnet-4-5", "invoke", "", json.dumps(within)) > full) is bool(betas)


def test_several_answers_of_a_model_behind_bedrock() -> None:
    body = {"inferenceConfig": {"maxTokens": 5}, "additionalModelRequestFields": {"n": 3}}
    (bound,) = bounds.of_request("converse", "", json.dumps(body))
    assert bound.answers == 3


@pytest.mark.parametrize(
    ("prompt", "more", "answers"),
    [
        ("x", {}, 1),
        (["x", "y"], {}, 2),
        ([[1, 2], [3]], {"n": 2}, 4),
        ([1, 2, 3], {"best_of": 3}, 3),
    ],
)
def test_each_prompt_of_a_completion_is_answered(prompt: Any, more: Any, answers: int) -> None:
    (bound,) = bounds.of_request("openai", "/completions", {"prompt": prompt, **more})
    assert bound.answers == answers


def test_what_a_provider_puts_around_a_short_message_is_allowed_for() -> None:
    for kind, path, body in (
        ("anthropic", "/v1/messages", {"messages": []}),
        ("openai", "/chat/completions", {"messages": []}),
        ("converse", "", b"{}"),
        ("invoke", "", b"{}"),
    ):
        (bound,) = bounds.of_request(kind, path, body)
        assert bound.input_tokens is not None
        assert bound.input_tokens >= 500


def test_the_agents_own_arithmetic_changes_nothing() -> None:
    body = {"messages": [{"role": "user", "content": "x" * 1234}], "max_tokens": 98_765}
    asked = "claude-haiku-4-5", "anthropic", "/v1/messages", body
    exact = worst_of(*asked)
    with localcontext() as context:
        context.prec = 2
        context.traps[Inexact] = True
        assert worst_of(*asked) == exact


def test_more_than_any_budget_is_no_bound() -> None:
    with pytest.raises(Unbounded, match="any budget"):
        worst_of("claude-haiku-4-5", "anthropic", "/v1/messages", {"messages": [], "max_tokens": 10**22})


def test_tools_of_the_agents_own_are_bounded() -> None:
    own = [{"type": "bash_20250124", "name": "bash"}, {"type": "text_editor_20250728", "name": "edit"}]
    (bound,) = bounds.of_request("anthropic", "/v1/messages", {"messages": NOTHING, "tools": own})
    assert bound.input_tokens is not None
    assert bound.input_tokens > 530 + 700 + 245


def test_the_dearest_tier_that_may_serve_it_counts() -> None:
    def worst(tier: str) -> Decimal:
        body = {"messages": NOTHING, "max_tokens": 1_000_000, "service_tier": tier}
        return round(
            prices.worst_case("gpt-5", None, bounds.of_request("openai", "/chat/completions", body)), 0
        )

    assert worst("default") == worst("flex") == 10
    assert worst("auto") == worst("priority") == 20  # the project may have set it
    in_us = prices.worst_case("claude-opus-4-6", None, [Bound(1000, 0, tiers=("standard", "standard@us"))])
    assert in_us == Decimal("0.0055")  # 1.1 times $5 a million


def test_a_tier_that_is_asked_for_and_has_no_price() -> None:
    body = {"messages": [], "inferenceConfig": {"maxTokens": 5}, "serviceTier": {"type": "priority"}}
    found = bounds.of_request("converse", "", json.dumps(body))
    haiku = "anthropic.claude-3-haiku-20240307-v1:0"
    with pytest.raises(Unbounded, match="price"):
        prices.worst_case(haiku, "us-east-1", found)
    # What is cheaper than standard, and may be served as that.
    body["serviceTier"] = {"type": "flex"}
    flex = bounds.of_request("converse", "", json.dumps(body))
    del body["serviceTier"]
    standard = bounds.of_request("converse", "", json.dumps(body))
    assert prices.worst_case(haiku, "us-east-1", flex) >= prices.worst_case(haiku, "us-east-1", standard)


def test_windows_are_those_of_models_in_the_book() -> None:
    names = {pricing.resolve(f"{each.provider}/{each.id}") for each in pricing.price_book().models()}
    assert set(prices.windows()) <= names
    assert len(prices.windows()) > 200
    assert prices.windows()["claude-haiku-4-5"] == 200_000

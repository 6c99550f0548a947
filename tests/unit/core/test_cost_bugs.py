"""Cost bugs that users of other tools reported, each as a case here; the thread is named with it.

Figures are those of the thread where it has any. Dollars are sums made by hand: tokens times USD per million.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from agentops_monitoring import AgentOpsMonitor, llm, responses, trace
from agentops_monitoring.pricing import TokenUsage, llm_cost

GITHUB = "https://github.com/"
AT = "2026-11-22T12:00:00.000Z"


def usd(*parts: tuple[int, str]) -> Decimal:
    return sum((count * Decimal(price) for count, price in parts), Decimal(0)) / 1_000_000


def openai(prompt: int, output: int, cached: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": cached},
        **more,
    }


def response(model: str, usage: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "id-1", "model": model, "usage": usage, **more}


def cost_of(answer: dict[str, Any]) -> Decimal | None:
    read = responses.read_response(answer)
    assert read.model is not None
    assert read.usage is not None
    return llm_cost(read.model, read.usage, at=AT)


def stream(*events: dict[str, Any]) -> TokenUsage:
    reader = responses.StreamReader()
    for event in events[:-1]:
        assert not reader.see(event)
    reader.see(events[-1])
    usage = reader.reading.usage
    assert usage is not None
    return usage


def record(model: str, usage: TokenUsage | None, response_id: str, *problems: str) -> None:
    """Record a call as our instrumentation does."""
    llm.record_call(
        AgentOpsMonitor("a"), model=model, tier="standard", region=None, provider=None,
        tokens={name: getattr(usage, name, None) for name, _ in llm.TOKEN_FIELDS}, response_id=response_id,
        duration_ms=1.0, problems=[*problems], context=trace.current(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("thread", "answer", "expected"),
    [
        (
            # Cached tokens, a part of the prompt, were added to it: 35,720 instead of 17,903.
            "langfuse/langfuse/issues/10592",
            response("gpt-5", openai(17_903, 10, 17_817)),
            usd((86, "1.25"), (17_817, "0.125"), (10, "10")),
        ),
        (
            # Anthropic's parts, each apart from the others, were added up and then priced once more.
            "langfuse/langfuse/issues/12306",
            response(
                "claude-opus-4-8",
                {
                    "input_tokens": 5, "cache_read_input_tokens": 128_955,
                    "cache_creation_input_tokens": 1_253, "output_tokens": 0,
                },
            ),
            usd((5, "5"), (128_955, "0.5"), (1_253, "6.25")),
        ),
        (
            # The fresh tokens cost nothing, as the cached ones "exceeded" the input and it was cut off at 0.
            "langchain-ai/langsmith-sdk/pull/2519",
            response(
                "claude-haiku-4-5",
                {"input_tokens": 19, "cache_read_input_tokens": 39_000, "output_tokens": 0},
            ),
            usd((19, "1"), (39_000, "0.1")),
        ),
        (
            # What was written to a cache counted twice: in all, and as of five minutes.
            "langchain-ai/langsmith-sdk/issues/2150",
            response(
                "claude-opus-4-8",
                {
                    "input_tokens": 0, "output_tokens": 0, "cache_creation_input_tokens": 951_000,
                    "cache_creation": {
                        "ephemeral_5m_input_tokens": 951_000, "ephemeral_1h_input_tokens": 0,
                    },
                },
            ),
            usd((951_000, "6.25")),
        ),
        (
            # Tokens written for an hour were priced as for five minutes.
            "earendil-works/pi/issues/5603",
            response(
                "claude-opus-4-8",
                {
                    "input_tokens": 0, "output_tokens": 0, "cache_creation_input_tokens": 1_000_000,
                    "cache_creation": {
                        "ephemeral_5m_input_tokens": 600_000, "ephemeral_1h_input_tokens": 400_000,
                    },
                },
            ),
            Decimal("7.75"),
        ),
        (
            # Cached tokens were priced as fresh ones.
            "openlit/openlit/issues/1378",
            response(
                "claude-opus-4-8",
                {
                    "input_tokens": 200, "cache_read_input_tokens": 5_000,
                    "cache_creation_input_tokens": 1_000, "output_tokens": 300,
                },
            ),
            usd((200, "5"), (5_000, "0.5"), (1_000, "6.25"), (300, "25")),
        ),
        (
            # Reasoning, a part of the output, was billed again: $1.04 instead of $0.79.
            "anomalyco/opencode/issues/17566",
            response(
                "gpt-5.4-pro",
                openai(14_746, 1_944, completion_tokens_details={"reasoning_tokens": 1_360}),
            ),
            usd((14_746, "30"), (1_944, "180")),
        ),
        (
            # Flex was priced as standard.
            "BerriAI/litellm/issues/13810",
            response(
                "gpt-5-nano",
                {
                    "input_tokens": 1_000, "output_tokens": 500, "total_tokens": 1_500,
                    "input_tokens_details": {"cached_tokens": 0},
                },
                service_tier="flex",
            ),
            usd((1_000, "0.025"), (500, "0.2")),
        ),
        (
            # Only the undated name knew its tiers, and the response has the dated one.
            "BerriAI/litellm/pull/22086",
            response("o4-mini-2025-04-16", openai(1_000, 500), service_tier="flex"),
            usd((1_000, "0.55"), (500, "2.2")),
        ),
        (
            # The tier that was asked for was billed; the response says which one served.
            "BerriAI/litellm/issues/31837",
            response("gpt-5", openai(1_000, 500), service_tier="default"),
            usd((1_000, "1.25"), (500, "10")),
        ),
        (
            # Each kind was held against the limit by itself, and only what lay above it cost more.
            "junhoyeo/tokscale/issues/862",
            response("gpt-5.5", openai(278_476, 630, 7_936)),
            usd((270_540, "10"), (7_936, "1"), (630, "45")),
        ),
        (
            # The limit itself was taken for above it, and what lies above was ignored altogether.
            "comet-ml/opik/issues/6982",
            response("gpt-5.5", openai(272_000, 0)),
            usd((272_000, "5")),
        ),
        (
            # Searches were left out of the price.
            "langfuse/langfuse/issues/15856",
            response(
                "claude-opus-4-8",
                {
                    "input_tokens": 9_548, "output_tokens": 528,
                    "server_tool_use": {"web_search_requests": 2},
                },
            ),
            usd((9_548, "5"), (528, "25")) + Decimal("0.02"),
        ),
        (
            # OpenAI's usage says nothing of searches; they stand in the output.
            "BerriAI/litellm/issues/15227",
            response(
                "gpt-5",
                {
                    "input_tokens": 100, "output_tokens": 4_619, "total_tokens": 4_719,
                    "input_tokens_details": {"cached_tokens": 0},
                },
                output=[{"type": "web_search_call", "action": {"type": "search"}}, {"type": "message"}],
            ),
            usd((100, "1.25"), (4_619, "10")) + Decimal("0.01"),
        ),
        (
            # A search that was offered and not made was billed.
            "BerriAI/litellm/issues/10384",
            response(
                "gpt-4.1",
                {
                    "input_tokens": 100, "output_tokens": 10, "total_tokens": 110,
                    "input_tokens_details": {"cached_tokens": 0},
                },
                tools=[{"type": "web_search", "search_context_size": "medium"}],
                output=[{"type": "message"}],
            ),
            usd((100, "2"), (10, "8")),
        ),
        (
            # Audio at the price of text: a sixteenth.
            "langwatch/langwatch/issues/7036",
            response(
                "gpt-audio-mini",
                openai(15, 47, completion_tokens_details={"text_tokens": 13, "audio_tokens": 34}),
            ),
            usd((15, "0.6"), (13, "2.4"), (34, "20")),
        ),
        (
            # A batch at the price of a call.
            "BerriAI/litellm/pull/9077",
            {"custom_id": "1", "response": {"body": response("gpt-5", openai(1_000, 500))}},
            usd((1_000, "0.625"), (500, "5")),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_reported_dollars(thread: str, answer: dict[str, Any], expected: Decimal) -> None:
    assert cost_of(answer) == expected, GITHUB + thread


# Bedrock.


@pytest.mark.parametrize(
    ("thread", "model", "usage", "expected"),
    [
        (
            # Cached tokens, in the total and not in the input, were billed as output: $0.20 for $0.0048.
            "Arize-ai/phoenix/issues/10036",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            {
                "inputTokens": 3, "outputTokens": 12, "totalTokens": 13_256,
                "cacheReadInputTokens": 13_216, "cacheWriteInputTokens": 25,
            },
            usd((3, "3.3"), (12, "16.5"), (13_216, "0.33"), (25, "4.125")),
        ),
        (
            # Output was taken as the total less the input.
            "Arize-ai/phoenix/issues/10783",
            "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
            {
                "inputTokens": 3, "outputTokens": 442, "totalTokens": 8_712,
                "cacheReadInputTokens": 7_917, "cacheWriteInputTokens": 350,
            },
            usd((3, "3"), (442, "15"), (7_917, "0.3"), (350, "3.75")),
        ),
        (
            # The cached ones were taken off an input that has none: negative tokens, negative dollars.
            "langchain-ai/langsmith-sdk/issues/1858",
            "global.anthropic.claude-haiku-4-5-20251001-v1:0",
            {"inputTokens": 19, "outputTokens": 0, "totalTokens": 39_019, "cacheReadInputTokens": 39_000},
            usd((19, "1"), (39_000, "0.1")),
        ),
        (
            # Cached tokens were dropped at the door.
            "UKGovernmentBEIS/inspect_ai/issues/4961",
            "global.anthropic.claude-haiku-4-5-20251001-v1:0",
            {
                "inputTokens": 10, "outputTokens": 0, "totalTokens": 1_010,
                "cacheReadInputTokens": 600, "cacheWriteInputTokens": 400,
            },
            usd((10, "1"), (600, "0.1"), (400, "1.25")),
        ),
        (
            # A geographic profile costs a tenth more than the global one.
            "BerriAI/litellm/issues/19308",
            "us.anthropic.claude-opus-4-5-20251101-v1:0",
            {"inputTokens": 1_000_000, "outputTokens": 0, "totalTokens": 1_000_000},
            Decimal("5.5"),
        ),
        (
            # So does a call without any profile.
            "BerriAI/litellm/issues/42679",
            "anthropic.claude-sonnet-4-6",
            {"inputTokens": 1_000_000, "outputTokens": 0, "totalTokens": 1_000_000},
            Decimal("3.3"),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.count("/") > 2 else "",
)  # fmt: skip
def test_reported_dollars_of_bedrock(
    thread: str, model: str, usage: dict[str, int], expected: Decimal
) -> None:
    read = responses.read_response({"ResponseMetadata": {"RequestId": "r"}, "usage": usage})
    assert read.usage is not None
    assert llm_cost(model, read.usage, at=AT, region="us-east-1") == expected, GITHUB + thread


def test_an_application_inference_profile_is_unpriced_and_never_free(recorded: Any) -> None:
    """https://github.com/langfuse/langfuse/issues/13325: always 0."""
    profile = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/a1b2c3"
    cost = AgentOpsMonitor("a").track_llm_usage(model=profile, input_tokens=10, output_tokens=10)
    assert cost is None
    (event,) = recorded()
    assert event["data"]["cost_usd"] is None


def test_a_profiles_arn_is_its_model() -> None:
    """https://github.com/anthropics/anthropic-sdk-python/issues/894: callers have to pass the ARN."""
    arn = "arn:aws:bedrock:us-east-1:0:inference-profile/us.anthropic.claude-3-7-sonnet-20250219-v1:0"
    assert llm_cost(arn, TokenUsage(1_000_000, 0)) == 3


@pytest.mark.parametrize("model", ["claude-opus-4-5", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"])
def test_a_name_that_is_no_key_of_the_table_has_a_price(model: str) -> None:
    """https://github.com/kunchenguid/axi/issues/92: missing from the table, silently $0."""
    cost = llm_cost(model, TokenUsage(1_000_000, 0))
    assert cost is not None
    assert cost > 0


@pytest.mark.parametrize("model", ["glm-77", "claude-opus-99", "gpt-99-mini"])
def test_a_model_of_tomorrow_has_no_price_of_today(model: str) -> None:
    """https://github.com/tuo-lei/vibe-replay/pull/429: unknown models were priced as Sonnet."""
    assert llm_cost(model, TokenUsage(1_000, 1_000)) is None


# Streams.


def started(**usage: int) -> dict[str, Any]:
    return {"type": "message_start", "message": {"id": "m", "model": "claude-opus-4-8", "usage": usage}}


def progress(**usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}


@pytest.mark.parametrize(
    ("thread", "events", "expected"),
    [
        (
            # The first count was added to the total that contains it.
            "traceloop/openllmetry/pull/4377",
            [started(input_tokens=17, output_tokens=1), progress(output_tokens=15)],
            (17, 15, 0, 0, 0),
        ),
        (
            # The prompt and its cached part stand in both events.
            "envoyproxy/ai-gateway/pull/2239",
            [
                started(input_tokens=9, cache_read_input_tokens=1, output_tokens=0),
                progress(input_tokens=9, cache_read_input_tokens=1, output_tokens=16),
            ],
            (9, 16, 1, 0, 0),
        ),
        (
            # There may be several, each a total.
            "LibreChat-AI/agents/pull/150",
            [
                started(input_tokens=27, output_tokens=1),
                progress(output_tokens=20),
                progress(output_tokens=47),
            ],
            (27, 47, 0, 0, 0),
        ),
        (
            # The first count was kept, and the total ignored.
            "ccusage/ccusage/issues/938",
            [started(input_tokens=25, output_tokens=2), progress(output_tokens=89)],
            (25, 89, 0, 0, 0),
        ),
        (
            # A server's tool makes the prompt longer after its start.
            "langchain-ai/langchain/pull/32461",
            [
                started(input_tokens=2_679, output_tokens=3),
                progress(input_tokens=10_682, output_tokens=510, server_tool_use={"web_search_requests": 1}),
            ],
            (10_682, 510, 0, 0, 0),
        ),
        (
            # A chunk without choices comes first on Azure, and chunks of other servers count on.
            "AgentOps-AI/agentops/issues/1082",
            [
                {"id": "", "model": "", "choices": [], "usage": None},
                {"id": "c", "model": "gpt-4o", "choices": [{}], "usage": openai(11, 1)},
                {"id": "c", "model": "gpt-4o", "choices": [{}], "usage": openai(11, 2)},
                {"id": "c", "model": "gpt-4o", "choices": [], "usage": openai(11, 3)},
            ],
            (11, 3, 0, 0, 0),
        ),
        (
            # Bedrock's counts come in the last event alone.
            "BerriAI/litellm/issues/9577",
            [
                {"messageStart": {"role": "assistant"}},
                {"messageStop": {"stopReason": "end_turn"}},
                {"metadata": {"usage": {"inputTokens": 9, "outputTokens": 4, "totalTokens": 13}}},
            ],
            (9, 4, 0, 0, 0),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_reported_tokens_of_streams(
    thread: str, events: list[dict[str, Any]], expected: tuple[int, ...]
) -> None:
    assert stream(*events)[:5] == expected, GITHUB + thread


def test_an_interrupted_stream_is_unknown_and_never_zero(recorded: Any) -> None:
    """https://github.com/PostHog/posthog-js/pull/4664: an interrupted stream was reported as 0 tokens."""
    reader = responses.StreamReader()
    reader.see({"id": "c", "model": "gpt-4o", "choices": [{"delta": {"content": "a"}}], "usage": None})
    assert reader.reading.usage is None
    record("gpt-4o", None, "c", "the stream was not read to its end")
    (event,) = recorded()
    assert event["data"]["gen_ai.usage.output_tokens"] is None
    assert event["data"]["cost_usd"] is None
    assert event["problems"]


# Wrong figures.


@pytest.mark.parametrize(
    "usage",
    [
        openai(100, 10, 400),
        {"input_tokens": 100, "output_tokens": 10, "input_tokens_details": {"cached_tokens": 400}},
        {"prompt_tokens": 100, "completion_tokens": 10, "cache_read_input_tokens": 400,
         "prompt_tokens_details": {"cached_tokens": 400}},
    ],
)  # fmt: skip
def test_more_cached_than_prompt_is_never_negative(usage: dict[str, Any]) -> None:
    """https://github.com/dotnet/dev-proxy/pull/1613: cached above the input made negative tokens.

    A server that speaks OpenAI's protocol and leaves the cached ones out of the prompt reports such figures.
    """
    assert TokenUsage.from_openai(usage)[:3] == (100, 10, 400)


@pytest.mark.parametrize(
    ("thread", "usage", "expected"),
    [
        (
            # Grok's reasoning is a part of the total and not of the output: 2,809 tokens were free.
            "Wei-Shaw/sub2api/issues/5771",
            openai(10_120, 1_499, 128, total_tokens=14_428,
                   completion_tokens_details={"reasoning_tokens": 2_809}),
            (9_992, 4_308, 128),
        ),
        (
            # So are Gemini's thoughts: here they are all there is.
            "router-for-me/CLIProxyAPI/issues/5733",
            openai(21, 0, total_tokens=81, completion_tokens_details={"reasoning_tokens": 60}),
            (21, 60, 0),
        ),
        (
            # And without any details.
            "mozilla-ai/any-llm/issues/1290",
            {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623},
            (20, 603, 0),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_reasoning_beside_the_output_is_billed(
    thread: str, usage: dict[str, Any], expected: tuple[int, ...]
) -> None:
    assert TokenUsage.from_openai(usage)[:3] == expected, GITHUB + thread


def test_a_total_that_holds_the_cached_beside_the_prompt_makes_no_output() -> None:
    """https://github.com/Arize-ai/phoenix/issues/13379: cached tokens were charged as output."""
    usage = openai(1_000, 10, 400, total_tokens=1_410)
    assert TokenUsage.from_openai(usage)[:3] == (1_000, 10, 400)


def test_tokens_of_parts_that_are_given_apart_are_no_error() -> None:
    """https://github.com/pydantic/genai-prices/issues/334: uncached tokens "cannot be negative"."""
    cost = llm_cost("claude-opus-4-8", TokenUsage(5, 255, 0, 4_735))
    assert cost == usd((5, "5"), (255, "25"), (4_735, "6.25"))


# Seen twice.


def seen(usage: TokenUsage, response_id: str) -> None:
    record("claude-opus-4-8", usage, response_id)


def test_a_second_layer_that_knows_nothing_of_caches_adds_nothing(recorded: Any) -> None:
    """https://github.com/DataDog/dd-trace-js/issues/8936: two layers, the outer one blind to caches."""
    seen(TokenUsage(200, 30, 5_000), "msg_1")
    AgentOpsMonitor("a").track_llm_usage(model="claude-opus-4-8", input_tokens=5_200, output_tokens=30)
    assert [event["type"] for event in recorded()] == ["llm_usage"]


def test_a_wrapper_around_a_wrapper_counts_once(recorded: Any) -> None:
    """https://github.com/langfuse/langfuse/issues/1872: token counts doubled with two integrations."""
    seen(TokenUsage(200, 30), "msg_1")
    answer = {"id": "msg_1", "model": "claude-opus-4-8", "usage": {"input_tokens": 200, "output_tokens": 30}}
    AgentOpsMonitor("a").track_llm_usage(response=answer)
    assert [event["type"] for event in recorded()] == ["llm_usage"]


def test_a_whole_runs_sum_is_no_call_but_says_so(recorded: Any) -> None:
    """https://github.com/langfuse/langfuse/issues/14754: the agent's sum was counted beside its calls.

    What nobody can tell from another call counts; its id tells it.
    """
    seen(TokenUsage(200, 30), "msg_1")
    seen(TokenUsage(300, 40), "msg_2")
    AgentOpsMonitor("a").track_llm_usage(
        model="claude-opus-4-8", response_id="msg_2", input_tokens=500, output_tokens=70
    )
    first, second, note = recorded()
    assert [first["type"], second["type"], note["type"]] == ["llm_usage", "llm_usage", "llm_annotation"]
    assert "its tokens are not those that were counted" in note["problems"]

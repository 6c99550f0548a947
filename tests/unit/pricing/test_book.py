"""The price book against its source, which prices each call on its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from genai_prices import Usage
from genai_prices.data import providers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentops_monitoring.pricing import TokenUsage, llm_cost, price_book, resolve, unpriced_fees
from agentops_monitoring.pricing.usage import FEES
from tools.generate_price_book import BOOK, book

PROVIDERS = {each.id: each for each in providers if each.id in ("anthropic", "openai", "google", "aws")}
MODELS = {(each.id, model.id): model for each in PROVIDERS.values() for model in each.models}
OURS = list(MODELS)
COUNT = st.integers(0, 400_000)
EXAMPLES = 2_000 if os.environ.get("AGENTOPS_TEST_SIZE") == "full" else 40
TIERS = {"batch": {"processing": "batch"}, "flex": {"service_tier": "flex"}, "standard": None}


def source_cost(provider: str, name: str, usage: TokenUsage, at: datetime) -> Decimal:
    written = usage.cache_write_tokens + usage.cache_write_1h_tokens
    theirs = Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=written,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = MODELS[provider, (resolve(f"{provider}/{name}") or name).removeprefix(f"{provider}/")]
        price = found.calc_price(
            theirs, PROVIDERS[provider], genai_request_timestamp=at, price_context=TIERS[usage.tier]
        )
    total: Decimal = price.total_price
    return total


@settings(max_examples=6 * EXAMPLES, deadline=None)
@given(
    model=st.sampled_from(OURS),
    counts=st.tuples(COUNT, COUNT, COUNT, COUNT, COUNT),
    tier=st.sampled_from(sorted(TIERS)),
    at=st.datetimes(datetime(2024, 1, 1), datetime(2027, 3, 1), timezones=st.just(UTC)),
)
def test_every_model_costs_what_the_source_says(
    model: tuple[str, str], counts: tuple[int, int, int, int, int], tier: str, at: datetime
) -> None:
    provider, name = model
    usage = TokenUsage(*counts, tier=tier)
    cost = llm_cost(f"{provider}/{name}", usage, at=at)
    if cost is None:
        # Unpriced by tokens in the source too, or a tier that the source falls back from in silence.
        standard = usage._replace(tier="standard")
        silent = source_cost(provider, name, usage, at) == source_cost(provider, name, standard, at)
        assert silent or llm_cost(f"{provider}/{name}", standard, at=at) is None
    else:
        assert cost == source_cost(provider, name, usage, at)


SPECIAL = [
    (f"{provider}/{model.id}", kind)
    for (provider, _), model in MODELS.items()
    for kind in (
        *(f"{way}_{what}_tokens" for way in ("input", "output", "cache_read") for what in ("audio", "image")),
        "web_searches",
        "file_searches",
    )
    if llm_cost(f"{provider}/{model.id}", TokenUsage(0, 0, extra=((kind, 1),))) is not None
    and not unpriced_fees(f"{provider}/{model.id}", TokenUsage(0, 0, extra=((kind, 1),)))
]


@settings(max_examples=EXAMPLES, deadline=None)
@example(
    ("google/gemini-3.1-flash-live-preview", "cache_read_audio_tokens"), (0, 0, 0), 1
)  # no rate of its own
@given(
    special=st.sampled_from(SPECIAL),
    counts=st.tuples(COUNT, COUNT, COUNT),
    count=st.integers(1, 10**6),
)
def test_audio_images_and_fees_cost_what_the_source_says(
    special: tuple[str, str], counts: tuple[int, int, int], count: int
) -> None:
    name, kind = special
    provider, _, model = name.partition("/")
    plain, output, read = counts
    theirs = {
        # There the kinds lie within one another.
        "input_tokens": plain + read, "output_tokens": output, "cache_read_tokens": read,
    }  # fmt: skip
    way = kind.rpartition("_")[0]
    if kind == "web_searches":
        theirs["web_searches"] = count
    elif kind == "file_searches":
        theirs["storage_searches"] = count
    elif way.startswith("cache_read"):
        modality = way.rpartition("_")[2]
        theirs["input_tokens"] += count
        theirs["cache_read_tokens"] += count
        theirs[f"cache_{modality}_read_tokens"] = theirs[f"input_{modality}_tokens"] = count
    else:
        side, _, modality = way.partition("_")
        theirs[f"{side}_tokens"] += count
        theirs[kind] = count
        if side == "input":
            theirs[f"cache_{modality}_read_tokens"] = 0
    at = datetime(2026, 11, 22, tzinfo=UTC)
    cost = llm_cost(name, TokenUsage(plain, output, read, extra=((kind, count),)), at=at)
    if cost is None:
        return
    found = MODELS[provider, (resolve(name) or model).removeprefix(f"{provider}/")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        price = found.calc_price(Usage(**theirs), PROVIDERS[provider], genai_request_timestamp=at)
    assert cost == price.total_price


ANY_USAGE = st.builds(
    TokenUsage,
    COUNT, COUNT, COUNT, COUNT, COUNT,
    st.sampled_from(["standard", "batch", "flex", "priority", "fast", "standard@us"]),
    st.lists(
        st.tuples(st.sampled_from([*sorted(FEES), "input_audio_tokens"]), st.integers(1, 99)), max_size=2
    ).map(tuple),
)  # fmt: skip
ANY_MODEL = st.sampled_from([f"{provider}/{name}" for provider, name in OURS])


@settings(max_examples=EXAMPLES, deadline=None)
@given(model=ANY_MODEL, usage=ANY_USAGE, kind=st.integers(0, 4), more=st.integers(0, 400_000))
def test_more_tokens_never_cost_less(model: str, usage: TokenUsage, kind: int, more: int) -> None:
    counts = list(usage[:5])
    counts[kind] += more
    cost, dearer = (
        llm_cost(model, each) for each in (usage, TokenUsage._make([*counts, usage.tier, usage.extra]))
    )
    if cost is not None and dearer is not None:
        assert 0 <= cost <= dearer


@settings(max_examples=EXAMPLES, deadline=None)
@given(model=ANY_MODEL, usage=ANY_USAGE)
def test_a_cost_is_the_sum_of_its_kinds(model: str, usage: TokenUsage) -> None:
    cost = llm_cost(model, usage)
    # Kinds apart from one another see another size of the prompt: only where that does not matter.
    far = usage._replace(input_tokens=10**9)
    if cost is None or llm_cost(model, far._replace(input_tokens=2 * 10**9)) is None:
        return
    base = TokenUsage(10**9, 0, tier=usage.tier)
    parts = [far._replace(input_tokens=10**9, output_tokens=0, cache_read_tokens=0, cache_write_tokens=0,
                          cache_write_1h_tokens=0, extra=())]  # fmt: skip
    parts += [
        TokenUsage._make([10**9, *(n if i == kind else 0 for i, n in enumerate(usage[1:5])), usage.tier, ()])
        for kind in range(4)
    ]
    parts += [base._replace(extra=(each,)) for each in usage.extra]
    costs = [llm_cost(model, part) for part in parts]
    whole, alone = llm_cost(model, far), llm_cost(model, base)
    assert whole is not None
    assert alone is not None
    assert whole == sum((each - alone for each in costs if each is not None), alone)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    name=st.sampled_from([name for _, name in OURS]) | st.text(max_size=40),
    region=st.none() | st.just("eu-west-1"),
)
def test_a_name_resolves_once_and_for_all(name: str, region: str | None) -> None:
    found = resolve(name, region=region)
    assert found is None or resolve(found) == found


def test_inference_in_one_country_costs_a_tenth_more() -> None:
    usage = TokenUsage(1_000, 2_000, 3_000, 4_000, 5_000)
    for tier in ("standard", "fast"):
        plain = llm_cost("claude-opus-4-8", usage._replace(tier=tier))
        assert plain is not None
        assert llm_cost("claude-opus-4-8", usage._replace(tier=f"{tier}@us")) == plain * Decimal("1.1")
    assert llm_cost("claude-opus-4-8", usage._replace(tier="standard@mars")) is None
    assert llm_cost("gpt-4o", usage._replace(tier="standard@us")) is None
    searches = TokenUsage(0, 0, tier="standard@us", extra=(("web_searches", 1_000),))
    assert llm_cost("claude-opus-4-8", searches) == 10


def test_audio_without_a_rate_is_no_text() -> None:
    # The source has text prices only for this model, and a call of it is mostly audio.
    usage = TokenUsage(10, 10, extra=(("input_audio_tokens", 1),))
    assert llm_cost("gpt-4o-audio-preview", usage) is None


def test_fees_without_a_price_are_told() -> None:
    usage = TokenUsage(1_000_000, 0, extra=(("web_searches", 1), ("code_interpreter_calls", 2)))
    assert llm_cost("gpt-4.1", usage) == Decimal("2.01")
    assert unpriced_fees("gpt-4.1", usage) == ["code_interpreter_calls"]


def test_the_committed_book_is_what_the_script_writes() -> None:
    assert json.loads(BOOK.read_text()) == book(price_book().generated)
    assert price_book().version


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("claude-3-opus", "claude-3-opus-latest"),
        ("claude-3-opus-20240229", "claude-3-opus-latest"),
        ("Claude-Sonnet-4-5", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("anthropic/claude-opus-4-5", "claude-opus-4-5"),
        ("gpt-4o-latest", "gpt-4o"),
        ("gpt-4o-20240806", "gpt-4o"),
        ("models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0"),
        ("us.amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0"),
        ("bedrock/us.amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0"),
        (
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        (
            "ca.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        (
            "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/"
            "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        (
            "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        (
            "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0",
            "regional.anthropic.claude-3-haiku-20240307-v1:0",
        ),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3", None),
        ("my-own-model", None),
        ("", None),
    ],
)
def test_names_resolve(name: str, expected: str | None) -> None:
    assert resolve(name) == expected
    if expected is not None:
        assert resolve(expected) == expected


@pytest.mark.parametrize(("provider", "name"), OURS)
def test_an_id_means_itself(provider: str, name: str) -> None:
    canonical = resolve(f"{provider}/{name}")
    assert canonical is None or resolve(canonical) == canonical


def test_seed_example() -> None:
    assert llm_cost("claude-3-opus", TokenUsage(1000, 500)) == Decimal("0.0525")


def test_cached_tokens_are_not_counted_twice() -> None:
    # 1,000 at $3, 4,000 read at $0.30, 500 written at $3.75, 200 output at $15.
    cost = llm_cost("claude-3-7-sonnet", TokenUsage(1000, 200, 4000, 500))
    assert cost == Decimal("0.003") + Decimal("0.0012") + Decimal("0.001875") + Decimal("0.003")


def test_regional_profiles_carry_their_premium() -> None:
    usage = TokenUsage(1_000_000, 0)
    assert llm_cost("global.anthropic.claude-haiku-4-5-20251001-v1:0", usage) == 1
    assert llm_cost("eu.anthropic.claude-haiku-4-5-20251001-v1:0", usage) == Decimal("1.1")
    assert llm_cost("claude-haiku-4-5-20251001", usage) == 1
    assert llm_cost("claude-haiku-4-5-20251001", usage, region="eu-west-1") == Decimal("1.1")


@pytest.mark.parametrize("model", ["my-own-model", "gpt-live-1", "gemma-3"])
def test_what_has_no_token_price_is_unpriced_never_free(model: str) -> None:
    assert llm_cost(model, TokenUsage(10, 10)) is None


def test_a_tier_without_a_price_is_unpriced() -> None:
    assert llm_cost("claude-3-opus", TokenUsage(10, 10, tier="priority")) is None


@pytest.mark.parametrize("usage", [TokenUsage(-1, 0), TokenUsage(1, 1.5)])  # type: ignore[arg-type]
def test_wrong_counts_are_refused(usage: TokenUsage) -> None:
    with pytest.raises(ValueError, match="count of tokens"):
        llm_cost("claude-3-opus", usage)


def test_prices_follow_the_date() -> None:
    usage = TokenUsage(300_000, 0)
    assert llm_cost("claude-opus-4-6", usage, at="2026-03-12T23:59:59.999Z") == 3
    assert llm_cost("claude-opus-4-6", usage, at="2026-03-13T00:00:00.000Z") == Decimal("1.5")


def test_adapters_agree_on_one_meaning() -> None:
    expected = TokenUsage(60, 7, 40)
    assert (
        TokenUsage.from_bedrock({"inputTokens": 60, "outputTokens": 7, "cacheReadInputTokens": 40})
        == expected
    )
    assert (
        TokenUsage.from_anthropic({"input_tokens": 60, "output_tokens": 7, "cache_read_input_tokens": 40})
        == expected
    )
    chat = {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 40}}
    assert TokenUsage.from_openai(chat) == expected
    responses = {"input_tokens": 100, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 40}}
    assert TokenUsage.from_openai(responses) == expected
    gemini = {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 40,
        "candidatesTokenCount": 5,
        "thoughtsTokenCount": 2,
    }
    assert TokenUsage.from_google(gemini) == expected


def test_one_hour_writes_are_told_apart() -> None:
    bedrock = {
        "inputTokens": 1,
        "outputTokens": 1,
        "cacheWriteInputTokens": 30,
        "cacheDetails": [{"ttl": "1h", "inputTokens": 20}, {"ttl": "5m", "inputTokens": 10}],
    }
    assert TokenUsage.from_bedrock(bedrock) == TokenUsage(1, 1, 0, 10, 20)


def test_a_name_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = TokenUsage(1000, 500)
    first = llm_cost("claude-3-opus", usage)
    monkeypatch.setattr(type(price_book()), "find", lambda *_: pytest.fail("looked up again"))
    assert llm_cost("claude-3-opus", usage) == first


def test_geminis_audio_and_images_have_rates_of_their_own_where_the_book_has_them() -> None:
    """https://ai.google.dev/gemini-api/docs/pricing, https://ai.google.dev/api/generate-content#UsageMetadata"""
    usage = TokenUsage.from_google(
        {
            "promptTokenCount": 1_000,
            "cachedContentTokenCount": 400,
            "candidatesTokenCount": 50,
            "thoughtsTokenCount": 10,
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": 300},
                {"modality": "AUDIO", "tokenCount": 700},
            ],
            "cacheTokensDetails": [
                {"modality": "TEXT", "tokenCount": 150},
                {"modality": "AUDIO", "tokenCount": 250},
            ],
            "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 20}],
        }
    )
    assert usage[:3] == (150, 40, 150)
    assert dict(usage.extra) == {
        "input_audio_tokens": 450,
        "cache_read_audio_tokens": 250,
        "output_image_tokens": 20,
    }
    assert usage.prompt_tokens == 1_000
    # One price for all kinds of input.
    assert llm_cost("gemini-2.5-pro", usage._replace(output_tokens=0, extra=usage.extra[:2])) == Decimal(
        "0.00125"
    ) * Decimal("0.6") + Decimal("0.000125") * Decimal("0.4")
    # Audio costs more than text.
    assert llm_cost("gemini-2.5-flash", TokenUsage(0, 0, extra=(("input_audio_tokens", 10**6),))) == 1


def test_threads_that_begin_together_agree() -> None:
    code = (
        "import sys; sys.path.insert(0, 'runtime'); sys.setswitchinterval(1e-6)\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from agentops_monitoring.pricing import resolve\n"
        "names = ['claude-haiku-4-5', 'claude-3-opus', 'gpt-4o', 'claude-sonnet-4-5'] * 8\n"
        "with ThreadPoolExecutor(16) as pool: print(sorted(set(pool.map(resolve, names))))"
    )
    root = Path(__file__).parents[3]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str(
        ["claude-3-opus-latest", "claude-haiku-4-5", "claude-sonnet-4-5", "gpt-4o"]
    )


def test_importing_prices_loads_no_third_party_code() -> None:
    code = (
        "import sys; sys.path.insert(0, 'runtime'); import agentops_monitoring.pricing; "
        "print([m for m in sys.modules if m.partition('.')[0] in ('boto3', 'botocore', 'genai_prices')])"
    )
    root = Path(__file__).parents[3]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"

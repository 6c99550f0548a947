"""Prices of one's own, before the book's."""

from __future__ import annotations

import ast
import base64
import gzip
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws

from agentops_monitoring.functions.ingest import Ingest
from agentops_monitoring.pricing import TokenUsage, book, llm_cost, overrides, price_book, resolve
from agentops_monitoring.pricing.overrides import OverridesError, parse

PROFILE = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/A1b2"
MILLION = TokenUsage(1_000_000, 0)
WHOLE = TokenUsage(1_000_000, 1_000_000, 1_000_000, 1_000_000, 1_000_000)


def use(prices: Any) -> None:
    book.use(parse(json.dumps(prices), price_book()))


def test_an_alias_is_priced_as_what_it_stands_for() -> None:
    assert llm_cost(PROFILE, MILLION) is None
    use({PROFILE: "eu.anthropic.claude-haiku-4-5-20251001-v1:0"})
    assert llm_cost(PROFILE, MILLION) == Decimal("1.1")
    assert resolve(PROFILE) == resolve("eu.anthropic.claude-haiku-4-5-20251001-v1:0")


def test_a_plain_alias_costs_what_it_does_in_the_calls_region() -> None:
    use({PROFILE: "claude-haiku-4-5-20251001"})
    assert llm_cost(PROFILE, MILLION) == 1
    assert llm_cost(PROFILE, MILLION, region="eu-west-1") == Decimal("1.1")


def test_a_model_of_ones_own_has_all_kinds_tiers_and_long_prompts() -> None:
    use(
        {
            "My-Finetune": {
                "input": 3, "output": "12", "cache_read": 0.3, "cache_write": 3.75, "cache_write_1h": 6,
                "input_audio": 32, "web_searches": 10,
                "above": {"200000": {"input": 6, "output": 24}},
                "tiers": {"batch": {"input": 1.5, "output": 6}},
            }
        }
    )  # fmt: skip
    small = TokenUsage(1_000, 100, 2_000, 400, 500)
    by_hand = Decimal("0.003") + Decimal("0.0012") + Decimal("0.0006") + Decimal("0.0015") + Decimal("0.003")
    assert llm_cost("my-finetune", small) == by_hand
    assert llm_cost("my-finetune", TokenUsage(200_001, 1_000_000)) == Decimal("1.200006") + 24
    assert llm_cost("my-finetune", MILLION._replace(tier="batch", output_tokens=1_000_000)) == Decimal("7.5")
    assert llm_cost("my-finetune", MILLION._replace(tier="flex")) is None
    extra = (("input_audio_tokens", 1_000), ("web_searches", 2))
    assert llm_cost("my-finetune", TokenUsage(0, 0, extra=extra)) == Decimal("0.052")
    assert resolve("MY-FINETUNE") == "my-finetune" == resolve("my-finetune")


def test_a_models_own_price_replaces_the_books_in_every_spelling_and_only_there() -> None:
    use({"claude-sonnet-4-5": {"input": 2, "output": 10}})
    for name in ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4-5"):
        # A cached token without a price costs as input.
        assert llm_cost(name, WHOLE) == 2 + 10 + 2 + 2 + 2
        assert llm_cost(name, WHOLE._replace(tier="batch")) is None
    assert llm_cost("global.anthropic.claude-sonnet-4-5-20250929-v1:0", MILLION) == 3
    assert resolve("claude-sonnet-4-5-20250929") == "claude-sonnet-4-5"


def test_a_price_holds_from_its_day_on() -> None:
    use(
        {
            "claude-haiku-4-5": [
                {"since": "2026-12-01", "input": "0.9", "output": 4},
                {"since": "2027-01-01", "input": "0.8", "output": 4},
            ],
            "mine": {"since": "2026-12-01", "input": 1, "output": 1},
        }
    )
    days = ("2026-11-30T23:59:59.999Z", "2026-12-01T00:00:00.000Z", "2027-01-01T00:00:00.000Z")
    assert [llm_cost("claude-haiku-4-5", MILLION, at=day) for day in days] == [
        1,
        Decimal("0.9"),
        Decimal("0.8"),
    ]
    batch = MILLION._replace(tier="batch")
    assert [llm_cost("claude-haiku-4-5", batch, at=day) for day in days] == [Decimal("0.5"), None, None]
    assert [llm_cost("mine", MILLION, at=day) for day in days] == [None, 1, 1]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[]", "no object"),
        ("{", "line 1, column 2"),
        ('{"m": {"input": 1, "output": 1}, "m": {"input": 2, "output": 2}}', "m: stands there twice"),
        ('{"m": {"input": NaN, "output": 1}}', "NaN"),
        ('{"m": {"input": true, "output": 1}}', "m.input"),
        ('{"m": {"input": "1e9", "output": 1}}', "m.input"),
        ('{"m": {"input": -0.1, "output": 1}}', "m.input"),
        ('{"m": {"input": "three", "output": 1}}', "m.input"),
        ('{"m": {"output": 1}}', "m.input: is missing"),
        ('{"m": {"input": 1, "output": 1, "cached": 1}}', "m.cached"),
        ('{"m": {"input": 1, "output": 1, "since": "soon"}}', "m.since"),
        ('{"m": [{"input": 1, "output": 1}, {"input": 1, "output": 1}]}', r"m\[1\].since"),
        (
            '{"m": [{"input": 1, "output": 1, "since": "2026-02-01"},'
            ' {"input": 1, "output": 1, "since": "2026-02-01"}]}',
            r"m\[1\].since",
        ),
        ('{"m": {"input": 1, "output": 1, "tiers": {"batch": {"input": 1}}}}', "m.tiers.batch.output"),
        ('{"m": {"input": 1, "output": 1, "tiers": {"batch": 0.5}}}', "m.tiers.batch"),
        ('{"m": {"input": 1, "output": 1, "above": {"2e5": {"input": 2}}}}', "2e5"),
        ('{"m": {"input": 1, "output": 1, "above": {"9": {"cache_read": 2}}}}', "m.above.9.cache_read"),
        ('{"m": "claude-sonet"}', "claude-sonet"),
        ('{"m": "n", "n": "gpt-4o"}', "alias itself"),
        ('{"m": 3}', "m: expected an object"),
        ('{"m": []}', "m: expected"),
        ('{"": "gpt-4o"}', "no name"),
        (
            '{"gpt-4o": {"input": 1, "output": 1}, "gpt-4o-2024-08-06": {"input": 1, "output": 1}}',
            "another spelling",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_the_fields_name(text: str, named: str) -> None:
    with pytest.raises(OverridesError, match=named):
        parse(text, price_book())


def test_an_agents_file_is_read_once_at_the_first_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "prices.json"
    path.write_text('{"mine": {"input": 1, "output": 2}}')
    monkeypatch.setenv("AGENTOPS_PRICES", str(path))
    assert llm_cost("mine", MILLION) == 1
    path.unlink()
    assert llm_cost("mine", MILLION._replace(output_tokens=1_000_000)) == 3


@pytest.mark.parametrize("content", ['{"mine": {"input": 1}}', "[" * 100_000, None])
def test_a_wrong_file_is_said_and_leaves_the_book(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prices.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("AGENTOPS_PRICES", str(path))
    for _ in range(2):
        assert llm_cost("claude-3-opus", MILLION) == 15
        assert llm_cost("mine", MILLION) is None
    said = capsys.readouterr().err
    assert said.count("the price book alone is used") == 1


def test_an_agent_never_asks_ssm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOPS_PRICES", "ssm:/agentops/demo/prices")
    asked: list[Any] = []
    monkeypatch.setattr("botocore.session.Session.create_client", lambda *_, **given: asked.append(given))
    assert llm_cost("claude-3-opus", MILLION) == 15
    assert asked == []
    with pytest.raises(AttributeError):  # the stand-in is no client, but it is where a call would be made
        overrides.refresh()
    (config,) = [given["config"] for given in asked]
    # Ingest, which waits for it, has a minute for all that it does.
    assert config.retries["total_max_attempts"] * (config.connect_timeout + config.read_timeout) <= 10


@mock_aws
def test_ingest_reads_the_parameter_anew_and_keeps_what_it_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENTOPS_PRICES", "ssm:/agentops/demo/prices")
    ssm = boto3.client("ssm")

    def put(value: str) -> None:
        ssm.put_parameter(Name="/agentops/demo/prices", Value=value, Type="String", Overwrite=True)

    def later() -> None:
        monkeypatch.setattr(overrides, "_read_at", -1e9)

    with pytest.raises(ClientError, match="ParameterNotFound"):
        overrides.refresh()
    put('{"mine": {"input": 1, "output": 2}}')
    overrides.refresh()
    assert llm_cost("mine", MILLION) == 1
    put('{"mine": {"input": 5, "output": 2}}')
    overrides.refresh()
    assert llm_cost("mine", MILLION) == 1
    later()
    overrides.refresh()
    assert llm_cost("mine", MILLION) == 5
    put('{"mine": {"input": 5}}')
    later()
    overrides.refresh()
    assert llm_cost("mine", MILLION) == 5
    assert "mine.output" in capsys.readouterr().err
    ssm.delete_parameter(Name="/agentops/demo/prices")
    later()
    overrides.refresh()
    assert llm_cost("mine", MILLION) == 5


@mock_aws
def test_ingest_books_nothing_while_it_cannot_know_its_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOPS_PRICES", "ssm:/agentops/demo/prices")
    control = base64.b64encode(
        gzip.compress(json.dumps({"messageType": "CONTROL_MESSAGE", "logEvents": []}).encode())
    ).decode()
    ingest = Ingest()
    with pytest.raises(ClientError, match="ParameterNotFound"):
        ingest({"awslogs": {"data": control}}, 60.0)
    monkeypatch.delenv("AGENTOPS_PRICES")
    ingest({"awslogs": {"data": control}}, 60.0)


PRICE = st.decimals(0, 1000, places=6)


@settings(max_examples=150, deadline=None)
@given(
    prices=st.fixed_dictionaries(dict.fromkeys(("input", "output"), PRICE))
    | st.fixed_dictionaries(
        dict.fromkeys(("input", "output", "cache_read", "cache_write", "cache_write_1h"), PRICE)
    ),
    counts=st.tuples(*[st.integers(0, 10**7)] * 5),
)
def test_own_prices_are_exact(prices: dict[str, Decimal], counts: tuple[int, ...]) -> None:
    book.use(parse(json.dumps({"mine": prices}, default=str), price_book()))
    usd = prices.get
    written = usd("cache_write", prices["input"])
    rates = (
        prices["input"], prices["output"], usd("cache_read", prices["input"]), written,
        usd("cache_write_1h", written),
    )  # fmt: skip
    expected = sum(count * rate for count, rate in zip(counts, rates, strict=True)) / 1_000_000
    assert llm_cost("mine", TokenUsage(*counts)) == expected  # type: ignore[arg-type]


def test_the_documented_examples_are_prices(root: Path) -> None:
    page = (root / "docs" / "costs.md").read_text()
    code = page.split("## Prices of your own")[1].split("```python")[1].split("```")[0]
    (written,) = (
        argument.value
        for call in ast.walk(ast.parse(code))
        if isinstance(call, ast.Call)
        for argument in call.keywords
        if argument.arg == "price_overrides"
    )
    use(ast.literal_eval(written))
    arn = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/a1b2"
    assert llm_cost(arn, MILLION) == Decimal("3.3")
    assert llm_cost("my-finetune", MILLION._replace(tier="batch")) == Decimal("1.5")
    assert llm_cost("claude-opus-5-5", MILLION, at="2026-12-01T00:00:00.000Z") == Decimal("3.6")
    described = re.search(r"\n    (\{\n.*?\n    \})\n", overrides.__doc__ or "", re.DOTALL)
    assert described
    use(json.loads(described[1]))
    assert llm_cost("claude-opus-5-5", MILLION, at="2026-11-30T00:00:00.000Z") == 4

"""What could cost less. Each rule reads rollups; none knows a number that ledger and price book lack."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from agentops_monitoring.ledger.totals import Rollups, Totals
from agentops_monitoring.pricing import TokenUsage, llm_cost, price_book

# Below these there is too little to say anything.
MIN_CALLS = 10
MIN_WORKFLOWS = 10
HIGH_SUCCESS = 0.9
DOMINANT_SHARE = 0.5
CACHEABLE_TOKENS = 1024
"""Shortest prompt that providers cache: https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html."""
MIN_PING_PONG = 10

_LADDERS = (
    ("opus", "sonnet", "haiku"),
    ("premier", "pro", "lite", "micro"),
    ("pro", "flash", "flash-lite"),
)
_SUFFIX = re.compile(r"(-20\d{6}|-20\d\d-\d\d-\d\d|-latest|-v\d+:\d+)")


class _Found(NamedTuple):
    at_stake: Decimal
    """USD that the finding is about; the order of the list."""
    opportunity: dict[str, Any]


def opportunities(window: Rollups, now: datetime) -> list[dict[str, Any]]:
    """Return the opportunities in a window, the dearest first; prices are those of `now`."""
    rules = (_unpriced, _cost_driver, _cheaper_model, _caching, _failed_attempts, _overhead, _ping_pong)
    found = [each for rule in rules for each in rule(window, now)]
    return [each.opportunity for each in sorted(found, key=lambda each: -each.at_stake)]


def _entry(
    kind: str,
    recommendation: str,
    evidence: dict[str, Any],
    at_stake: Decimal,
    savings: Decimal | None = None,
) -> _Found:
    return _Found(
        at_stake,
        {
            "type": kind,
            "recommendation": recommendation,
            "evidence": {name: _plain(value) for name, value in evidence.items()},
            "estimated_savings_usd": _plain(savings),
        },
    )


def _plain(value: Any) -> Any:
    """Money without the trailing zeros that exact sums collect; its value stays what it is."""
    if not isinstance(value, Decimal):
        return value
    digits = f"{value:f}"
    return Decimal(digits.rstrip("0").rstrip(".") if "." in digits else digits)


def _unpriced(window: Rollups, now: datetime) -> Iterator[_Found]:  # noqa: ARG001 - all rules are called alike
    for model, each in window.models.items():
        if each.unpriced_calls:
            yield _entry(
                "unpriced_model",
                f"{each.unpriced_calls} calls of {model} have no known price, so every sum lacks them: "
                "use a model id that the price book knows, or add its price.",
                {"model": model, "unpriced_calls": each.unpriced_calls, "calls": each.llm_calls},
                Decimal(0),
            )


def _cost_driver(window: Rollups, now: datetime) -> Iterator[_Found]:  # noqa: ARG001
    total = window.total.total_cost
    spenders = {agent: each for agent, each in window.agents.items() if each.total_cost}
    if len(spenders) < 2 or not total:
        return
    agent, top = max(spenders.items(), key=lambda each: each[1].total_cost)
    share = top.total_cost / total
    if share < DOMINANT_SHARE:
        return
    llm = top.llm_cost >= top.compute_cost
    kind = "model calls" if llm else "compute"
    yield _entry(
        "high_cost_agent",
        f"{agent} spends {share:.0%} of everything, mostly on {kind}: look there first.",
        {
            "agent": agent,
            "total_cost_usd": top.total_cost,
            "llm_cost_usd": top.llm_cost,
            "compute_cost_usd": top.compute_cost,
            "share": float(share),
            "llm_calls": top.llm_calls,
            "mean_input_tokens": _mean(top.input_tokens, top.llm_calls),
            "mean_output_tokens": _mean(top.output_tokens, top.llm_calls),
        },
        top.total_cost,
    )


def _cheaper_model(window: Rollups, now: datetime) -> Iterator[_Found]:
    ended = window.total.workflows_completed + window.total.workflows_failed
    if ended < MIN_WORKFLOWS or window.total.success_rate < HIGH_SUCCESS:
        return
    for model, each in window.models.items():
        if each.llm_calls < MIN_CALLS or each.unpriced_calls or reprice(model, each, now) != each.llm_cost:
            # Long-prompt prices or another tier: the same tokens can't be priced from their sums.
            continue
        sibling = next((name for name in siblings(model) if reprice(name, each, now) is not None), None)
        other = reprice(sibling, each, now) if sibling else None
        if sibling is None or other is None or other >= each.llm_cost:
            continue
        yield _entry(
            "model_downgrade",
            f"{window.total.success_rate:.0%} of workflows succeed. The same tokens on {sibling} instead of "
            f"{model} would have cost ${other:.4f} instead of ${each.llm_cost:.4f}: "
            "try it for simple tasks, and watch the success rate.",
            {
                "model": model,
                "alternative": sibling,
                "calls": each.llm_calls,
                "input_tokens": each.input_tokens,
                "output_tokens": each.output_tokens,
                "cost_usd": each.llm_cost,
                "alternative_cost_usd": other,
                "success_rate": window.total.success_rate,
                "samples": ended,
                "assumes": "the same number of tokens and calls",
            },
            each.llm_cost,
            each.llm_cost - other,
        )


def _caching(window: Rollups, now: datetime) -> Iterator[_Found]:
    for model, each in window.models.items():
        mean = _mean(each.input_tokens, each.llm_calls)
        if each.llm_calls < MIN_CALLS or each.cache_read_tokens or mean is None or mean < CACHEABLE_TOKENS:
            continue
        plain = llm_cost(model, TokenUsage(1_000_000, 0), at=now)
        cached = llm_cost(model, TokenUsage(0, 0, cache_read_tokens=1_000_000), at=now)
        if plain is None or cached is None or cached >= plain:
            continue
        input_cost = plain * each.input_tokens / 1_000_000
        yield _entry(
            "prompt_caching",
            f"{model} reads {mean:.0f} tokens a call and none from a cache: mark what repeats as cacheable. "
            f"A million repeated tokens then cost ${cached:.2f} instead of ${plain:.2f}.",
            {
                "model": model,
                "calls": each.llm_calls,
                "input_tokens": each.input_tokens,
                "mean_input_tokens": mean,
                "usd_per_million": plain,
                "usd_per_million_cached": cached,
                "unknown": "how much of the prompts repeats",
            },
            input_cost,
        )


def _failed_attempts(window: Rollups, now: datetime) -> Iterator[_Found]:  # noqa: ARG001
    failed = window.types.get("test_failed")
    if failed is None or not failed.events:
        return
    passed = window.types.get("test_passed")
    runs = failed.events + (passed.events if passed else 0)
    # No sum: test_failed's EventCost lacks the model calls behind the attempt, booked on what came before.
    yield _entry(
        "failed_attempts",
        f"{failed.events} of {runs} test runs failed: give the first attempt more evidence, or stop earlier.",
        {
            "test_failed": failed.events,
            "test_passed": runs - failed.events,
            "unknown": "what these attempts cost: the ledger books no cost by attempt",
        },
        Decimal(0),
    )


def _overhead(window: Rollups, now: datetime) -> Iterator[_Found]:  # noqa: ARG001
    overhead, total = window.types.get("overhead"), window.total.total_cost
    if overhead is None or not total or overhead.cost / total < DOMINANT_SHARE:
        return
    yield _entry(
        "overhead",
        f"{overhead.cost / total:.0%} of the cost leads to no domain event: work that ends in nothing, "
        "or agents that do not record what they achieve.",
        {"overhead_usd": overhead.cost, "total_cost_usd": total, "share": float(overhead.cost / total)},
        overhead.cost,
    )


def _ping_pong(window: Rollups, now: datetime) -> Iterator[_Found]:  # noqa: ARG001
    for (sender, to), there in window.flows.items():
        back = window.flows.get((to, sender))
        if back is None or sender > to:
            continue
        most, least = max(there.messages, back.messages), min(there.messages, back.messages)
        if least < MIN_PING_PONG or least < DOMINANT_SHARE * most:
            continue
        costs = [window.agents[name].total_cost for name in (sender, to) if name in window.agents]
        yield _entry(
            "inefficient_collaboration",
            f"{sender} and {to} hand over back and forth: {there.messages} messages one way, "
            f"{back.messages} the other. Check why work returns.",
            {
                f"{sender}->{to}": there.messages,
                f"{to}->{sender}": back.messages,
                "cost_of_both_agents_usd": sum(costs, Decimal(0)),
            },
            Decimal(0),
        )


def reprice(model: str, tokens: Totals, at: datetime) -> Decimal | None:
    """Return what sums of tokens cost at a model's plain prices; None when one of them has none."""
    total = Decimal(0)
    for usage, count in (
        (TokenUsage(1_000, 0), tokens.input_tokens),
        (TokenUsage(0, 1_000), tokens.output_tokens),
        (TokenUsage(0, 0, 1_000), tokens.cache_read_tokens),
        (TokenUsage(0, 0, 0, 1_000), tokens.cache_write_tokens),
        (TokenUsage(0, 0, 0, 0, 1_000), tokens.cache_write_1h_tokens),
    ):
        cost = llm_cost(model, usage, at=at) if count else Decimal(0)
        if cost is None:
            return None
        total += cost * count / 1_000
    return total


def siblings(model: str) -> Iterator[str]:
    """Return the smaller models of the same family and generation, the next smaller one first."""
    stems = {_SUFFIX.sub("", each.id): each.id for each in price_book().models()}
    stem = _SUFFIX.sub("", model)
    for ladder in _LADDERS:
        place = next((i for i, size in enumerate(ladder) if re.search(rf"-{size}(?![a-z])", stem)), None)
        if place is None:
            continue
        for smaller in ladder[place + 1 :]:
            name = re.sub(rf"-{ladder[place]}(?![a-z])", f"-{smaller}", stem)
            if name in stems:
                yield stems[name]


def _mean(total: int, count: int) -> float | None:
    return total / count if count else None

"""What the worst case of a model call costs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from decimal import Decimal, localcontext
from functools import cache

from agentops_monitoring import pricing
from agentops_monitoring.enforcement.bounds import Bound, Unbounded
from agentops_monitoring.enforcement.budget import EXACT
from agentops_monitoring.pricing.usage import Extra

_ZERO = Decimal(0)
_LONG = 1_000_000
MOST = Decimal(10**12)
"""USD; no budget is larger, and a number in DynamoDB has 38 digits."""


def worst_case(model: str, region: str | None, calls: Iterable[Bound]) -> Decimal:
    """Return the USD that calls of a model cost at most.

    Raises
    ------
    Unbounded
        The model has no price, or its context window is not known where nothing else bounds the call.
    """
    total = _ZERO
    with localcontext(EXACT):  # the agent's own may round
        for bound in calls:
            total += _of_one(model, region, bound)
    if total > MOST:
        raise Unbounded("it is more than any budget")
    return total


def _of_one(model: str, region: str | None, bound: Bound) -> Decimal:
    if _cost(model, region, (1, 0, 0, 0, 0), bound.needed) is None:
        raise Unbounded("it has no price")
    fresh = bound.input_tokens
    if fresh is None:
        fresh = _window(model, region, "its input holds more than text")
        fresh = max(fresh, _LONG if bound.long else 0) * bound.answers
    output = bound.output_tokens
    if not _cost(model, region, (0, 1, 0, 0, 0), bound.needed):
        output = 0  # an embedding's is nothing, and has no price
    elif output is None:
        output = _window(model, region, "the request sets no limit to its answer")
    output *= bound.answers
    ways: list[tuple[tuple[int, ...], Extra]] = [((fresh, output, 0, 0, 0), ())]
    if bound.cached:
        ways += [((0, output, 0, fresh, 0), ()), ((0, output, 0, 0, fresh), ())]
    if bound.input_tokens is None:
        # A token of a picture or of sound may cost several times one of text.
        ways += [((0, output, 0, 0, 0), ((kind, fresh),)) for kind in ("input_audio_tokens", _IMAGES)]
    if output:
        ways.append(((fresh, 0, 0, 0, 0), (("output_image_tokens", output),)))
    if bound.audio and _cost(model, region, (0, 0, 0, 0, 0), bound.needed, _SOUND) is None:
        raise Unbounded("its audio has no price")
    # A tier without a price may be one that the model does not have.
    costs = [
        _cost(model, region, counts, tier, extra)
        for counts, extra in ways
        for tier in {bound.needed, *bound.tiers}
    ]
    return max(cost for cost in costs if cost is not None)


_IMAGES = "input_image_tokens"
_SOUND: Extra = (("input_audio_tokens", 1),)


def _cost(
    model: str, region: str | None, counts: tuple[int, ...], tier: str, extra: Extra = ()
) -> Decimal | None:
    return pricing.cost_of(model, counts, tier, extra, region)


def _window(model: str, region: str | None, why: str) -> int:
    found = windows().get(pricing.resolve(model, region=region) or "")
    if found is None:
        raise Unbounded(f"{why}, and its context window is not known")
    # The source writes 1,000,000 where a provider says 1,048,576.
    return found + found // 20


@cache
def windows() -> dict[str, int]:
    """Return the context windows in tokens, by the price book's names; `make prices` writes them."""
    with open(os.path.join(os.path.dirname(__file__), "windows.json"), "rb") as file:
        found: dict[str, int] = json.loads(file.read())
    return found

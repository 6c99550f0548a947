"""What a model costs: its rates by kind of token, tier, day and size of the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

_ONE = Decimal(1)
_EPOCH = date(1970, 1, 1)

_KINDS = {
    # What has a rate of its own: the book's keys, the closest first. A token without a price of its own costs
    # as what it is a kind of; but audio costs as text where a provider says so, see _AS_TEXT.
    "input_audio_tokens": ("ia",),
    "output_audio_tokens": ("oa",),
    "cache_read_audio_tokens": ("ra",),
    "input_image_tokens": ("ii", "i"),
    "output_image_tokens": ("oi", "o"),
    "cache_read_image_tokens": ("ri", "r", "ii", "i"),
    "web_searches": ("ws",),
    "file_searches": ("fs",),
}
# Google names the kinds that cost otherwise; the book lacks prices of OpenAI's and Amazon's audio.
_AS_TEXT = {
    "input_audio_tokens": ("i",),
    "output_audio_tokens": ("o",),
    "cache_read_audio_tokens": ("r", "ia", "i"),
}
_FEES = (("ws",), ("fs",))
_COUNTS = (("i",), ("o",), ("r", "i"), ("w", "i"), ("h", "w", "i"))

# What Anthropic's own API takes for inference in one country, a factor on all tokens:
# https://docs.aws.amazon.com/claude-platform/latest/userguide/data-residency.html
_PREMIUMS = {("anthropic", "us"): Decimal("1.1")}


class Rate:
    """USD per million tokens, by the size of the prompt."""

    __slots__ = ("base", "steps")

    def __init__(self, raw: str | list[Any], factor: Decimal) -> None:
        self.base = Decimal(raw if isinstance(raw, str) else raw[0]) * factor
        self.steps: tuple[tuple[int, Decimal], ...] = ()
        if not isinstance(raw, str):
            self.steps = tuple((int(above), Decimal(price) * factor) for above, price in reversed(raw[1]))

    def at(self, prompt_tokens: int) -> Decimal:
        for above, price in self.steps:
            if prompt_tokens > above:
                return price
        return self.base


class Rates:
    """What a model costs in one tier on one day."""

    __slots__ = ("_audio_as_text", "_factor", "_raw", "counts", "exponent", "units")

    def __init__(self, raw: Mapping[str, Any], factor: Decimal, audio_as_text: bool) -> None:
        self._raw = raw
        self._factor = factor
        self._audio_as_text = audio_as_text
        self.counts: tuple[Rate | None, ...] = tuple(self._first(keys) for keys in _COUNTS)
        """The rates of the five counts of `TokenUsage`, in their order."""
        self.units, self.exponent = _units(self.counts)
        """The same as whole numbers of 10^exponent USD; none where one is missing or has steps."""

    def rate_of(self, kind: str) -> Rate | None:
        """Return the rate of a kind of `TokenUsage.extra`; None where the book has none."""
        keys = _KINDS.get(kind, ())
        return self._first(keys + _AS_TEXT.get(kind, ()) if self._audio_as_text else keys)

    def _first(self, keys: tuple[str, ...]) -> Rate | None:
        # A factor is on tokens, never on fees.
        factor = _ONE if keys in _FEES else self._factor
        return next((Rate(self._raw[key], factor) for key in keys if key in self._raw), None)


def _units(rates: Sequence[Rate | None]) -> tuple[tuple[int, ...] | None, int]:
    plain = [rate.base for rate in rates if rate is not None and not rate.steps]
    if len(plain) < len(rates):
        return None, 0
    digits = max(0, *(-int(base.as_tuple().exponent) for base in plain))
    return tuple(int(base.scaleb(digits)) for base in plain), -digits - 6


class Model:
    """One model of one provider."""

    __slots__ = ("_days", "id", "provider", "raw")

    def __init__(self, provider: str, raw: Mapping[str, Any]) -> None:
        self.provider = provider
        self.id: str = raw["id"]
        self.raw = raw
        """As the book has it."""
        self._days: dict[tuple[str, int], Rates | None] = {}

    def matches(self, name: str) -> bool:
        """Whether a name means this model."""
        return matches(self.raw["match"], name)

    def rates(self, tier: str, day: int) -> Rates | None:
        """Return the rates of a tier on a day, counted from 1970; None where the book knows none."""
        try:
            return self._days[tier, day]
        except KeyError:
            pass
        found = self._read(tier, (_EPOCH + timedelta(day)).isoformat())
        if len(self._days) > 64:
            self._days.clear()
        self._days[tier, day] = found
        return found

    def _read(self, tier: str, day: str) -> Rates | None:
        tier, _, country = tier.partition("@")
        factor = _PREMIUMS.get((self.provider, country)) if country else _ONE
        standard = _active(self.raw["prices"], day)
        if standard is None or factor is None:
            return None
        if tier == "standard":
            return Rates(standard, factor, self.provider == "google")
        special = _active(self.raw.get("tiers", {}).get(tier, ()), day)
        return None if special is None else Rates({**standard, **special}, factor, self.provider == "google")


def _active(periods: Sequence[Any], day: str) -> Mapping[str, Any] | None:
    for since, prices in reversed(periods):
        if since is None or since <= day:
            found: Mapping[str, Any] | None = prices
            return found
    return None


def matches(rule: Any, name: str) -> bool:
    if isinstance(rule, list):
        return any(matches(each, name) for each in rule)
    if isinstance(rule, dict):
        return all(matches(each, name) for each in rule["all"])
    kind, text = rule[0], rule[1:]
    if kind == "=":
        return bool(name == text)
    if kind == "^":
        return name.startswith(text)
    if kind == "$":
        return name.endswith(text)
    if kind == "*":
        return text in name
    import re

    return re.search(text, name) is not None

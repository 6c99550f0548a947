"""The tokens of one model call, in one meaning, and its translation from each provider's response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Extra = tuple[tuple[str, int], ...]

INPUT_KINDS = frozenset(
    f"{way}_{what}_tokens" for way in ("input", "cache_read") for what in ("audio", "image")
)
"""The kinds of `TokenUsage.extra` that are part of the prompt."""

FEES = frozenset({"web_searches", "file_searches", "code_interpreter_calls", "image_generation_calls"})
"""The kinds that are no tokens but what a provider's own tools cost a call."""


class TokenUsage(NamedTuple):
    """Tokens of one model call. Each token is in exactly one of the five counts, or in `extra`.

    Providers disagree on whether `input_tokens` contains the cached ones; here it never does. Use the
    `from_…` constructors on a provider's own usage record.
    """

    input_tokens: int
    """Prompt tokens that were neither read from nor written to a cache."""
    output_tokens: int
    """Generated tokens, reasoning included (every provider bills those as output)."""
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    """Prompt tokens written to a cache of the default (5 minutes) lifetime."""
    cache_write_1h_tokens: int = 0
    """Prompt tokens written to a cache that lives for an hour."""
    tier: str = "standard"
    """"standard", "batch", "flex", "priority" or "fast"; "…@us" where Anthropic had to run it in the US."""
    extra: Extra = ()
    """What has a rate of its own, as kind and count: `input_audio_tokens`, `output_audio_tokens`,
    `cache_read_audio_tokens`, the same for `image`, `web_searches`, `file_searches`. A kind that has no price
    makes the call unpriced if it counts tokens; a fee without a price is left out, see `unpriced_fees`."""

    @property
    def prompt_tokens(self) -> int:
        """All tokens of the prompt, cached or not; long-prompt prices depend on it."""
        plain = (
            self.input_tokens + self.cache_read_tokens + self.cache_write_tokens + self.cache_write_1h_tokens
        )
        return plain + sum(count for kind, count in self.extra if kind in INPUT_KINDS)

    @classmethod
    def from_bedrock(cls, usage: Mapping[str, Any]) -> TokenUsage:
        """Read the `usage` of Bedrock's Converse, whose inputTokens exclude the cached ones."""
        written = _count(usage, "cacheWriteInputTokens")
        one_hour = sum(
            _count(each, "inputTokens") for each in usage.get("cacheDetails") or () if each.get("ttl") == "1h"
        )
        return cls(
            _count(usage, "inputTokens"),
            _count(usage, "outputTokens"),
            _count(usage, "cacheReadInputTokens"),
            max(0, written - one_hour),
            one_hour,
        )

    @classmethod
    def from_anthropic(cls, usage: Mapping[str, Any]) -> TokenUsage:
        """Read the `usage` of Anthropic's Messages API, whose input_tokens exclude the cached ones.

        What a compaction took is not in its totals but in its `iterations`, and is added. Tokens of an
        advisor, another model, are kept apart and make the call unpriced.
        """
        iterations = [each for each in usage.get("iterations") or () if isinstance(each, Mapping)]
        own = [usage, *(each for each in iterations if each.get("type") == "compaction")]
        counts = [sum(each) for each in zip(*(_anthropic_counts(each) for each in own), strict=True)]
        advice = sum(
            sum(_anthropic_counts(each)) for each in iterations if each.get("type") == "advisor_message"
        )
        tier = "fast" if usage.get("speed") == "fast" else _tier(usage.get("service_tier"))
        # Anthropic's own API only; https://platform.claude.com/docs/en/manage-claude/data-residency.
        if usage.get("inference_geo") == "us":
            tier += "@us"
        tools = usage.get("server_tool_use") or {}
        extra = _kinds(web_searches=_count(tools, "web_search_requests"), advisor_tokens=advice)
        return cls._make([*counts, tier, extra])

    @classmethod
    def from_openai(cls, usage: Mapping[str, Any], tier: str | None = None) -> TokenUsage:
        """Read the `usage` of OpenAI's APIs, whose input includes the cached: chat, responses, embeddings,
        images, realtime.

        Parameters
        ----------
        usage
            The response's `usage`.
        tier
            The response's `service_tier`, which stands beside the usage.
        """
        chat = "prompt_tokens" in usage
        prompt = _count(usage, "prompt_tokens" if chat else "input_tokens")
        output = _count(usage, "completion_tokens" if chat else "output_tokens")
        into = _details(usage, "prompt" if chat else "input")
        out = _details(usage, "completion" if chat else "output")
        cached, written = _count(into, "cached_tokens"), _count(into, "cache_write_tokens")
        beyond = _count(usage, "total_tokens") - prompt - output
        if cached + written > prompt or 0 < beyond == cached + written:
            # Some servers that speak OpenAI's protocol leave the cached ones out, as Anthropic does.
            prompt += cached + written
        elif beyond > 0:
            # Others, Gemini and Grok, leave the reasoning out, and bill it as output.
            output += beyond
        fresh = prompt - cached - written
        of_cached = into.get("cached_tokens_details") or {}
        extra = {}
        for what in ("audio", "image"):
            read = min(_count(of_cached, f"{what}_tokens"), cached)
            new = min(max(0, _count(into, f"{what}_tokens") - read), fresh)
            made = min(_count(out, f"{what}_tokens"), output)
            cached, fresh, output = cached - read, fresh - new, output - made
            extra[f"input_{what}_tokens"] = new
            extra[f"cache_read_{what}_tokens"] = read
            extra[f"output_{what}_tokens"] = made
        return cls(fresh, output, cached, written, tier=_tier(tier), extra=_kinds(**extra))

    @classmethod
    def from_google(cls, usage: Mapping[str, Any]) -> TokenUsage:
        """Read Gemini's `usageMetadata`: the prompt includes the cached, the candidates exclude thoughts."""
        prompt = _count(usage, "promptTokenCount") + _count(usage, "toolUsePromptTokenCount")
        cached = min(_count(usage, "cachedContentTokenCount"), prompt)
        output = _count(usage, "candidatesTokenCount") + _count(usage, "thoughtsTokenCount")
        fresh = prompt - cached
        read = min(_of_modality(usage, "cacheTokensDetails", "AUDIO"), cached)
        new = sum(
            _of_modality(usage, f"{side}TokensDetails", "AUDIO") for side in ("prompt", "toolUsePrompt")
        )
        new = min(max(0, new - read), fresh)
        extra = {"input_audio_tokens": new, "cache_read_audio_tokens": read}
        for what in ("audio", "image"):
            made = min(_of_modality(usage, "candidatesTokensDetails", what.upper()), output)
            extra[f"output_{what}_tokens"] = made
            output -= made
        return cls(fresh - new, output, cached - read, extra=_kinds(**extra))


def _of_modality(usage: Mapping[str, Any], name: str, modality: str) -> int:
    return sum(
        _count(each, "tokenCount") for each in usage.get(name) or () if each.get("modality") == modality
    )


def _anthropic_counts(usage: Mapping[str, Any]) -> tuple[int, int, int, int, int]:
    by_life = usage.get("cache_creation") or {}
    five, one_hour = (_count(by_life, f"ephemeral_{life}_input_tokens") for life in ("5m", "1h"))
    # The last event of a stream has the total alone, which a server's tools may have raised since.
    later = max(0, _count(usage, "cache_creation_input_tokens") - five - one_hour)
    if one_hour and not five:
        one_hour += later
    else:
        five += later
    return (
        _count(usage, "input_tokens"),
        _count(usage, "output_tokens"),
        _count(usage, "cache_read_input_tokens"),
        five,
        one_hour,
    )


def _details(usage: Mapping[str, Any], side: str) -> Mapping[str, Any]:
    # The realtime API writes `input_token_details`.
    found: Mapping[str, Any] = usage.get(f"{side}_tokens_details") or usage.get(f"{side}_token_details") or {}
    return found


def _kinds(**counts: int) -> Extra:
    return tuple((kind, count) for kind, count in counts.items() if count)


def _count(usage: Mapping[str, Any], name: str) -> int:
    return max(0, int(usage.get(name) or 0))


def _tier(name: object) -> str:
    return "standard" if name in (None, "", "auto", "default", "standard") else str(name)

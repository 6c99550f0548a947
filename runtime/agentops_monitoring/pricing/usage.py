"""The tokens of one model call, in one meaning, and its translation from each provider's response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class TokenUsage(NamedTuple):
    """Tokens of one model call. Each token is in exactly one of the five counts.

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
    """"standard", "batch", "flex", "priority" or "fast"."""

    @property
    def prompt_tokens(self) -> int:
        """All tokens of the prompt, cached or not; long-prompt prices depend on it."""
        return (
            self.input_tokens + self.cache_read_tokens + self.cache_write_tokens + self.cache_write_1h_tokens
        )

    @classmethod
    def from_bedrock(cls, usage: Mapping[str, Any]) -> TokenUsage:
        """Read the `usage` of Bedrock's Converse, whose inputTokens exclude the cached ones."""
        one_hour = sum(
            _count(each, "inputTokens") for each in usage.get("cacheDetails") or () if each.get("ttl") == "1h"
        )
        return cls(
            _count(usage, "inputTokens"),
            _count(usage, "outputTokens"),
            _count(usage, "cacheReadInputTokens"),
            max(0, _count(usage, "cacheWriteInputTokens") - one_hour),
            one_hour,
        )

    @classmethod
    def from_anthropic(cls, usage: Mapping[str, Any]) -> TokenUsage:
        """Read the `usage` of Anthropic's Messages API, whose input_tokens exclude the cached ones."""
        written = _count(usage, "cache_creation_input_tokens")
        one_hour = _count(usage.get("cache_creation") or {}, "ephemeral_1h_input_tokens")
        return cls(
            _count(usage, "input_tokens"),
            _count(usage, "output_tokens"),
            _count(usage, "cache_read_input_tokens"),
            max(0, written - one_hour),
            one_hour,
            _tier(usage.get("service_tier")),
        )

    @classmethod
    def from_openai(cls, usage: Mapping[str, Any], tier: str | None = None) -> TokenUsage:
        """Read the `usage` of OpenAI's Chat Completions or Responses API, whose input includes the cached.

        Parameters
        ----------
        usage
            The response's `usage`.
        tier
            The response's `service_tier`, which stands beside the usage.
        """
        chat = "prompt_tokens" in usage
        prompt = _count(usage, "prompt_tokens" if chat else "input_tokens")
        details = usage.get("prompt_tokens_details" if chat else "input_tokens_details") or {}
        cached = min(_count(details, "cached_tokens"), prompt)
        written = min(_count(details, "cache_write_tokens"), prompt - cached)
        return cls(
            prompt - cached - written,
            _count(usage, "completion_tokens" if chat else "output_tokens"),
            cached,
            written,
            tier=_tier(tier),
        )

    @classmethod
    def from_google(cls, usage: Mapping[str, Any]) -> TokenUsage:
        """Read Gemini's `usageMetadata`: the prompt includes the cached, the candidates exclude thoughts."""
        prompt = _count(usage, "promptTokenCount") + _count(usage, "toolUsePromptTokenCount")
        cached = min(_count(usage, "cachedContentTokenCount"), prompt)
        output = _count(usage, "candidatesTokenCount") + _count(usage, "thoughtsTokenCount")
        return cls(prompt - cached, output, cached)


def _count(usage: Mapping[str, Any], name: str) -> int:
    return int(usage.get(name) or 0)


def _tier(name: object) -> str:
    return "standard" if name in (None, "", "auto", "default", "standard") else str(name)

"""One model call as an event: its tokens, its price, and one count for a call that is seen twice."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from decimal import Decimal

    from agentops_monitoring.pricing import TokenUsage
    from agentops_monitoring.trace import TraceContext

_MAX_CALLS = 256

# The token kinds: our argument, and the field of the line.
TOKEN_FIELDS = (
    ("input_tokens", "gen_ai.usage.input_tokens"),
    ("output_tokens", "gen_ai.usage.output_tokens"),
    ("cache_read_tokens", "gen_ai.usage.cache_read.input_tokens"),
    ("cache_write_tokens", "gen_ai.usage.cache_creation.input_tokens"),
    ("cache_write_1h_tokens", "cache_creation_1h.input_tokens"),
)


class Call(NamedTuple):
    """A model call that was seen by itself, waiting for its agent to report it as well."""

    response_id: str | None
    model: str
    tokens: tuple[int, ...]


def token_count(value: object) -> int | None:
    """Return a number of tokens as a plain int; None for what is no number of tokens."""
    try:
        if isinstance(value, bool):
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        count = operator.index(value)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - whatever a foreign number's own method raises
        return None
    return count if count >= 0 else None


def price(model: str, usage: TokenUsage, region: str | None) -> Decimal | None:
    """Return the USD of a call, or None where the price book has no answer."""
    from agentops_monitoring import pricing

    return pricing.llm_cost(model, usage, region=region)


def provider_of(model: str) -> str | None:
    """Name a model's provider as the OpenTelemetry conventions do, where its name tells."""
    if model.startswith("arn:") or (
        model.partition(".")[2] and not model.startswith(("gpt-", "gemini-", "claude-"))
    ):
        return "aws.bedrock"
    for prefix, provider in (
        ("claude", "anthropic"),
        ("gpt-", "openai"),
        ("o1", "openai"),
        ("o3", "openai"),
        ("o4", "openai"),
        ("text-embedding-", "openai"),
        ("gemini", "gcp.gemini"),
    ):
        if model.startswith(prefix):
            return provider
    return None


def _key(model: str) -> str:
    from agentops_monitoring import pricing

    return pricing.resolve(model) or model


def remember(context: TraceContext, response_id: str | None, model: str, tokens: tuple[int, ...]) -> None:
    """Note a call that was seen by itself."""
    calls = context.calls
    calls.append(Call(response_id, model, tokens))
    if len(calls) > _MAX_CALLS:
        del calls[0]


def claim(context: TraceContext, response_id: str | None, model: str, tokens: tuple[int, ...]) -> bool:
    """Whether a call reported by hand is one already seen; each seen call can be claimed once."""
    for call in list(context.calls):
        if not isinstance(call, Call):
            continue
        if response_id is not None and call.response_id is not None:
            same = call.response_id == response_id
        else:
            same = call.tokens == tokens and _key(call.model) == _key(model)
        if same:
            try:
                context.calls.remove(call)
            except ValueError:  # another thread claimed it
                continue
            return True
    return False


def converse_usage(answer: Mapping[str, Any]) -> TokenUsage | None:
    """Return the tokens of an answer of Bedrock Converse, or of the last event of its stream."""
    from agentops_monitoring.pricing import TokenUsage

    usage = answer.get("usage")
    if not usage:
        return None
    tier = (answer.get("serviceTier") or {}).get("type", "standard")
    return TokenUsage.from_bedrock(usage)._replace(tier="standard" if tier == "default" else tier)


def read_response(response: object) -> tuple[str | None, str | None, TokenUsage | None]:
    """Return model, response id and tokens of a response of Bedrock Converse, Anthropic or OpenAI."""
    from agentops_monitoring.pricing import TokenUsage

    body = _mapping(response)
    usage = _mapping(body.get("usage"))
    model, response_id = body.get("model"), body.get("id")
    tokens = None
    if "inputTokens" in usage:
        tokens = converse_usage(body)
        response_id = _mapping(body.get("ResponseMetadata")).get("RequestId")
    elif "prompt_tokens" in usage or "input_tokens_details" in usage:
        tier = body.get("service_tier")
        tokens = TokenUsage.from_openai(_deep(usage), tier if isinstance(tier, str) else None)
    elif "input_tokens" in usage:
        tokens = TokenUsage.from_anthropic(_deep(usage))
    return (
        model if isinstance(model, str) else None,
        response_id if isinstance(response_id, str) else None,
        tokens,
    )


def _mapping(value: object) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    dump = getattr(type(value), "model_dump", None)
    if callable(dump):
        dumped = dump(value)
        return dumped if isinstance(dumped, Mapping) else {}
    return vars(value) if hasattr(value, "__dict__") else {}


def _deep(usage: Mapping[str, Any]) -> dict[str, Any]:
    plain = (str, int, float, bool, type(None))
    return {key: value if isinstance(value, plain) else _mapping(value) for key, value in usage.items()}

"""What a provider's response says of a model call: its model, its id and its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentops_monitoring.pricing import TokenUsage


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


def body_usage(body: Mapping[str, Any], headers: Mapping[str, str]) -> TokenUsage | None:
    """Read the tokens of InvokeModel, whose body is the model's own."""
    from agentops_monitoring.pricing import TokenUsage

    usage = body.get("usage")
    if isinstance(usage, Mapping):
        if "input_tokens" in usage:
            return TokenUsage.from_anthropic(usage)
        if "prompt_tokens" in usage:
            return TokenUsage.from_openai(usage)
        if "inputTokens" in usage:
            counts = {**usage}
            for kind in ("Read", "Write"):
                counts.setdefault(f"cache{kind}InputTokens", usage.get(f"cache{kind}InputTokenCount", 0))
            return TokenUsage.from_bedrock(counts)
    metrics = body.get("amazon-bedrock-invocationMetrics")
    if isinstance(metrics, Mapping):
        return TokenUsage(
            metrics["inputTokenCount"],
            metrics["outputTokenCount"],
            metrics.get("cacheReadInputTokenCount") or 0,
            metrics.get("cacheWriteInputTokenCount") or 0,
        )
    prefix = "x-amzn-bedrock-"
    if f"{prefix}input-token-count" in headers:
        return TokenUsage(
            int(headers[f"{prefix}input-token-count"]),
            # An embedding has no output.
            int(headers.get(f"{prefix}output-token-count", 0)),
            int(headers.get(f"{prefix}cache-read-input-token-count", 0)),
            int(headers.get(f"{prefix}cache-write-input-token-count", 0)),
        )
    return None

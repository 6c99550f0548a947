"""One model call as an event: its tokens, its price, and one count for a call that is seen twice."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from agentops_monitoring import arguments, responses, trace
from agentops_monitoring.event_types import AgentEventType

if TYPE_CHECKING:
    from decimal import Decimal

    from agentops_monitoring.pricing import TokenUsage
    from agentops_monitoring.recorder import Recorder
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


def track(
    recorder: Recorder,
    *,
    model: str | None,
    tokens: Mapping[str, object],
    tier: str,
    region: str | None,
    provider: str | None,
    response_id: str | None,
    response: object,
    duration_ms: float | None,
) -> Decimal | None:
    """Write a model call that the agent reports; see `AgentOpsMonitor.track_llm_usage`."""
    problems: list[str] = []
    response_id = arguments.label("response_id", response_id, problems)
    tier = arguments.label("tier", tier, problems) or "standard"
    read = None
    if response is not None:
        try:
            model_read, id_read, read = responses.read_response(response)
            model, response_id = model_read if model is None else model, response_id or id_read
        except Exception as error:  # noqa: BLE001 - a response of a shape nobody foresaw
            problems.append(f"response cannot be read: {type(error).__name__}")
    given = dict(tokens)
    if read is not None and given["input_tokens"] is None and given["output_tokens"] is None:
        given = {name: getattr(read, name) for name in given}
        tier = read.tier if tier == "standard" else tier
    if not arguments.is_text(model) or not model:
        problems.append(f"model {arguments.shown(model)} is no name")
        model = "unknown"
    counts: dict[str, int | None] = {}
    for name, value in given.items():
        counts[name] = token_count(value)
        if counts[name] is None:
            problems.append(f"{name} {arguments.shown(value)} is no number of tokens")
    recorder.check(problems)
    try:
        return record_call(
            recorder,
            model=model,
            tokens=counts,
            tier=tier,
            region=arguments.label("region", region, problems),
            provider=arguments.label("provider", provider, problems),
            response_id=response_id,
            duration_ms=duration_ms,
            source="manual",
            problems=problems,
            context=trace.current(),
        )
    except Exception:  # noqa: BLE001 - never into the agent
        return None


def record_call(
    recorder: Recorder,
    *,
    model: str,
    tokens: Mapping[str, int | None],
    tier: str,
    region: str | None,
    provider: str | None,
    response_id: str | None,
    duration_ms: float | None,
    source: str,
    problems: list[str],
    context: TraceContext,
) -> Decimal | None:
    """Write one model call; the way in for our own instrumentation. A count of None is not known."""
    from agentops_monitoring import pricing

    known = {name: count for name, count in tokens.items() if count is not None}
    cost = None
    if len(known) == len(tokens):
        try:
            cost = price(model, pricing.TokenUsage(**known, tier=tier), region)
        except Exception as error:  # noqa: BLE001 - no price is better than no event
            problems.append(f"no price: {type(error).__name__}")
        counts = tuple(known.values())
        if source == "auto":
            remember(context, response_id, model, counts)
        elif claim(context, response_id, model, counts):
            return cost
    data: dict[str, Any] = {
        "gen_ai.request.model": model,
        "gen_ai.provider.name": provider or provider_of(model),
        **{field: tokens[name] for name, field in TOKEN_FIELDS},
        "gen_ai.response.id": response_id,
        "cost_usd": None if cost is None else f"{cost:f}",
        "duration_ms": duration_ms,
        "source": source,
        "tier": tier,
        "region": region,
    }
    recorder.emit(AgentEventType.LLM_USAGE, data, context=context, problems=problems, checked=True)
    return cost

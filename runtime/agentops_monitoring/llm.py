"""One model call as an event: its tokens, its price, and one count for a call that is seen twice.

A call may be seen by our instrumentation and be reported by its agent as well, in either order. Whoever comes
first is the call and counts; the other one leaves at most a record of type `llm_annotation`, which has no
cost: {"annotates": the counted event's id, "source", "metadata", "duration_ms", what differs}.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agentops_monitoring import arguments, redaction, trace
from agentops_monitoring.calls import Call, Counts, counted_before, same_tokens
from agentops_monitoring.encoding import Encoded, encode
from agentops_monitoring.event_types import LLM_ANNOTATION, AgentEventType

if TYPE_CHECKING:
    from decimal import Decimal

    from agentops_monitoring.recorder import Recorder
    from agentops_monitoring.trace import TraceContext

_LLM_USAGE = AgentEventType.LLM_USAGE.value
_MAX_FIXED = 256
_MAX_TOKENS = 10**12
"""The ledger takes no more for a number of tokens either."""

# The token kinds, in the order of `TokenUsage`: our argument, and the field of the line.
TOKEN_FIELDS = (
    ("input_tokens", "gen_ai.usage.input_tokens"),
    ("output_tokens", "gen_ai.usage.output_tokens"),
    ("cache_read_tokens", "gen_ai.usage.cache_read.input_tokens"),
    ("cache_write_tokens", "gen_ai.usage.cache_creation.input_tokens"),
    ("cache_write_1h_tokens", "cache_creation_1h.input_tokens"),
)

Extra = tuple[tuple[str, int], ...]


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
    return count if 0 <= count < _MAX_TOKENS else None


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


def track(
    recorder: Recorder,
    model: object,
    tokens: tuple[object, ...],
    tier: object,
    region: object,
    provider: object,
    response_id: object,
    response: object,
    duration_ms: float | None,
    metadata: object,
) -> Decimal | None:
    """Write a model call that the agent reports; see `AgentOpsMonitor.track_llm_usage`.

    `tokens` are in the order of `TokenUsage`.
    """
    problems: list[str] = []
    extra: Extra = ()
    if response is not None:
        from agentops_monitoring import responses

        try:
            read = responses.read_response(response)
            model, response_id = read.model if model is None else model, response_id or read.response_id
            if read.usage is not None and tokens[0] is None and tokens[1] is None:
                tokens, extra = read.usage[:5], read.usage.extra
                tier = read.usage.tier if tier == "standard" else tier
        except Exception as error:  # noqa: BLE001 - a response of a shape nobody foresaw
            problems.append(f"response cannot be read: {type(error).__name__}")
    if type(model) is not str or not model:
        model = _name(model, problems)
    counts: Counts = tokens  # type: ignore[assignment]
    for count in tokens:
        if type(count) is not int or not 0 <= count < _MAX_TOKENS:
            counts = _counts(tokens, problems)
            break
    if metadata is not None and not arguments.is_mapping(metadata):
        problems.append(f"metadata is no mapping but {type(metadata).__name__}")
        metadata = {"value": metadata}
    tier = _label("tier", tier, problems) or "standard"
    region = _label("region", region, problems)
    provider = _label("provider", provider, problems)
    response_id = _label("response_id", response_id, problems)
    if problems:
        recorder.check(problems)
    try:
        return _record(
            recorder, model, counts, tier, extra, region, provider, response_id, duration_ms, "manual",
            problems, trace.current(), metadata,
        )  # fmt: skip
    except Exception:  # noqa: BLE001 - never into the agent
        return None


def _label(name: str, given: object, problems: list[str]) -> str | None:
    if given is None or type(given) is str:
        return given
    found = arguments.label(name, given, problems)
    # Its subclasses may override anything.
    return None if found is None else str.__str__(found)


def _name(model: object, problems: list[str]) -> str:
    if arguments.is_text(model) and str.__len__(model):
        return str.__str__(model)
    problems.append(f"model {arguments.shown(model)} is no name")
    return "unknown"


def _counts(tokens: tuple[object, ...], problems: list[str]) -> Counts:
    counts = tuple(token_count(value) for value in tokens)
    for (name, _), value, count in zip(TOKEN_FIELDS, tokens, counts, strict=True):
        if count is None:
            problems.append(f"{name} {arguments.shown(value)} is no number of tokens")
    return counts


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
    problems: list[str],
    context: TraceContext,
    source: str = "auto",
    extra: Extra = (),
    request_id: str | None = None,
) -> Decimal | None:
    """Write one model call that was seen by itself, its tokens by name; a count of None is not known.

    Whoever reports the call may name it by the id of its answer or by that of its request.
    """
    counts = tuple(token_count(tokens[name]) for name, _ in TOKEN_FIELDS)
    return _record(
        recorder, model, counts, tier, extra, region, provider, response_id, duration_ms, source, problems,
        context, None, request_id,
    )  # fmt: skip


def _record(
    recorder: Recorder,
    model: str,
    counts: Counts,
    tier: str,
    extra: Extra,
    region: str | None,
    provider: str | None,
    response_id: str | None,
    duration_ms: float | None,
    source: str,
    problems: list[str],
    context: TraceContext,
    metadata: Mapping[Any, Any] | None,
    request_id: str | None = None,
) -> Decimal | None:
    cost = None if None in counts else _price(model, counts, tier, extra, region, problems)
    ids = () if response_id is None else (response_id,)
    if request_id is not None and request_id != response_id:
        ids = (*ids, request_id)
    call = Call(ids, model, region, counts, cost is not None)
    counted = counted_before(context, source == "auto", call)
    if counted is not None:
        _annotate(recorder, counted, call, source, duration_ms, problems, context, metadata)
        return cost
    data = _data(model, provider, source, tier, counts, cost)
    if response_id is not None:
        data += f',"gen_ai.response.id":{encode(response_id)}'
    if duration_ms is not None:
        data += f',"duration_ms":{encode(duration_ms)}'
    if region is not None:
        data += f',"region":{encode(region)}'
    if extra:
        data += f',"extra_usage":{encode(dict(extra))}'
    if metadata is not None:
        data += f',"metadata":{encode(metadata)}'
    call.event_id = recorder.emit(
        _LLM_USAGE, Encoded(data + "}"), context=context, problems=problems, checked=True
    )
    return cost


def _data(
    model: str, provider: str | None, source: str, tier: str, counts: Counts, cost: Decimal | None
) -> str:
    """Return the fields that each call has, as they stand in the line; few change from call to call."""
    key = (model, provider, source, tier)
    fixed = _fixed.get(key)
    if fixed is None or redaction.filters:
        fixed = encode(
            {
                "gen_ai.request.model": model,
                "gen_ai.provider.name": provider or provider_of(model),
                "source": source,
                "tier": tier,
            }
        )[:-1]
        if len(_fixed) < _MAX_FIXED and not redaction.filters:
            _fixed[key] = fixed
    if None in counts:
        counts = tuple("null" if count is None else count for count in counts)  # type: ignore[misc]
    usd = "null" if cost is None else f'"{cost:f}"'
    return (
        f'{fixed},"gen_ai.usage.input_tokens":{counts[0]},"gen_ai.usage.output_tokens":{counts[1]},'
        f'"gen_ai.usage.cache_read.input_tokens":{counts[2]},'
        f'"gen_ai.usage.cache_creation.input_tokens":{counts[3]},'
        f'"cache_creation_1h.input_tokens":{counts[4]},"cost_usd":{usd}'
    )


_fixed: dict[tuple[str, str | None, str, str], str] = {}


def _price(
    model: str, counts: Counts, tier: str, extra: Extra, region: str | None, problems: list[str]
) -> Decimal | None:
    try:
        if extra:
            from agentops_monitoring import pricing

            usage = pricing.TokenUsage._make((*counts, tier, extra))
            fees = pricing.unpriced_fees(model, usage, region=region)
            problems += [f"{kind} are not in the price" for kind in fees]
        return (_cost_of or _load_prices())(model, counts, tier, extra, region)
    except Exception as error:  # noqa: BLE001 - no price is better than no event
        problems.append(f"no price: {type(error).__name__}")
        return None


_cost_of: Callable[..., Decimal | None] | None = None


def _load_prices() -> Callable[..., Decimal | None]:
    # Not at import, for agents that call no model; and an import within each call costs as much as its price.
    global _cost_of
    from agentops_monitoring.pricing import cost_of

    _cost_of = cost_of
    return cost_of


def _annotate(
    recorder: Recorder,
    counted: Call,
    call: Call,
    source: str,
    duration_ms: float | None,
    problems: list[str],
    context: TraceContext,
    metadata: Mapping[Any, Any] | None,
) -> None:
    """Keep what the second one to see a call knows beyond the first; nothing where that is nothing."""
    data: dict[str, Any] = {}
    if metadata is not None:
        data["metadata"] = metadata
    if source == "auto":
        data["duration_ms"] = duration_ms
        data["gen_ai.response.id"] = next(iter(call.ids), None)
    seen, reported = (call, counted) if source == "auto" else (counted, call)
    if None not in call.counts and not same_tokens(seen.counts, reported.counts):
        data.update(
            (field, count) for (_, field), count in zip(TOKEN_FIELDS, call.counts, strict=True) if count
        )
        problems = [*problems, "its tokens are not those that were counted"]
    if data or problems:
        data = {
            "annotates": counted.event_id,
            "gen_ai.request.model": call.model,
            "source": source,
            **data,
        }
        recorder.emit(LLM_ANNOTATION, data, context=context, problems=problems, checked=True)

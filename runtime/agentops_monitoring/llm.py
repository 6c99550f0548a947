"""One model call as an event: its tokens, its price, and one count for a call that is seen twice.

A call may be seen by our instrumentation and be reported by its agent as well, in either order. Whoever comes
first is the call and counts; the other one leaves at most a record of type `llm_annotation`, which has no
cost: {"annotates": the counted event's id, "source", "metadata", "duration_ms", what differs}.
"""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Callable, Mapping
from os import register_at_fork
from typing import TYPE_CHECKING, Any

from agentops_monitoring import arguments, redaction, trace
from agentops_monitoring.encoding import Encoded, encode
from agentops_monitoring.event_types import LLM_ANNOTATION, AgentEventType

if TYPE_CHECKING:
    from decimal import Decimal

    from agentops_monitoring.pricing import TokenUsage
    from agentops_monitoring.recorder import Recorder
    from agentops_monitoring.trace import TraceContext

_LLM_USAGE = AgentEventType.LLM_USAGE.value
_MAX_CALLS = 256
_SAME_CALL_S = 900
"""For how long a report without an id may mean a call of the same tokens: as an invocation may last."""

# The token kinds, in the order of `TokenUsage`: our argument, and the field of the line.
TOKEN_FIELDS = (
    ("input_tokens", "gen_ai.usage.input_tokens"),
    ("output_tokens", "gen_ai.usage.output_tokens"),
    ("cache_read_tokens", "gen_ai.usage.cache_read.input_tokens"),
    ("cache_write_tokens", "gen_ai.usage.cache_creation.input_tokens"),
    ("cache_write_1h_tokens", "cache_creation_1h.input_tokens"),
)

Counts = tuple[int | None, ...]
Extra = tuple[tuple[str, int], ...]


class _Call:
    """A model call that was counted, waiting for the other one who saw it."""

    __slots__ = ("at", "counts", "event_id", "model", "priced", "region", "response_id")

    def __init__(
        self, response_id: str | None, model: str, region: str | None, counts: Counts, priced: bool
    ) -> None:
        self.response_id = response_id
        self.model = model
        self.region = region
        self.counts = counts
        self.priced = priced
        self.at = time.monotonic()
        self.event_id: str | None = None


class _Log:
    """The calls of one invocation that nobody has claimed yet."""

    __slots__ = ("reported", "seen")

    def __init__(self) -> None:
        self.seen: list[_Call] = []
        self.reported: list[_Call] = []


# Re-entrant, since a signal's handler may report a call while its own thread is in here.
_lock = threading.RLock()


def _renew() -> None:
    # A fork may have copied the lock while another thread held it.
    global _lock
    _lock = threading.RLock()


register_at_fork(after_in_child=_renew)


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


def _counted(context: TraceContext, auto: bool, call: _Call) -> _Call | None:
    """Return the call that this one is and that has been counted, once; else note this one."""
    calls = context.calls
    with _lock:
        if calls:
            log = calls[0]
        else:
            log = _Log()
            calls.append(log)
        if not isinstance(log, _Log):
            return None
        others, own = (log.reported, log.seen) if auto else (log.seen, log.reported)
        for other in others:
            # A price that the counted one lacks must not get lost.
            if (other.priced or not call.priced) and _same(other, call, auto):
                others.remove(other)
                return other
        own.append(call)
        if len(own) > _MAX_CALLS:
            del own[0]
    return None


def _same(one: _Call, two: _Call, two_is_auto: bool) -> bool:
    if one.response_id is not None and two.response_id is not None:
        return one.response_id == two.response_id
    seen, reported = (two, one) if two_is_auto else (one, two)
    return (
        _same_tokens(seen.counts, reported.counts)
        and abs(two.at - one.at) <= _SAME_CALL_S
        and _same_model(one, two)
    )


def _same_tokens(seen: Counts, reported: Counts) -> bool:
    if seen == reported:
        return None not in seen
    if None in seen or None in reported or seen[1] != reported[1]:
        return False
    # Whoever reports by hand often leaves out what was cached, or takes it for a part of the input.
    prompt = sum(count or 0 for count in seen) - (seen[1] or 0)
    return reported[0] in (seen[0], prompt) and (reported[2:] == seen[2:] or not any(reported[2:]))


def _same_model(one: _Call, two: _Call) -> bool:
    if one.model == two.model:
        return True
    from agentops_monitoring import pricing

    # An agent calls "claude-3-opus" what it asked Bedrock for by a longer name; the region finds that one.
    region = one.region or two.region
    found = pricing.resolve(one.model, region=region)
    return found is not None and found == pricing.resolve(two.model, region=region)


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
        if type(count) is not int or count < 0:
            counts = _counts(tokens, problems)
            break
    if metadata is not None and not arguments.is_mapping(metadata):
        problems.append(f"metadata is no mapping but {type(metadata).__name__}")
        metadata = {"value": metadata}
    if type(tier) is not str or not tier:
        tier = arguments.label("tier", tier, problems) or "standard"
    if response_id is not None:
        response_id = arguments.label("response_id", response_id, problems)
    if region is not None:
        region = arguments.label("region", region, problems)
    if provider is not None:
        provider = arguments.label("provider", provider, problems)
    if problems:
        recorder.check(problems)
    try:
        return _record(
            recorder, model, counts, tier, extra, region, provider, response_id, duration_ms, "manual",
            problems, trace.current(), metadata,
        )  # fmt: skip
    except Exception:  # noqa: BLE001 - never into the agent
        return None


def _name(model: object, problems: list[str]) -> str:
    if arguments.is_text(model) and model:
        return str.__str__(model)
    problems.append(f"model {arguments.shown(model)} is no name")
    return "unknown"


def _counts(tokens: tuple[object, ...], problems: list[str]) -> Counts:
    counts = tuple(token_count(value) for value in tokens)
    for (name, _), value, count in zip(TOKEN_FIELDS, tokens, counts, strict=True):
        if count is None:
            problems.append(f"{name} {arguments.shown(value)} is no number of tokens")
    return counts


def record_usage(
    recorder: Recorder,
    *,
    model: str,
    usage: TokenUsage | None,
    region: str | None,
    provider: str | None,
    response_id: str | None,
    duration_ms: float | None,
    problems: list[str],
    context: TraceContext,
) -> Decimal | None:
    """Write one model call that was seen by itself; a usage of None is not known, and `problems` says why."""
    return _record(
        recorder,
        model,
        (None,) * len(TOKEN_FIELDS) if usage is None else usage[:5],
        "standard" if usage is None else usage.tier,
        () if usage is None else usage.extra,
        region,
        provider,
        response_id,
        duration_ms,
        "auto",
        problems,
        context,
        None,
    )


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
) -> Decimal | None:
    """Write one model call, its tokens by name; a count of None is not known."""
    counts = tuple(tokens[name] for name, _ in TOKEN_FIELDS)
    return _record(
        recorder, model, counts, tier, extra, region, provider, response_id, duration_ms, source, problems,
        context, None,
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
) -> Decimal | None:
    cost = None if None in counts else _price(model, counts, tier, extra, region, problems)
    call = _Call(response_id, model, region, counts, cost is not None)
    counted = _counted(context, source == "auto", call)
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
        if len(_fixed) < _MAX_CALLS and not redaction.filters:
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
    counted: _Call,
    call: _Call,
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
        data["gen_ai.response.id"] = call.response_id
    if call.counts != counted.counts and None not in call.counts:
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

"""One model call as an event: its tokens, its price, and one count for a call that is seen twice.

A call may be seen by our instrumentation and be reported by its agent as well, in either order. Whoever comes
first is the call and counts; the other one leaves at most a record of type `llm_annotation`, which has no
cost: {"annotates": the counted event's id, "source", "metadata", "duration_ms", what differs}.
"""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Mapping
from os import register_at_fork
from typing import TYPE_CHECKING, Any

from agentops_monitoring import arguments, trace
from agentops_monitoring.event_types import LLM_ANNOTATION, AgentEventType

if TYPE_CHECKING:
    from decimal import Decimal

    from agentops_monitoring.pricing import TokenUsage
    from agentops_monitoring.recorder import Recorder
    from agentops_monitoring.trace import TraceContext

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
    try:
        return _providers[model]
    except KeyError:
        pass
    if len(_providers) > _MAX_CALLS:
        _providers.clear()
    found = _providers[model] = _provider_of(model)
    return found


_providers: dict[str, str | None] = {}


def _provider_of(model: str) -> str | None:
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
    *,
    model: str | None,
    tokens: Mapping[str, object],
    tier: str,
    region: str | None,
    provider: str | None,
    response_id: str | None,
    response: object,
    duration_ms: float | None,
    metadata: Mapping[Any, Any] | None = None,
) -> Decimal | None:
    """Write a model call that the agent reports; see `AgentOpsMonitor.track_llm_usage`."""
    problems: list[str] = []
    response_id = arguments.label("response_id", response_id, problems)
    tier = arguments.label("tier", tier, problems) or "standard"
    extra: Extra = ()
    given = tuple(tokens.values())
    if response is not None:
        from agentops_monitoring import responses

        try:
            read = responses.read_response(response)
            model, response_id = read.model if model is None else model, response_id or read.response_id
            if read.usage is not None and given[0] is None and given[1] is None:
                given, extra = read.usage[:5], read.usage.extra
                tier = read.usage.tier if tier == "standard" else tier
        except Exception as error:  # noqa: BLE001 - a response of a shape nobody foresaw
            problems.append(f"response cannot be read: {type(error).__name__}")
    if not arguments.is_text(model) or not model:
        problems.append(f"model {arguments.shown(model)} is no name")
        model = "unknown"
    counts = []
    for (name, _), value in zip(TOKEN_FIELDS, given, strict=True):
        count = value if type(value) is int and value >= 0 else token_count(value)
        counts.append(count)
        if count is None:
            problems.append(f"{name} {arguments.shown(value)} is no number of tokens")
    if metadata is not None and not arguments.is_mapping(metadata):
        problems.append(f"metadata is no mapping but {type(metadata).__name__}")
        metadata = {"value": metadata}
    if problems:
        recorder.check(problems)
    try:
        return _record(
            recorder,
            model,
            tuple(counts),
            tier,
            extra,
            arguments.label("region", region, problems),
            arguments.label("provider", provider, problems),
            response_id,
            duration_ms,
            "manual",
            problems,
            trace.current(),
            metadata,
        )
    except Exception:  # noqa: BLE001 - never into the agent
        return None


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
    data: dict[str, Any] = {
        "gen_ai.request.model": model,
        "gen_ai.provider.name": provider or provider_of(model),
        "gen_ai.usage.input_tokens": counts[0],
        "gen_ai.usage.output_tokens": counts[1],
        "gen_ai.usage.cache_read.input_tokens": counts[2],
        "gen_ai.usage.cache_creation.input_tokens": counts[3],
        "cache_creation_1h.input_tokens": counts[4],
        "gen_ai.response.id": response_id,
        "cost_usd": None if cost is None else f"{cost:f}",
        "duration_ms": duration_ms,
        "source": source,
        "tier": tier,
        "region": region,
    }
    if extra:
        data["extra_usage"] = dict(extra)
    if metadata is not None:
        data["metadata"] = metadata
    call.event_id = recorder.emit(
        AgentEventType.LLM_USAGE, data, context=context, problems=problems, checked=True
    )
    return cost


def _price(
    model: str, counts: Counts, tier: str, extra: Extra, region: str | None, problems: list[str]
) -> Decimal | None:
    from agentops_monitoring import pricing

    usage = pricing.TokenUsage._make((*counts, tier, extra))
    try:
        if extra:
            fees = pricing.unpriced_fees(model, usage, region=region)
            problems += [f"{kind} are not in the price" for kind in fees]
        return pricing.llm_cost(model, usage, region=region)
    except Exception as error:  # noqa: BLE001 - no price is better than no event
        problems.append(f"no price: {type(error).__name__}")
        return None


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

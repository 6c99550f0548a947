"""What an event adds to which counters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from agentops_monitoring.event_types import BUILT_IN, CUSTOM_EVENT, RECORDS, AgentEventType
from agentops_monitoring.ledger import schema, sketch
from agentops_monitoring.ledger.events import Event, LlmCall, number_of
from agentops_monitoring.ledger.exact import EXACT, Number

Key = tuple[str, str]
"""A rollup's bucket (its partition key without the shard) and sort key."""

Increments = dict[Key, dict[str, Number]]

OVERHEAD = "overhead"
_LARGEST = 10**12
"""Of a duration in milliseconds, 31 years, and of any other number that an agent states."""
_LEAST = Decimal("1e-18")
"""Its last digit. Both bounds leave a counter digits for 10⁸ values; where they end, none could be added."""
_ROUND = Context(prec=38, rounding=ROUND_HALF_EVEN)
_MAX_MESSAGE_ID = 250
"""Beside an agent's 256 characters, each of four bytes, in a partition key: 2,048 bytes."""
_MAX_SORT_KEY = 1_024
"""Bytes: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html."""
UNATTRIBUTED_LLM = str(AgentEventType.LLM_USAGE)
"""`EventCost` type of model calls outside any invocation: there is no next domain event."""


def add(increments: Increments, key: Key, name: str, value: Number) -> None:
    """Add a value to one counter, exactly."""
    counters = increments.get(key)
    if counters is None:
        increments[key] = {name: value}
        return
    before = counters.get(name)
    if before is None:
        counters[name] = value
    elif type(before) is int and type(value) is int:
        counters[name] = before + value
    else:
        counters[name] = EXACT.add(before, value)


def merge(into: Increments, increments: Increments) -> None:
    """Add all counters of one set to another."""
    for key, counters in increments.items():
        if key not in into:
            into[key] = dict(counters)
            continue
        for name, value in counters.items():
            add(into, key, name, value)


def minus(after: Increments, before: Increments) -> Increments:
    """Return what must be added to `before` to get `after`; counters that do not change are left out."""
    result: Increments = {}
    for key in {**before, **after}:
        old, new = before.get(key, {}), after.get(key, {})
        for name in {**old, **new}:
            change = EXACT.subtract(new.get(name, 0), old.get(name, 0))
            if change:
                add(result, key, name, change)
    return result


def of_event(event: Event) -> Increments:
    """Return an event's own increments: all but what depends on its invocation or workflow."""
    hour = schema.hour_bucket(event.at)
    agent = schema.agent_key(event.agent)
    call = _of_call(event, event.call) if event.call is not None else {}
    counters = _counters(event) | call
    metric = event.metric if event.metric in BUILT_IN or event.metric in RECORDS else CUSTOM_EVENT
    increments: Increments = {
        (hour, schema.TOTAL): counters,
        (hour, agent): {**counters, f"n.{metric}": 1},
        (hour, schema.TYPES): {f"n.{event.metric}": 1},
    }
    if event.call is not None:
        increments[hour, schema.model_key(event.call.model)] = call
        if event.call.cost is not None:
            merge(increments, spend(event.at, event.agent, "llm_cost", event.call.cost))
            model = event.call.model
            merge(increments, of_workflow(event.workflow_id, event.agent, event.call.cost, model))
            if event.request_id is None:
                add(increments, (hour, schema.TYPES), f"c.{UNATTRIBUTED_LLM}", event.call.cost)
    elif event.type == AgentEventType.MESSAGE_SENT:
        pair = pair_of(event)
        if pair is not None:
            increments[hour, schema.flow_key(*pair)] = {"messages_sent": 1}
    elif event.type == AgentEventType.MESSAGE_RECEIVED and message_id(event) is None:
        merge(increments, received(event))
    return increments


def spend(at: str, agent: str, name: str, usd: Decimal) -> Increments:
    """Return what an amount of money adds to the budgets of its day and its month."""
    keys = schema.TOTAL, schema.agent_key(agent)
    return {(bucket, key): {name: usd} for bucket in schema.spend_buckets(at) for key in keys}


def days_of(keys: Iterable[Key]) -> set[str]:
    """Return the days whose hours are among some counters."""
    return {bucket[2:12] for bucket, _ in keys if bucket.startswith(schema.HOUR)}


def of_workflow(workflow_id: str, agent: str, usd: Decimal, model: str = "") -> Increments:
    """Return what an amount adds to the spend of a workflow; without a model it is of compute."""
    if not usd:
        return {}
    counters: dict[str, Number] = {"llm_cost" if model else "compute_cost": usd, f"a.{agent}": usd}
    if model:
        counters[f"m.{model}"] = usd
    return {(schema.workflow_bucket(workflow_id), schema.SPEND): counters}


def measure(data: Mapping[str, Any], name: str) -> Number | None:
    """Return a number that an agent states, as it is summed up; None for what is none or out of bounds."""
    value = number_of(data, name)
    if value is None or not -_LARGEST < value < _LARGEST:
        return None
    if type(value) is Decimal and value != (rounded := _ROUND.quantize(value, _LEAST)):
        return rounded
    return value  # type: ignore[no-any-return]


def message_id(event: Event) -> str | None:
    """Return which message a receipt is of; None for one that does not say, which counts by itself."""
    found = event.fields().get("message_id")
    return found if type(found) is str and 0 < len(found) <= _MAX_MESSAGE_ID else None


def received(event: Event) -> Increments:
    """Return what a message adds that was received; see `receipts`."""
    hour, data = schema.hour_bucket(event.at), event.fields()
    counters: dict[str, Number] = {"messages_received": 1}
    counters |= _timed("handoff", sketch.HANDOFF, measure(data, "latency_ms"))
    keys = [schema.TOTAL, schema.agent_key(event.agent)]
    increments: Increments = {(hour, key): dict(counters) for key in keys}
    pair = pair_of(event)
    if pair is not None:
        if "addressed_to" in data and not data["addressed_to"]:
            # Only who receives it makes known between whom it went.
            counters["messages_unaddressed"] = 1
        increments[hour, schema.flow_key(*pair)] = counters
    return increments


def pair_of(event: Event) -> tuple[str, str] | None:
    """Return who sent to whom; None for a message that names no receiver, or none that fits into a key."""
    data = event.fields()
    sender, to = data.get("from"), data.get("to")
    if not (type(sender) is str and type(to) is str and 0 < len(sender) <= 256 and 0 < len(to) <= 256):
        return None
    key = schema.flow_key(sender, to)
    return (sender, to) if len(key.encode("utf-8", "surrogatepass")) <= _MAX_SORT_KEY else None


def _counters(event: Event) -> dict[str, Number]:
    counters: dict[str, Number] = {"events": 1}
    match event.type:
        case AgentEventType.DECISION_MADE:
            confidence = measure(event.fields(), "confidence_score")
            if confidence is not None:
                counters |= {"confidence_sum": confidence, "confidence_n": 1}
        case AgentEventType.MESSAGE_SENT:
            counters["messages_sent"] = 1
        case AgentEventType.INVOCATION_COMPLETED | AgentEventType.INVOCATION_FAILED:
            if event.type == AgentEventType.INVOCATION_FAILED:
                counters["errors"] = 1
            counters |= _timed("handler", sketch.HANDLER, measure(event.fields(), "duration_ms"))
    return counters


def _timed(name: str, quantiles: str, milliseconds: Number | None) -> dict[str, Number]:
    """Return the counters of a duration: how many there are, their sum, their quantiles."""
    if milliseconds is None:
        return {}
    return {f"{name}_n": 1, f"{name}_ms": milliseconds, sketch.counter(quantiles, milliseconds): 1}


def _of_call(event: Event, call: LlmCall) -> dict[str, Number]:
    usage = call.usage
    counters: dict[str, Number] = {"llm_calls": 1}
    tokens = (
        ("input_tokens", usage.input_tokens),
        ("output_tokens", usage.output_tokens),
        ("cache_read_tokens", usage.cache_read_tokens),
        ("cache_write_tokens", usage.cache_write_tokens),
        ("cache_write_1h_tokens", usage.cache_write_1h_tokens),
    )
    counters |= {name: count for name, count in tokens if count}
    counters |= _timed("llm", sketch.LLM, measure(event.fields(), "duration_ms"))
    if call.cost is None:
        counters["unpriced"] = 1
    else:
        counters["llm_cost"] = call.cost
    return counters

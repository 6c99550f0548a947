"""The items of one event: raw, as a decision, as what became of a decision."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from agentops_monitoring.event_types import DECISION_OUTCOME, AgentEventType
from agentops_monitoring.ledger import rollup, schema
from agentops_monitoring.ledger.events import Event
from agentops_monitoring.ledger.exact import dynamo
from agentops_monitoring.ledger.payload import Attributes, pack

_ITEM_OVERHEAD_BYTES = 700
_MAX_REMARK = 10_000
_IS_NEW = "attribute_not_exists(pk)"
_OMITTED_FROM_EVENT = ("reasoning_chain", "inputs", "outputs", "alternatives")


class Written(NamedTuple):
    """The items of one event, rendered once however often the transaction is built."""

    event: Event
    actions: list[dict[str, Any]]
    pieces: list[tuple[str, bytes]]
    """(owner, content): data that no item can hold, to be put beforehand."""
    increments: rollup.Increments
    size: int
    mark: str | None = None
    """Key of the item that no other event may have put; a transaction takes each item once."""
    is_stub: bool = False
    """Whether it is an event of a workflow that was forgotten: the key alone."""


def render(event: Event, tables: schema.Tables, now: float) -> Written:
    """Render an event as conditional puts."""
    data = event.fields()
    is_decision = event.type == AgentEventType.DECISION_MADE
    text = json.dumps(event.data, separators=(",", ":"), ensure_ascii=False)
    shown = text
    if is_decision:
        kept = {name: value for name, value in data.items() if name not in _OMITTED_FROM_EVENT}
        shown = json.dumps(kept, separators=(",", ":"), ensure_ascii=False)
    packed, pieces = pack(shown)
    actions = [_put_new(tables.monitoring, _item(event, packed, now))]
    rest = [(event.id, piece) for piece in pieces]
    size = len(shown) + _ITEM_OVERHEAD_BYTES
    if is_decision:
        full, pieces = pack(text)
        owner = f"{event.id}#decision"
        rest += [(owner, piece) for piece in pieces]
        actions.append(_put_new(tables.decisions, _decision(event, full, now)))
        size += sum(len(value) for each in full.values() for value in each.values()) + _ITEM_OVERHEAD_BYTES
    elif event.type == DECISION_OUTCOME and isinstance(data.get("decision_id"), str) and data["decision_id"]:
        actions.append(_put_new(tables.decisions, _outcome(event, now)))
        size += len(text) + _ITEM_OVERHEAD_BYTES
    mark = _kept_answer(event)
    if mark is not None:
        item = {"pk": {"S": mark}, "sk": {"S": schema.STATE}, "expires_at": _expires(now)}
        actions.append(_put_new(tables.ledger, item))
    return Written(event, actions, rest, rollup.of_event(event), size, mark)


def stub(event: Event, tables: schema.Tables, now: float) -> Written:
    """Render an event of a workflow that was forgotten: it counts, and its key is all that is kept."""
    event.user_id = event.session_id = event.tags = None
    put = {**withdrawn(event, tables.monitoring, now)["Put"], "ConditionExpression": _IS_NEW}
    actions = [{"Put": put}]
    mark = _kept_answer(event)
    if mark is not None:
        item = {"pk": {"S": mark}, "sk": {"S": schema.STATE}, "expires_at": _expires(now)}
        actions.append(_put_new(tables.ledger, item))
    return Written(event, actions, [], rollup.of_event(event), _ITEM_OVERHEAD_BYTES, mark, is_stub=True)


def noted(event: Event) -> Written:
    """Return an event of which only the number is booked: what it tells of is in the ledger already."""
    return Written(event, [], [], {}, 0)


def _kept_answer(event: Event) -> str | None:
    """Return the key of an answer that its provider keeps; None for any other event.

    The results of a batch and the answers of the background can be fetched again, by other processes too, and
    are billed once. Nobody waited for them, so they have no duration.
    """
    data = event.fields()
    response = data.get("gen_ai.response.id")
    if event.call is None or not isinstance(response, str) or not response or "duration_ms" in data:
        return None
    if data.get("source") != "auto" and data.get("tier") != "batch":
        return None
    # With its tokens: should a server give the same id to different answers, none is lost.
    return schema.answer_pk(json.dumps([data.get("gen_ai.provider.name"), response, event.call.usage]))


def key_of(event: Event) -> Attributes:
    """Return the key of an event's item."""
    return {
        "pk": {"S": schema.workflow_pk(event.workflow_id)},
        "sk": {"S": schema.event_sk(event.own_at or event.at, event.id)},
    }


def _expires(now: float) -> dict[str, str]:
    return {"N": str(int(now) + schema.raw_ttl_s())}


def _item(event: Event, packed: Attributes, now: float) -> Attributes:
    day, shard = event.at[:10], schema.index_shard(event.id)
    item: Attributes = {
        **key_of(event),
        "type": {"S": event.type},
        "agent": {"S": event.agent},
        "at": {"S": event.at},
        "trace_id": {"S": event.trace_id},
        "span_id": {"S": event.span_id},
        "seq": {"N": str(event.seq)},
        "expires_at": _expires(now),
        "gsi1pk": {"S": schema.agent_index(event.agent, day, shard)},
        "gsi1sk": {"S": event.at},
        "gsi2pk": {"S": schema.type_index(event.type, day, shard)},
        "gsi2sk": {"S": event.at},
        **packed,
    }
    texts = {name: getattr(event, name) for name in ("parent_id", "request_id", "user_id", "session_id")}
    item |= {name: {"S": text} for name, text in texts.items() if text}
    if event.tags:
        item["tags"] = {"S": json.dumps(event.tags, separators=(",", ":"), ensure_ascii=False)}
    if event.problems:
        item["problems"] = {"S": json.dumps(event.problems)[:_MAX_REMARK]}
    if event.call is not None:
        item["model"] = {"S": event.call.model}
        if event.call.cost is not None:
            item["cost_usd"] = dynamo(event.call.cost)
    return item


def of_report(event: Event, table: str, now: float) -> dict[str, Any]:
    """Return the action that puts an event which was made of a report, whatever stood there before."""
    packed, _ = pack(json.dumps(event.data, separators=(",", ":")))
    return {"Put": {"TableName": table, "Item": _item(event, packed, now)}}


def withdrawn(event: Event, table: str, now: float) -> dict[str, Any]:
    """Return the action that takes an item back which was made of a report: readers pass over what is left.

    A put and no deletion, so that nothing in the plane may delete a record.
    """
    kept = {**key_of(event), "withdrawn": {"BOOL": True}, "expires_at": _expires(now)}
    return {"Put": {"TableName": table, "Item": kept}}


def _decision(event: Event, full: Attributes, now: float) -> Attributes:
    data = event.fields()
    kind = str(data.get("decision_type") or "unknown")[:256]
    item: Attributes = {
        **key_of(event),
        "agent": {"S": event.agent},
        "at": {"S": event.at},
        "trace_id": {"S": event.trace_id},
        "span_id": {"S": event.span_id},
        "decision_type": {"S": kind},
        "decision_id": {"S": str(data.get("decision_id") or event.id)[:256]},
        "expires_at": _expires(now),
        "gsi1pk": {"S": f"AGENT#{event.agent}"},
        "gsi1sk": {"S": event.at},
        "gsi2pk": {"S": f"DTYPE#{kind}"},
        "gsi2sk": {"S": event.at},
        **full,
    }
    confidence = rollup.measure(data, "confidence_score")
    if confidence is not None:
        item["confidence_score"] = dynamo(confidence)
    if event.request_id:
        item["request_id"] = {"S": event.request_id}
    return item


def _outcome(event: Event, now: float) -> Attributes:
    """What became of a decision, under the decision's id: whoever says so may not know its workflow."""
    data = event.fields()
    key = schema.outcome_pk(data["decision_id"])
    item: Attributes = {
        "pk": {"S": key},
        "sk": {"S": schema.event_sk(event.at, event.id)},
        "workflow_id": {"S": event.workflow_id},
        "agent": {"S": event.agent},
        "at": {"S": event.at},
        "expires_at": _expires(now),
        "gsi1pk": {"S": key},
        "gsi1sk": {"S": event.at},
    }
    if isinstance(data.get("correct"), bool):
        item["correct"] = {"BOOL": data["correct"]}
    score = rollup.measure(data, "score")
    if score is not None:
        item["score"] = dynamo(score)
    if data.get("evidence") is not None:
        text = json.dumps(data["evidence"], separators=(",", ":"), ensure_ascii=False)
        packed, pieces = pack(text, "evidence")
        # What no item can hold is in the event's own pieces.
        item |= {} if pieces else packed
    return item


def _put_new(table: str, item: Attributes) -> dict[str, Any]:
    return {"Put": {"TableName": table, "Item": item, "ConditionExpression": _IS_NEW}}

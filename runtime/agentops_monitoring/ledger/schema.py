"""Keys, attribute names and lifetimes of the three tables, in one place.

`agent-monitoring`, `agent-decisions`
    `pk = WF#<workflow>`, `sk = <at>#<event id>`; two indexes, by agent and by type. What became of a decision
    is in `agent-decisions` too, at `pk = OUTCOME#<decision id>` in the table and in its index by agent. An
    item of `agent-monitoring` with `withdrawn` is none any more: late lines told otherwise, or its workflow
    was forgotten.
`agent-ledger`
    ========================  =====================  ==================================================
    pk                        sk                     holds
    ========================  =====================  ==================================================
    `H#<hour>#<shard>`        `TOTAL`, `AGENT#<a>`   counters of an hour, see `Totals`
    `H#<hour>#<shard>`        `MODEL#<m>`            calls, tokens and cost of a model
    `H#<hour>#<shard>`        `FLOW#<from>#<to>`     messages of a pair of agents
    `H#<hour>#<shard>`        `TYPES`                `n.<type>` events, `c.<type>` their EventCost
    `H#<hour>#<shard>`        `OUTCOMES`             `c.<agent>`, `f.<agent>` workflows ended well, badly
    `D#<day>#<shard>`         `TOTAL`, `AGENT#<a>`   the day's spend, for budgets
    `M#<month>#<shard>`       `TOTAL`, `AGENT#<a>`   the month's spend
    `D#<day>`, `M#<month>`    as an hour's           what the hours of a closed day or month add up to
    `FOLD#<shard>`            `D#<day>`              `ver` rises with additions that the fold has to see
    `FOLDED`                  `D#<day>`, `M#<m>`     `seen`: up to which of them a day or month is folded
    `WS#<workflow>#<shard>`   `SPEND`                a workflow's spend: `llm_cost`, `compute_cost`, both by
                                                     `a.<agent>`, `m.<model>`
    `ALERT#<period>`          `<budget>#<threshold>`  that it was told, see `alerts`
    `ALERT#PENDING`           `<alert>`              an alert that is not known to be sent, until it is
    `INV#<stream>#<request>`  `STATE`                an invocation, versioned (`allocation`)
    `WF#<workflow>`           `STATE`                a workflow's agents and outcome, versioned
    `MSG#<agent>#<message>`   `STATE`                the first receipt of a message, versioned
    `ANSWER#<digest>`         `STATE`                a model's answer that can be fetched again, counted
    `PART#<event id>`         `<i>`                  a part of a split payload
    `DATA#<event id>`         `<i>`                  a piece of data too large for one item
    `SEQ#<nonce>`             `STATE`                which events of a process arrived, versioned
    `GAPS#<shard>`            `<nonce>`              those that did not, see `gaps`
    `LATER#<day>`             `<log event id>`       a line of a later version, whole, see `later`
    `CURSOR#<name>`           `STATE`                how far a scheduled job has come
    `FUNCTION#<agent>`        `<function>`           a function whose lines are the agent's (`origins`)
    `READY#<function>`        `<version, alias>`     how far its standing price is booked (`ready`)
    `RECON#<day>`             `LAMBDA#<agent>`       what AWS counted and what the ledger did (`reconcile`)
    `RECON#<day>`             `BEDROCK#<model>`      the same of a model
    `SHARDS`                  `STATE`                over how many shards is written, see `shards`
    `BUDGET#<agent>#<day>`    `STATE`                what its model calls may spend (`enforcement.table`)
    `STOPPED#<agent>`         `STATE`                an agent's last stop, versioned (`control.stops`)
    ========================  =====================  ==================================================

Hours, days and months are UTC. The shard is a hash of the log stream: a reader asks for all of them and adds.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from time import gmtime, strftime
from typing import Any, NamedTuple
from zlib import crc32

STATE = "STATE"
TOTAL = "TOTAL"
TYPES = "TYPES"
OUTCOMES = "OUTCOMES"
SPEND = "SPEND"
PENDING_ALERTS = "ALERT#PENDING"

HOUR, DAY, MONTH, SPENT = "H#", "D#", "M#", "WS#"
MARK = "FOLD"
SHARDS = "SHARDS"
FOLDED = "FOLDED"

DEFAULT_SHARDS = 4
"""Of counters; a reader looks at no fewer."""
INDEX_SHARDS = 4
_DAY_S = 86_400


class Tables(NamedTuple):
    """Names of the three tables."""

    monitoring: str
    decisions: str
    ledger: str

    @classmethod
    def from_environment(cls) -> Tables:
        """Read the names from the environment variables; each has its default."""
        from agentops_monitoring import settings

        found = settings.load()
        return cls(found.monitoring_table, found.decisions_table, found.ledger_table)


def client() -> Any:
    """Return a DynamoDB client whose own retries are few: the writer retries with what it knows."""
    import boto3
    from botocore.config import Config

    from agentops_monitoring.ledger import wire

    retries: Any = {"mode": "standard", "total_max_attempts": 4}
    # Checking each value of a transaction against the service's model takes as long as all else that ingest
    # does. DynamoDB checks the same; the tests have botocore check what is sent here.
    config = Config(retries=retries, connect_timeout=3, read_timeout=10, parameter_validation=False)
    found = boto3.client("dynamodb", config=config)
    wire.take_over(found)
    return found


def shards() -> int:
    """Return over how many items this process spreads a rollup: `AGENTOPS_LEDGER_SHARDS`."""
    return max(1, int(os.environ.get("AGENTOPS_LEDGER_SHARDS") or DEFAULT_SHARDS))


def shard_of(stream: str, count: int) -> int:
    """Return the shard that a log stream's rollups go to."""
    return crc32(stream.encode()) % count


def hour_bucket(at: str) -> str:
    """Return `H#2026-11-22T08` for an RFC 3339 time."""
    return f"{HOUR}{at[:13]}"


def day_bucket(at: str) -> str:
    """Return `D#2026-11-22`."""
    return f"{DAY}{at[:10]}"


def month_bucket(at: str) -> str:
    """Return `M#2026-11`."""
    return f"{MONTH}{at[:7]}"


def spend_buckets(at: str) -> tuple[str, str]:
    """Return where the spend of a time is summed up for budgets: its day and its month."""
    return day_bucket(at), month_bucket(at)


def workflow_bucket(workflow_id: str) -> str:
    """Return `WS#<workflow>`, where a workflow's spend is counted."""
    return f"WS#{workflow_id}"


def alert_pk(period: str) -> str:
    """Return the partition key of what was told in a period: a bucket of a day, a month or a workflow."""
    return f"ALERT#{period}"


def _quote(name: str) -> str:
    return name.replace("%", "%25").replace("#", "%23") if "#" in name or "%" in name else name


def _unquote(name: str) -> str:
    return name.replace("%23", "#").replace("%25", "%")


def agent_key(agent: str) -> str:
    """Return the sort key of an agent's rollup."""
    return f"AGENT#{_quote(agent)}"


def model_key(model: str) -> str:
    """Return the sort key of a model's rollup."""
    return f"MODEL#{_quote(model)}"


def flow_key(sender: str, to: str) -> str:
    """Return the sort key of a pair's rollup."""
    return f"FLOW#{_quote(sender)}#{_quote(to)}"


def parse_key(sk: str) -> tuple[str, tuple[str, ...]]:
    """Return a rollup's kind and the names in its sort key."""
    kind, *names = sk.split("#")
    return kind, tuple(_unquote(name) for name in names)


def workflow_pk(workflow_id: str) -> str:
    """Return the partition key of a workflow, in all three tables."""
    return f"WF#{workflow_id}"


def event_sk(at: str, event_id: str) -> str:
    """Return the sort key of an event."""
    return f"{at}#{event_id}"


def outcome_pk(decision_id: str) -> str:
    """Return the partition key of what became of a decision."""
    return f"OUTCOME#{decision_id[:256]}"


def invocation_pk(stream: str, request_id: str) -> str:
    """Return the partition key of an invocation's state; a retry keeps the request id."""
    return f"INV#{stream}#{request_id}"


def receipt_pk(agent: str, message_id: str) -> str:
    """Return the partition key of a message's state at a receiver."""
    return f"MSG#{_quote(agent)}#{message_id}"


def answer_pk(identity: str) -> str:
    """Return the partition key of a model's answer that can be fetched again."""
    return f"ANSWER#{blake2b(identity.encode(), digest_size=16).hexdigest()}"


def stopped_pk(agent: str) -> str:
    """Return the partition key of an agent's last stop."""
    return f"STOPPED#{_quote(agent)}"


def functions_pk(agent: str) -> str:
    """Return the partition key of an agent's functions."""
    return f"FUNCTION#{_quote(agent)}"


def ready_pk(function: str) -> str:
    """Return the partition key of how far is booked what keeping a function's environments ready costs."""
    return f"READY#{function}"


def reconciliation_pk(day: str) -> str:
    """Return the partition key of a day's reconciliation."""
    return f"RECON#{day}"


def reconciliation_sk(kind: str, name: str) -> str:
    """Return the sort key of what was held against AWS's count."""
    return f"{kind}#{_quote(name)}"


def sequence_pk(nonce: str) -> str:
    """Return the partition key of what is known of a process's numbers."""
    return f"SEQ#{nonce}"


def gaps_shard(shard: int) -> str:
    """Return the partition key of a share of the gaps, of `INDEX_SHARDS`."""
    return f"GAPS#{shard}"


def gaps_pk(nonce: str) -> str:
    """Return the partition key of a process's gaps."""
    return gaps_shard(index_shard(nonce))


def later_pk(at_ms: int) -> str:
    """Return the partition key of lines of a later version, by the day that they were logged on."""
    return f"LATER#{strftime('%Y-%m-%d', gmtime(at_ms / 1000))}"


def part_pk(event_id: str) -> str:
    """Return the partition key of the parts of a split payload."""
    return f"PART#{event_id}"


def pieces_pk(owner: str) -> str:
    """Return the partition key of the pieces of oversized data."""
    return f"DATA#{owner}"


def number_sk(number: int) -> str:
    """Return the sort key of a part or a piece; numbers sort as texts."""
    return f"{number:06d}"


def agent_index(agent: str, day: str, shard: int) -> str:
    """Return `gsi1pk` of agent-monitoring."""
    return f"AGENT#{agent}#{day}#{shard}"


def type_index(event_type: str, day: str, shard: int) -> str:
    """Return `gsi2pk` of agent-monitoring."""
    return f"TYPE#{event_type}#{day}#{shard}"


def index_shard(event_id: str) -> int:
    """Return the shard of an event in both indexes."""
    return crc32(event_id.encode()) % INDEX_SHARDS


@lru_cache(maxsize=1)
def raw_ttl_s() -> int:
    """Return the lifetime of raw items and states, seconds.

    It must exceed the retention of logs and dead letters together: what is replayed later is counted again.
    """
    return int(os.environ.get("AGENTOPS_RAW_TTL_DAYS") or 90) * _DAY_S


PART_TTL_S = 14 * _DAY_S
"""Of a part that waits for its siblings: as long as a dead letter may wait to be replayed."""
CLOSED_GAPS_TTL_S = _DAY_S
"""Of a process's gaps once they are closed."""
FOLD_AFTER = timedelta(hours=1)
"""From a day's end to its first fold. Who commits to it later, by a clock that is not wrong by as much, has
told the fold; AWS refuses requests of clocks that are wrong by more than five minutes:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html"""
HOURS_KEPT = timedelta(days=400)
"""Behind their day. Only what folds a day gives its hours an end: before, they live for ever."""
DAYS_KEPT = timedelta(days=3_653)
"""Ten years behind their end; months live for ever."""
_SEALED_BEFORE = timedelta(days=2)
CHECKS_TTL_S = 400 * _DAY_S
"""Of reconciliations, and of what they go by."""
_SPEND_TTL_S = 400 * _DAY_S
ALERTS_TTL_S = _SPEND_TTL_S
"""Of the marks that something was told; what is not sent yet stays until it is."""


def counters_ttl_s(bucket: str) -> int | None:
    """Return how long the counters of a bucket live after their last change, seconds; None for ever.

    Months, and the marks that tell the fold, are few and stay.
    """
    if bucket.startswith(SPENT):
        return raw_ttl_s()
    return _SPEND_TTL_S if bucket.startswith(DAY) else None


def end_of(period: str) -> datetime:
    """Return when a day (`D#2026-11-22`) or a month (`M#2026-11`) ends; the last there is, when it begins."""
    try:
        if period.startswith(DAY):
            return _start(period[2:]) + timedelta(days=1)
        return (_start(f"{period[2:]}-28") + timedelta(days=4)).replace(day=1)
    except OverflowError:
        return _start(f"{period[2:]}-01"[:10])


def is_closed(period: str, now: datetime) -> bool:
    """Whether a day or a month is over, so that it can be folded."""
    return now - FOLD_AFTER >= end_of(period)


def is_sealed(day: str, now: datetime) -> bool:
    """Whether the hours of a folded day may be gone, so that it stays what it is."""
    return now - HOURS_KEPT + _SEALED_BEFORE > end_of(day)


def _start(day: str) -> datetime:
    return datetime.fromisoformat(f"{day}T00:00:00+00:00")

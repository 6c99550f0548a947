"""The metrics of what a batch changed: views of the ledger, made of the very increments that were committed.

A cost that moves from one event type to another, as late lines make it, is emitted as the difference, so the
sums over time are right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from agentops_monitoring.catalogue import COLLABORATION, COSTS, EVENTS, MAX_PAIRS, MONITOR
from agentops_monitoring.emf import MetricValue, emf_lines
from agentops_monitoring.event_types import AgentEventType
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.exact import EXACT, Number
from agentops_monitoring.ledger.writer import WriteResult

Pair = tuple[str, str]


class BusiestPairs:
    """Decides which pairs of agents have a metric: all while they are few, then the busiest.

    Parameters
    ----------
    busiest
        Returns the pairs of late, busiest first; asked once an hour and only when there are too many.
    """

    def __init__(self, busiest: Callable[[], Iterable[Pair]]) -> None:
        self._busiest = busiest
        self._seen: set[Pair] = set()
        self._chosen: frozenset[Pair] = frozenset()
        self._hour = ""

    def has_metric(self, pair: Pair, hour: str) -> bool:
        """Whether a pair has one in this hour."""
        if pair in self._seen or len(self._seen) < MAX_PAIRS:
            self._seen.add(pair)
            if len(self._seen) < MAX_PAIRS:
                return True
        if self._hour != hour:
            self._hour = hour
            self._chosen = frozenset(list(self._busiest())[:MAX_PAIRS])
        return pair in self._chosen


def metric_lines(result: WriteResult, environment: str, now_ms: int, pairs: BusiestPairs) -> Iterator[str]:
    """Return the lines in embedded metric format that tell what was committed.

    Parameters
    ----------
    result
        What the writer returned.
    environment
        The deployment's name, the dimension `Environment`.
    now_ms
        Milliseconds since the epoch.
    pairs
        Which pairs of agents have a metric.
    """
    by_hour: dict[str, list[MetricValue]] = {}
    for (bucket, sk), counters in result.increments.items():
        if bucket.startswith("H#"):
            values = by_hour.setdefault(bucket, [])
            values.extend(_of_rollup(bucket, sk, counters, environment, pairs))
    own = {"Environment": environment}
    for bucket, values in by_hour.items():
        yield from emf_lines(values, at_ms=result.newest_ms.get(bucket, now_ms))
    for (minute, agent), change in result.failures.items():
        # An agent that Lambda ended could not say so itself. What is taken back is so in the minute in which
        # it was counted: in any other it would hide a true failure from an alarm.
        failed = [
            MetricValue(EVENTS, AgentEventType.INVOCATION_FAILED, change, where)
            for where in (own, own | {"AgentName": agent})
            if change
        ]
        yield from emf_lines(failed, at_ms=minute)
    health = [
        MetricValue(MONITOR, "Duplicates", result.duplicates, own),
        MetricValue(MONITOR, "Malformed", sum(not each.forged for each in result.rejects), own),
        MetricValue(MONITOR, "Forged", sum(each.forged for each in result.rejects), own),
        MetricValue(MONITOR, "LaterLines", result.later, own),
        MetricValue(MONITOR, "Problems", result.problems, own),
    ]
    if result.oldest_ms:
        health.append(MetricValue(MONITOR, "IngestLag", max(0, now_ms - result.oldest_ms), own))
    if result.handoff_ms:
        health.append(MetricValue(COLLABORATION, "HandoffLatency", result.handoff_ms, own))
    yield from emf_lines(health, at_ms=now_ms)


def _of_rollup(
    bucket: str, sk: str, counters: Mapping[str, Number], environment: str, pairs: BusiestPairs
) -> Iterator[MetricValue]:
    kind, names = schema.parse_key(sk)
    own = {"Environment": environment}
    if kind in (schema.TOTAL, "AGENT"):
        where = own if kind == schema.TOTAL else own | {"AgentName": names[0]}
        llm, compute = counters.get("llm_cost", 0), counters.get("compute_cost", 0)
        for name, value in (
            ("LLMCost", llm),
            ("LambdaExecutionCost", compute),
            ("TotalCost", EXACT.add(llm, compute)),
        ):
            if value:
                yield MetricValue(COSTS, name, float(value), where)
        if counters.get("llm_calls"):
            yield MetricValue(COSTS, "UnpricedCalls", float(counters.get("unpriced", 0)), where)
        if kind == schema.TOTAL and counters.get("messages_sent"):
            yield MetricValue(COLLABORATION, "MessageCount", float(counters["messages_sent"]), own)
    elif kind == "MODEL":
        where = own | {"Model": names[0]}
        for name, counter in (
            ("LLMCost", "llm_cost"),
            ("InputTokens", "input_tokens"),
            ("OutputTokens", "output_tokens"),
            ("CacheReadTokens", "cache_read_tokens"),
        ):
            if counter in counters or counter == "cache_read_tokens":
                yield MetricValue(COSTS, name, float(counters.get(counter, 0)), where)
    elif kind == schema.TYPES:
        for name, value in counters.items():
            if name.startswith("c.") and value:
                yield MetricValue(COSTS, "EventCost", float(value), own | {"EventType": name[2:]})
    elif kind == "FLOW":
        count = counters.get("messages_sent", 0) + counters.get("messages_unaddressed", 0)
        if count and pairs.has_metric((names[0], names[1]), bucket):
            where = own | {"FromAgent": names[0], "ToAgent": names[1]}
            yield MetricValue(COLLABORATION, "AgentCommunication", float(count), where)

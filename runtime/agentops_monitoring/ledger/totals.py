"""Counters as the reader returns them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from agentops_monitoring.ledger import schema, sketch
from agentops_monitoring.ledger.exact import EXACT, Number
from agentops_monitoring.ledger.rollup import Increments


class _Quantile:
    """A quantile of one of the sketches; None without any value. Within 2 %, see `sketch`."""

    def __init__(self, name: str, q: float) -> None:
        self._name, self._q = name, q

    def __get__(self, totals: Totals, owner: type[Totals] | None = None) -> float | None:
        return sketch.quantile(totals.counters, self._name, self._q)


class Totals:
    """Counters of one hour or window: of everything, of an agent, of a model, or of a pair of agents.

    Which of them are ever counted depends on what it is of; the others are 0.
    """

    __slots__ = ("counters",)

    # Milliseconds: of the handler's runs, of model calls, and from a message's sending to its receiving.
    p50_handler_ms = _Quantile(sketch.HANDLER, 0.5)
    p95_handler_ms = _Quantile(sketch.HANDLER, 0.95)
    p99_handler_ms = _Quantile(sketch.HANDLER, 0.99)
    p50_llm_ms = _Quantile(sketch.LLM, 0.5)
    p95_llm_ms = _Quantile(sketch.LLM, 0.95)
    p99_llm_ms = _Quantile(sketch.LLM, 0.99)
    p50_handoff_ms = _Quantile(sketch.HANDOFF, 0.5)
    p95_handoff_ms = _Quantile(sketch.HANDOFF, 0.95)
    p99_handoff_ms = _Quantile(sketch.HANDOFF, 0.99)

    def __init__(self, counters: Mapping[str, Number] | None = None) -> None:
        self.counters: dict[str, Number] = dict(counters or {})

    def _int(self, name: str) -> int:
        return int(self.counters.get(name, 0))

    def _usd(self, name: str) -> Decimal:
        return Decimal(self.counters.get(name, 0))

    def _mean(self, total: str, count: str) -> float | None:
        n = self.counters.get(count, 0)
        return float(self.counters.get(total, 0)) / float(n) if n else None

    @property
    def events(self) -> int:
        """Events recorded."""
        return self._int("events")

    @property
    def errors(self) -> int:
        """Handlers' runs that failed: they raised, or Lambda ended them."""
        return self._int("errors")

    @property
    def by_type(self) -> dict[str, int]:
        """Events by metric; agents only (undeclared and declared types of their own are `custom_event`)."""
        return {
            name.removeprefix("n."): int(value)
            for name, value in self.counters.items()
            if name.startswith("n.") and value
        }

    @property
    def llm_calls(self) -> int:
        """Model calls."""
        return self._int("llm_calls")

    @property
    def unpriced_calls(self) -> int:
        """Model calls without a known price; their cost is in no sum."""
        return self._int("unpriced")

    @property
    def input_tokens(self) -> int:
        """Prompt tokens, cached ones excluded."""
        return self._int("input_tokens")

    @property
    def output_tokens(self) -> int:
        """Generated tokens."""
        return self._int("output_tokens")

    @property
    def cache_read_tokens(self) -> int:
        """Prompt tokens read from a cache."""
        return self._int("cache_read_tokens")

    @property
    def cache_write_tokens(self) -> int:
        """Prompt tokens written to a cache of the default lifetime."""
        return self._int("cache_write_tokens")

    @property
    def cache_write_1h_tokens(self) -> int:
        """Prompt tokens written to a cache that lives for an hour."""
        return self._int("cache_write_1h_tokens")

    @property
    def llm_cost(self) -> Decimal:
        """USD of model calls."""
        return self._usd("llm_cost")

    @property
    def compute_cost(self) -> Decimal:
        """USD of Lambda compute and requests."""
        return self._usd("compute_cost")

    @property
    def total_cost(self) -> Decimal:
        """USD of both."""
        return EXACT.add(self.llm_cost, self.compute_cost)

    @property
    def invocations(self) -> int:
        """Invocation attempts that Lambda reported."""
        return self._int("invocations")

    @property
    def cold_starts(self) -> int:
        """Attempts with an INIT."""
        return self._int("cold_starts")

    @property
    def failed_runs(self) -> int:
        """Attempts that Lambda reported as failed: time-out, crash, out of memory."""
        return self._int("failed_runs")

    @property
    def provisioned_runs(self) -> int:
        """Attempts in an environment of provisioned concurrency, at its lower rate."""
        return self._int("provisioned_runs")

    @property
    def ready_s(self) -> int:
        """Seconds for which environments were kept ready, all added up; `compute_cost` holds their price."""
        return self._int("ready_s")

    @property
    def ready_unpriced_s(self) -> int:
        """The same where there is no known price; it is in no sum."""
        return self._int("ready_unpriced_s")

    @property
    def unstarted_runs(self) -> int:
        """Attempts that rest on a report line alone: no monitor, an INIT that failed, or a line printed."""
        return self._int("unstarted_runs")

    @property
    def billed_ms(self) -> int:
        """Billed milliseconds."""
        return self._int("billed_ms")

    @property
    def mean_confidence(self) -> float | None:
        """Mean confidence of decisions that state one; None without any."""
        return self._mean("confidence_sum", "confidence_n")

    @property
    def messages_sent(self) -> int:
        """Messages sent."""
        return self._int("messages_sent")

    @property
    def messages_received(self) -> int:
        """Messages received, each once for each receiver, however often it was delivered."""
        return self._int("messages_received")

    @property
    def messages(self) -> int:
        """Messages of a pair: those sent by name, and of the others those received."""
        return self.messages_sent + self._int("messages_unaddressed") or self.messages_received

    @property
    def mean_handoff_ms(self) -> float | None:
        """Mean time from sending to receiving; None without any."""
        return self._mean("handoff_ms", "handoff_n")

    @property
    def mean_handler_ms(self) -> float | None:
        """Mean duration of the handler; None without any."""
        return self._mean("handler_ms", "handler_n")

    @property
    def mean_llm_ms(self) -> float | None:
        """Mean duration of the model calls that were timed; None without any."""
        return self._mean("llm_ms", "llm_n")

    @property
    def workflows_completed(self) -> int:
        """Workflows (that the agent took part in) which reached their goal."""
        return self._int("workflows_completed")

    @property
    def workflows_failed(self) -> int:
        """Workflows (that the agent took part in) which were given up."""
        return self._int("workflows_failed")

    @property
    def success_rate(self) -> float:
        """Completed ÷ ended workflows; NaN when none ended."""
        ended = self.workflows_completed + self.workflows_failed
        return self.workflows_completed / ended if ended else math.nan


class TypeTotals(NamedTuple):
    """What there is of an event type."""

    events: int
    cost: Decimal
    """EventCost, USD: what led to these events; type `overhead` is what led to none."""


@dataclass(slots=True)
class Rollups:
    """Everything counted in an hour or a window."""

    total: Totals = field(default_factory=Totals)
    agents: dict[str, Totals] = field(default_factory=dict)
    models: dict[str, Totals] = field(default_factory=dict)
    flows: dict[tuple[str, str], Totals] = field(default_factory=dict)
    types: dict[str, TypeTotals] = field(default_factory=dict)


def rollups(increments: Increments) -> Rollups:
    """Return merged counters by what they count; their buckets no longer matter."""
    result = Rollups()
    outcomes: dict[str, dict[str, Number]] = {}
    for (_, sk), counters in increments.items():
        kind, names = schema.parse_key(sk)
        if not any(counters.values()):
            continue  # all was taken back that had been counted
        if kind == schema.TOTAL:
            result.total = Totals(counters)
        elif kind == "AGENT":
            result.agents[names[0]] = Totals(counters)
        elif kind == "MODEL":
            result.models[names[0]] = Totals(counters)
        elif kind == "FLOW":
            result.flows[names[0], names[1]] = Totals(counters)
        elif kind == schema.TYPES:
            for name in sorted({each[2:] for each in counters}):
                count, cost = counters.get(f"n.{name}", 0), counters.get(f"c.{name}", 0)
                if count or cost:
                    result.types[name] = TypeTotals(int(count), Decimal(cost))
        elif kind == schema.OUTCOMES:
            outcomes = {agent: {} for agent in sorted({each[2:] for each in counters})}
            for name, value in counters.items():
                ended = "workflows_completed" if name[0] == "c" else "workflows_failed"
                outcomes[name[2:]][ended] = value
    for agent, counters in outcomes.items():
        result.agents.setdefault(agent, Totals()).counters.update(counters)
    return result

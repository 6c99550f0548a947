"""Every custom metric, declared once.

The emitters, the dashboards, the alarms and docs/metrics.md read this module, so nothing can show or watch
a metric that nothing emits. `python -m agentops_monitoring.catalogue` prints docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from agentops_monitoring.event_metrics import AGENT_NAME as AGENT_NAME
from agentops_monitoring.event_metrics import BY_AGENT as BY_AGENT
from agentops_monitoring.event_metrics import BY_ENVIRONMENT as BY_ENVIRONMENT
from agentops_monitoring.event_metrics import ENVIRONMENT as ENVIRONMENT
from agentops_monitoring.event_metrics import EVENT_SETS, DimensionSet, detail_of, sets_at
from agentops_monitoring.event_metrics import EVENTS as EVENTS
from agentops_monitoring.event_metrics import MetricDetail as MetricDetail
from agentops_monitoring.event_types import (
    BUILT_IN,
    CUSTOM_EVENT,
    DOMAIN_EVENTS,
    AgentEventType,
    is_valid_name,
)

if TYPE_CHECKING:
    from decimal import Decimal

COSTS = "AgentOps/Costs"
COLLABORATION = "AgentOps/Collaboration"
ANOMALIES = "AgentOps/Anomalies"
MONITOR = "AgentOps/Monitor"

EVENT_TYPE = "EventType"
MODEL = "Model"
FROM_AGENT = "FromAgent"
TO_AGENT = "ToAgent"

BY_EVENT_TYPE: DimensionSet = (ENVIRONMENT, EVENT_TYPE)
BY_MODEL: DimensionSet = (ENVIRONMENT, MODEL)
BY_PAIR: DimensionSet = (ENVIRONMENT, FROM_AGENT, TO_AGENT)

MAX_PAIRS = 50
"""`AgentCommunication` exists for the busiest pairs alone; widgets read the rest from the ledger."""

METRIC_USD_CENTS_PER_MONTH = 30
"""CloudWatch's price of a custom metric, first tier: https://aws.amazon.com/cloudwatch/pricing/."""


class MetricSpec(NamedTuple):
    """One metric: where it lives, what it means and who emits it."""

    namespace: str
    name: str
    unit: str
    """A CloudWatch unit; USD has none, hence "None"."""
    statistic: str
    """The statistic that makes sense of it: "Sum", "Maximum", "Average" or "p95"."""
    dimension_sets: tuple[DimensionSet, ...]
    """Every dimension set it may have, whatever the level."""
    meaning: str
    emitter: str
    """"agent", or the function of the plane: "ingest", "gauges", "analyze", "export" or "reconcile"."""
    detail: MetricDetail = MetricDetail.STANDARD
    """The level from which the sets beyond `[Environment]` exist."""

    def sets_at(self, detail: MetricDetail = MetricDetail.STANDARD) -> tuple[DimensionSet, ...]:
        """Return the dimension sets that exist at a level of detail."""
        return sets_at(self.dimension_sets, self.detail, detail)


_EVENT_MEANINGS: dict[str, str] = {
    AgentEventType.ISSUE_DETECTED: "issues that an agent detected",
    AgentEventType.CODE_GENERATED: "pieces of code that an agent generated",
    AgentEventType.TEST_PASSED: "test runs that passed",
    AgentEventType.TEST_FAILED: "test runs that failed",
    AgentEventType.DECISION_MADE: "decisions recorded with their reasoning chain",
    AgentEventType.LLM_USAGE: "calls of a language model",
    AgentEventType.MESSAGE_SENT: "messages that an agent put on the bus",
    AgentEventType.MESSAGE_RECEIVED: "messages that an agent received",
    AgentEventType.INVOCATION_STARTED: "invocations that began",
    AgentEventType.INVOCATION_COMPLETED: "invocations whose handler returned",
    AgentEventType.INVOCATION_FAILED: "invocations whose handler raised, or that Lambda ended",
    AgentEventType.WORKFLOW_COMPLETED: "workflows that reached their goal",
    AgentEventType.WORKFLOW_FAILED: "workflows that were given up",
    CUSTOM_EVENT: "events of a type that their agent did not declare",
}


def _event_spec(name: str, meaning: str) -> MetricSpec:
    return MetricSpec(
        EVENTS, name, "Count", "Sum", EVENT_SETS, meaning, emitter="agent", detail=detail_of(name)
    )


_SPECS: tuple[MetricSpec, ...] = (
    *(_event_spec(str(name), meaning) for name, meaning in _EVENT_MEANINGS.items()),
    MetricSpec(
        COSTS, "LambdaExecutionCost", "None", "Sum", (BY_ENVIRONMENT, BY_AGENT),
        "USD of Lambda compute and requests, from Lambda's own report lines", "ingest",
    ),
    MetricSpec(
        COSTS, "LLMCost", "None", "Sum", (BY_ENVIRONMENT, BY_AGENT, BY_MODEL),
        "USD of model calls, tokens times the price book", "ingest",
    ),
    MetricSpec(
        COSTS, "TotalCost", "None", "Sum", (BY_ENVIRONMENT, BY_AGENT),
        "USD of compute and model calls together", "ingest",
    ),
    MetricSpec(
        COSTS, "EventCost", "None", "Sum", (BY_EVENT_TYPE,),
        "USD by the domain event that the cost led to; over all types it sums to TotalCost", "ingest",
    ),
    MetricSpec(
        COSTS, "InputTokens", "Count", "Sum", (BY_MODEL,), "input tokens, cached ones excluded", "ingest"
    ),
    MetricSpec(
        COSTS, "OutputTokens", "Count", "Sum", (BY_MODEL,), "output tokens, reasoning included", "ingest"
    ),
    MetricSpec(
        COSTS, "CacheReadTokens", "Count", "Sum", (BY_MODEL,), "input tokens read from a cache", "ingest"
    ),
    MetricSpec(
        COSTS, "SpendToDate", "None", "Maximum", (BY_ENVIRONMENT, BY_AGENT),
        "USD spent since midnight UTC, from the ledger, each minute", "gauges",
    ),
    MetricSpec(
        COSTS, "BudgetUtilization", "Percent", "Maximum", (BY_ENVIRONMENT, BY_AGENT),
        "SpendToDate as a percentage of the daily budget", "gauges", MetricDetail.FULL,
    ),
    MetricSpec(
        COSTS, "UnpricedCalls", "Count", "Sum", (BY_ENVIRONMENT, BY_AGENT),
        "model calls whose model or tokens have no known price", "ingest", MetricDetail.FULL,
    ),
    MetricSpec(
        COLLABORATION, "MessageCount", "Count", "Sum", (BY_ENVIRONMENT,), "messages between agents", "ingest"
    ),
    MetricSpec(
        COLLABORATION, "HandoffLatency", "Milliseconds", "p95", (BY_ENVIRONMENT,),
        "time from a message being sent to its receiver starting on it", "ingest",
    ),
    MetricSpec(
        COLLABORATION, "LostMessages", "Count", "Sum", (BY_ENVIRONMENT,),
        "messages sent that nobody received in time", "analyze",
    ),
    MetricSpec(
        COLLABORATION, "LoopsDetected", "Count", "Sum", (BY_ENVIRONMENT,),
        "workflows whose agents hand over in circles", "analyze",
    ),
    MetricSpec(
        COLLABORATION, "AgentCommunication", "Count", "Sum", (BY_PAIR,),
        f"messages from one agent to another, for the {MAX_PAIRS} busiest pairs", "ingest",
    ),
    MetricSpec(
        ANOMALIES, "lost_message", "Count", "Sum", (BY_ENVIRONMENT,), "findings: lost messages", "analyze"
    ),
    MetricSpec(
        ANOMALIES, "handoff_loop", "Count", "Sum", (BY_ENVIRONMENT,), "findings: looping workflows", "analyze"
    ),
    MetricSpec(
        ANOMALIES, "traffic_spike", "Count", "Sum", (BY_ENVIRONMENT,),
        "findings: a flow carries far more messages than it used to", "analyze",
    ),
    MetricSpec(
        MONITOR, "IngestLag", "Milliseconds", "Maximum", (BY_ENVIRONMENT,),
        "time from an event being written to its being in the ledger", "ingest",
    ),
    MetricSpec(
        MONITOR, "Duplicates", "Count", "Sum", (BY_ENVIRONMENT,), "redelivered events, dropped", "ingest"
    ),
    MetricSpec(
        MONITOR, "Malformed", "Count", "Sum", (BY_ENVIRONMENT,),
        "lines that could not be read and went to the dead letters", "ingest",
    ),
    MetricSpec(
        MONITOR, "Forged", "Count", "Sum", (BY_ENVIRONMENT,),
        "lines that look like events but carry no valid proof of their process", "ingest",
    ),
    MetricSpec(
        MONITOR, "LaterLines", "Count", "Sum", (BY_ENVIRONMENT,),
        "lines of a later version of the monitor, kept until the plane is upgraded", "ingest",
    ),
    MetricSpec(
        MONITOR, "LostEvents", "Count", "Sum", (BY_ENVIRONMENT,),
        "events that an agent's process numbered and that did not arrive in time", "analyze",
    ),
    MetricSpec(
        MONITOR, "Problems", "Count", "Sum", (BY_ENVIRONMENT,),
        "events recorded with wrong arguments; each says in its line which", "ingest",
    ),
    MetricSpec(
        MONITOR, "ExportFailures", "Count", "Sum", (BY_ENVIRONMENT,), "events not exported", "export"
    ),
    MetricSpec(
        MONITOR, "ExportedSpans", "Count", "Sum", (BY_ENVIRONMENT,), "spans the backend accepted", "export"
    ),
    MetricSpec(
        MONITOR, "ReconciliationInvocations", "Percent", "Maximum", (BY_ENVIRONMENT,),
        "of the day before: the largest share of an agent's invocations that the ledger lacks of those that "
        "AWS/Lambda counted; daily", "reconcile",
    ),
    MetricSpec(
        MONITOR, "ReconciliationModelCalls", "Percent", "Maximum", (BY_ENVIRONMENT,),
        "the same of the calls of a model that AWS/Bedrock counted, those of others in the account included",
        "reconcile",
    ),
)  # fmt: skip

METRICS: Mapping[tuple[str, str], MetricSpec] = MappingProxyType(
    {(each.namespace, each.name): each for each in _SPECS}
)


def custom_event_spec(name: str) -> MetricSpec:
    """Return the metric of an event type that an agent declares.

    Raises
    ------
    ValueError
        `name` is not snake_case, too long, or already a built-in type.
    """
    if not is_valid_name(name):
        raise ValueError(f"event type {name!r}: use snake_case, at most 64 characters")
    if name in BUILT_IN or name == CUSTOM_EVENT:
        raise ValueError(f"event type {name!r} is built in, it needs no declaration")
    return _event_spec(name, "events of a type that an agent declares")


def spec(namespace: str, name: str, *, declared: Collection[str] = ()) -> MetricSpec:
    """Look a metric up.

    Parameters
    ----------
    namespace, name
        The metric, such as `AgentOps/Costs`, `TotalCost`.
    declared
        Event types that agents declare beyond the built-in ones.

    Raises
    ------
    ValueError
        There is no such metric; the message names the nearest ones.
    """
    found = METRICS.get((namespace, name))
    if found is not None:
        return found
    if namespace == EVENTS and name in declared:
        return custom_event_spec(name)
    from difflib import get_close_matches

    known = {f"{each.namespace} {each.name}" for each in _SPECS} | {f"{EVENTS} {each}" for each in declared}
    near = get_close_matches(f"{namespace} {name}", sorted(known), n=3, cutoff=0.5)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise ValueError(f"nothing emits the metric {namespace} {name}{hint}")


def check(
    namespace: str,
    name: str,
    dimensions: Iterable[str],
    *,
    detail: MetricDetail = MetricDetail.STANDARD,
    declared: Collection[str] = (),
) -> MetricSpec:
    """Look a metric up with the dimension names of a widget or an alarm on it.

    Raises
    ------
    ValueError
        Nothing emits that metric with those dimensions at that level of detail.
    """
    found = spec(namespace, name, declared=declared)
    wanted = frozenset(dimensions)
    sets = found.sets_at(detail)
    if not any(frozenset(each) == wanted for each in sets):
        have = ", ".join(f"[{', '.join(each)}]" for each in sets) or "none"
        raise ValueError(
            f"{namespace} {name} is not emitted by [{', '.join(sorted(wanted))}] "
            f"at {detail.name} detail; it has {have}"
        )
    return found


def monthly_cost(
    agents: int,
    pairs: int,
    models: int,
    detail: MetricDetail = MetricDetail.STANDARD,
    *,
    declared: int = 0,
) -> tuple[int, Decimal]:
    """Return how many custom metrics a deployment has at most, and their USD a month.

    Parameters
    ----------
    agents, pairs, models
        How many agents there are, how many pairs of them talk, how many models they call.
    detail
        The deployment's level of detail.
    declared
        How many event types its agents declare beyond the built-in ones.
    """
    from decimal import Decimal

    combinations = {
        BY_ENVIRONMENT: 1,
        BY_AGENT: agents,
        # Beyond the domain events: overhead, and model calls outside any invocation (llm_usage).
        BY_EVENT_TYPE: len(DOMAIN_EVENTS) + declared + 2,
        BY_MODEL: models,
        BY_PAIR: min(pairs, MAX_PAIRS),
    }
    count = sum(combinations[each] for metric in _SPECS for each in metric.sets_at(detail))
    count += declared * sum(combinations[each] for each in _event_spec("declared", "").sets_at(detail))
    return count, Decimal(count * METRIC_USD_CENTS_PER_MONTH) / 100


def markdown() -> str:
    """Render the catalogue as docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Written by `python -m agentops_monitoring.catalogue`; edit the catalogue, not this page.",
        "",
        "Each agent emits its events itself, one line each. All else comes from the plane's functions, and",
        "the costs from the ledger. A set in *italics* exists from the level of detail behind it on.",
    ]
    for namespace in (EVENTS, COSTS, COLLABORATION, ANOMALIES, MONITOR):
        lines += [
            "",
            f"## {namespace}",
            "",
            "| metric | unit | statistic | dimension sets | emitted by | meaning |",
        ]
        lines.append("|---|---|---|---|---|---|")
        for each in _SPECS:
            if each.namespace == namespace:
                lines.append(
                    f"| `{each.name}` | {each.unit} | {each.statistic} | {_sets(each)} "
                    f"| {each.emitter} | {each.meaning} |"
                )
    lines += [
        "",
        "An event type that an agent declares (`event_types=[…]`) gets a metric of its own in",
        "`AgentOps/Events`, with the sets of `custom_event`.",
        "",
        "## What they cost",
        "",
        "CloudWatch asks $0.30 a month for each name and set of dimension values (first tier). At most:",
        "",
        "| agents | pairs that talk | models | MINIMAL | STANDARD | FULL |",
        "|---|---|---|---|---|---|",
    ]
    for agents, pairs, models in ((3, 4, 1), (10, 20, 3), (100, 9900, 5)):
        prices = []
        for detail in MetricDetail:
            count, usd = monthly_cost(agents, pairs, models, detail)
            prices.append(f"{count} metrics, ${usd:,.2f}")
        lines.append(f"| {agents} | {pairs} | {models} | {' | '.join(prices)} |")
    return "\n".join(lines) + "\n"


def _sets(metric: MetricSpec) -> str:
    always = metric.sets_at(MetricDetail.MINIMAL)
    rendered = []
    for each in metric.dimension_sets:
        text = f"`[{', '.join(each)}]`"
        rendered.append(text if each in always else f"*{text}* {metric.detail.name}")
    return ", ".join(rendered)


if __name__ == "__main__":
    print(markdown(), end="")

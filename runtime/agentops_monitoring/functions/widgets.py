"""Lambda entry point of the dashboards' custom widgets: the ledger and the decisions, drawn as HTML.

CloudWatch calls it with the widget's own parameters and a ``widgetContext``, and shows the HTML that it
returns. ``{"describe": true}`` asks for its documentation, in Markdown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from agentops_monitoring.ledger import budgets
from agentops_monitoring.ledger.budgets import EACH, FORECAST, LIFE
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.standing import Standing, standings
from agentops_monitoring.ledger.totals import Rollups, Totals
from agentops_monitoring.ledger.unit_costs import not_in_costs, unit_costs
from agentops_monitoring.views.budgets import BudgetRow, render_budgets
from agentops_monitoring.views.flow import AgentNode, Flow, agents_in_order, render_flow
from agentops_monitoring.views.svg import esc
from agentops_monitoring.views.tables import (
    Decision,
    Driver,
    render_cost_drivers,
    render_decision,
    render_decisions,
)
from agentops_monitoring.views.unit_costs import Unit, render_unit_costs

DOCUMENTATION = """\
## AgentOps widgets

Draws what the ledger of one environment holds, for the time that the dashboard shows (the last 7 days of it).

| parameter | meaning |
|---|---|
| `widget` | `flow`: agents and their messages; `decisions`: the latest, with reasoning and outcome; \
`cost_drivers`: what could be done, and what costs most; `unit_costs`: what one result has cost; \
`budgets`: where the budgets of this day and month stand, whatever time is shown |
| `environment` | the environment it was deployed for |
| `limit` | how many decisions to list (10) |

```yaml
widget: flow
environment: production
```
"""

MAX_HOURS = 7 * 24
"""A window costs (hours × shards) requests to the ledger; a week stays well below a second."""
DRIVERS_PER_KIND = 5
MAX_BUDGETS = 20


@lru_cache(maxsize=1)
def _reader() -> LedgerReader:
    return LedgerReader.from_environment()


def _now() -> datetime:
    return datetime.now(UTC)


def handler(event: Mapping[str, Any], context: Any) -> str:
    """Draw the widget that the event names.

    Parameters
    ----------
    event : Mapping[str, Any]
        The widget's parameters and CloudWatch's ``widgetContext``.
    context : Any
        Lambda's; its ARN answers the drill-down.

    Returns
    -------
    str
        HTML, or Markdown for ``describe``.
    """
    if event.get("describe"):
        return DOCUMENTATION
    draw = WIDGETS.get(str(event.get("widget")))
    if draw is None:
        return f"<p>widget {esc(event.get('widget'))}: expected one of {', '.join(WIDGETS)}.</p>"
    deployed = os.environ.get("ENVIRONMENT") or "production"
    if event.get("environment", deployed) != deployed:
        return f"<p>This function shows {esc(deployed)}, not {esc(event['environment'])}.</p>"
    return draw(event, str(getattr(context, "invoked_function_arn", "")))


def _window(event: Mapping[str, Any]) -> Rollups:
    """The hours that the dashboard shows; without a time range the last three, as CloudWatch does."""
    shown = event.get("widgetContext", {}).get("timeRange", {})
    shown = {**shown, **shown.get("zoom", {})}
    end = datetime.fromtimestamp(shown["end"] / 1000, UTC) if "end" in shown else _now()
    start = (
        datetime.fromtimestamp(shown["start"] / 1000, UTC) if "start" in shown else end - timedelta(hours=3)
    )
    return _reader().window(max(start, end - timedelta(hours=MAX_HOURS)), end)


def _flows(window: Rollups) -> list[Flow]:
    return [
        Flow(source, target, totals.messages, totals.mean_handoff_ms, totals.p95_handoff_ms)
        for (source, target), totals in window.flows.items()
        if totals.messages
    ]


def _flow(event: Mapping[str, Any], _endpoint: str) -> str:
    window, context = _window(event), event.get("widgetContext", {})
    agents = [AgentNode(name, t.events, t.total_cost) for name, t in sorted(window.agents.items())]
    return render_flow(
        agents,
        _flows(window),
        width=float(context.get("width") or 900),
        height=float(context.get("height") or 0),
    )


def _decision_of(stored: Mapping[str, Any]) -> Decision:
    data = stored.get("data")
    told: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
    confidence, chain = told.get("confidence_score"), told.get("reasoning_chain")
    return Decision(
        key={"workflow_id": str(stored["workflow_id"]), "sk": str(stored["sk"])},
        agent=str(stored.get("agent", "")),
        type=str(told.get("decision_type", "")),
        at=str(stored.get("at", "")),
        workflow_id=str(stored["workflow_id"]),
        confidence=float(confidence) if isinstance(confidence, int | float) else None,
        chain=chain if isinstance(chain, list) else [],
        inputs=told.get("inputs"),
        outputs=told.get("outputs"),
        alternatives=told.get("alternatives"),
        outcome=stored.get("outcome"),
    )


def _decisions(event: Mapping[str, Any], endpoint: str) -> str:
    window = _window(event)
    found = _reader().latest_decisions(sorted(window.agents), limit=int(event.get("limit", 10)))
    return render_decisions(
        [_decision_of(each) for each in found],
        endpoint=endpoint,
        environment=os.environ.get("ENVIRONMENT") or "production",
        agents=agents_in_order(_flows(window)),
    )


def _decision(event: Mapping[str, Any], _endpoint: str) -> str:
    key = event.get("key", {})
    found = _reader().decision(str(key.get("workflow_id", "")), str(key.get("sk", "")))
    return render_decision(_decision_of(found)) if found else "<p>This decision is no longer kept.</p>"


def _per_call(totals: Totals) -> dict[str, object]:
    """What stands behind a cost of model calls."""
    if not totals.llm_calls:
        return {}
    return {
        "calls": totals.llm_calls,
        "input tokens a call": round(totals.input_tokens / totals.llm_calls),
        "output tokens a call": round(totals.output_tokens / totals.llm_calls),
    }


def _drivers(window: Rollups) -> list[Driver]:
    def top(found: Sequence[Driver]) -> list[Driver]:
        return sorted((each for each in found if each.usd), key=lambda each: -each.usd)[:DRIVERS_PER_KIND]

    agents = []
    for name, totals in window.agents.items():
        evidence = _per_call(totals)
        if totals.invocations:
            evidence |= {
                "invocations": totals.invocations,
                "billed ms each": totals.billed_ms // totals.invocations,
            }
        agents.append(Driver("agent", name, totals.total_cost, evidence))
    models = [
        Driver("model", name, totals.llm_cost, _per_call(totals)) for name, totals in window.models.items()
    ]
    types = []
    for name, (events, usd) in window.types.items():
        each = {"events": events, "USD each": usd / events} if events else {}
        types.append(Driver("led to", name.replace("_", " "), usd, each))
    return top(agents) + top(models) + top(types)


def _cost_drivers(event: Mapping[str, Any], _endpoint: str) -> str:
    # Imported here: the other widgets draw without the analysis and the price book.
    from agentops_monitoring.analysis.opportunities import opportunities

    window = _window(event)
    return render_cost_drivers(
        _drivers(window), opportunities(window, _now()), total_usd=window.total.total_cost
    )


def _unit_costs(event: Mapping[str, Any], _endpoint: str) -> str:
    window = _window(event)
    units = [
        Unit(each.name.replace("_", " "), each.results, each.usd, each.each) for each in unit_costs(window)
    ]
    return render_unit_costs(units, remark=not_in_costs(window.total))


def _budget_row(found: Standing) -> BudgetRow:
    case, expected = found.case, ""
    if found.outlook:
        interval = "${lower_usd} to ${upper_usd}, {level} interval, as of {at}".format_map(found.outlook)
        expected = f"${found.outlook['usd']} ({interval})"
    return BudgetRow(
        f"{case.scope} {case.name}" if case.name else "all agents",
        "its whole life" if case.budget.period == LIFE else case.period[2:],
        case.budget.usd,
        found.spent,
        case.share(found.spent),
        ["forecast" if each == FORECAST else f"{each} %" for each in found.told],
        expected,
    )


def _budgets(_event: Mapping[str, Any], _endpoint: str) -> str:
    held = budgets.configured(alarmed=True)
    found = standings(_reader(), held, _now())
    remarks = []
    if len(found) > MAX_BUDGETS:
        remarks.append(f"The {MAX_BUDGETS} fullest of {len(found)}.")
    if any(each.workflow == EACH for each in held):
        remarks.append("Of workflows only those are shown that have a budget of their own.")
    return render_budgets([_budget_row(each) for each in found[:MAX_BUDGETS]], remark=" ".join(remarks))


WIDGETS: Mapping[str, Callable[[Mapping[str, Any], str], str]] = {
    "flow": _flow,
    "decisions": _decisions,
    "decision": _decision,
    "cost_drivers": _cost_drivers,
    "unit_costs": _unit_costs,
    "budgets": _budgets,
}

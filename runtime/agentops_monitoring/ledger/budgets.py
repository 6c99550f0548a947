"""Budgets: what may be spent, by whom and in which period.

A budget of a day or a month (UTC) is of everything, of one agent, or of each agent; a budget of a workflow,
of one or of each, holds for its whole life. Who has a budget of his own has it instead of what each one has.

In the environment variable `AGENTOPS_BUDGETS` they are JSON, amounts in USD:

    [{"usd": "100", "period": "month"}, {"usd": "5", "agent": "manager"}, {"usd": "0.5", "workflow": "*"}]

The total of a day is `COST_ALERT_THRESHOLD`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from agentops_monitoring import settings
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.exact import EXACT

PERCENTS = (50, 80, 100)
"""Shares of a budget that are told, once each in a period."""
FORECAST = "forecast"
"""What is told once in a period when the forecast exceeds the budget."""
EACH = "*"
DAY, MONTH, LIFE = "day", "month", "life"
PERIODS = (DAY, MONTH)
_FIELDS = ("usd", "period", "agent", "workflow", "alarm")
_MAX_NAME = 256


class Budget(NamedTuple):
    """An amount that is not to be exceeded."""

    usd: Decimal
    period: str = DAY
    """`day`, `month`, or `life` of a workflow."""
    agent: str = ""
    """Whose; `*` for each agent."""
    workflow: str = ""
    """Of which workflow; `*` for each."""
    alarm: bool = False
    """Whether a CloudWatch alarm tells when all of it is spent, so that nobody else does."""

    @property
    def name(self) -> str:
        """Whose it is: an agent, a workflow, `*`, or nothing for the total."""
        return self.agent or self.workflow


class Case(NamedTuple):
    """A budget in one period of one spender."""

    budget: Budget
    name: str
    """The agent or the workflow; nothing for the total."""
    period: str
    """`D#2026-11-22`, `M#2026-11`, or `WS#<workflow>`."""

    @property
    def id(self) -> str:
        """What tells it from the others of its period, which names a workflow; another amount is another."""
        usd = format(self.budget.usd.normalize(), "f")
        return f"agent:{self.name}@{usd}" if self.budget.agent else f"{self.scope}@{usd}"

    @property
    def scope(self) -> str:
        """`total`, `agent` or `workflow`."""
        return "agent" if self.budget.agent else "workflow" if self.budget.workflow else "total"

    def keys(self, shards: int) -> list[tuple[str, str]]:
        """Return the keys of the items whose costs sum to what is spent."""
        sk = schema.SPEND if self.budget.workflow else schema.TOTAL
        if self.budget.agent:
            sk = schema.agent_key(self.name)
        return [(f"{self.period}#{shard}", sk) for shard in range(shards)]

    def share(self, spent: Decimal) -> Decimal:
        """Return which percentage of the budget an amount is, rounded down to a tenth."""
        return EXACT.divide_int(EXACT.multiply(spent, Decimal(1000)), self.budget.usd) / 10

    def reached(self, spent: Decimal) -> int:
        """Return the highest of `PERCENTS` that an amount has reached; 0 for none."""
        hundredfold = EXACT.multiply(spent, Decimal(100))
        return max((each for each in PERCENTS if hundredfold >= self.budget.usd * each), default=0)


def amount(text: object, field: str) -> Decimal:
    """Read an amount of money above 0.

    Raises
    ------
    ValueError
        It is none; the message names the field.
    """
    try:
        found = Decimal(str(text))
    except InvalidOperation:
        found = Decimal(-1)
    if not (found.is_finite() and found > 0):
        raise ValueError(f"{field} is {text!r}, not an amount in USD above 0")
    return found


def budget(given: Mapping[str, Any]) -> Budget:
    """Read one budget.

    Raises
    ------
    ValueError
        A field is unknown or makes no sense; the message names it.
    """
    if unknown := [name for name in given if name not in _FIELDS]:
        raise ValueError(f"budget: there is no field {unknown[0]!r}, there are {', '.join(_FIELDS)}")
    agent, workflow = given.get("agent") or "", given.get("workflow") or ""
    for field, name in (("agent", agent), ("workflow", workflow)):
        if not isinstance(name, str) or len(name) > _MAX_NAME:
            raise ValueError(f"budget: {field} is {name!r}, not a name or '*'")
    if agent and workflow:
        raise ValueError(f"budget: of agent {agent!r} or of workflow {workflow!r}, not of both")
    period = given.get("period") or (LIFE if workflow else DAY)
    if period not in ((LIFE,) if workflow else PERIODS):
        wanted = "a workflow's budget is for its whole life" if workflow else "use 'day' or 'month'"
        raise ValueError(f"budget: period is {period!r}: {wanted}")
    alarm = given.get("alarm", False)
    if alarm and period != DAY:
        raise ValueError("budget: alarm: alarms watch the day's spend")
    return Budget(amount(given.get("usd"), "budget: usd"), period, agent, workflow, bool(alarm))


def parse(text: str) -> tuple[Budget, ...]:
    """Read the budgets of `AGENTOPS_BUDGETS`; nothing for an empty text.

    Raises
    ------
    ValueError
        It is no list of budgets, or one of them makes no sense.
    """
    if not text.strip():
        return ()
    try:
        found = json.loads(text, parse_float=Decimal)
    except ValueError as error:
        raise ValueError(f"AGENTOPS_BUDGETS is not JSON: {error}") from None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError("AGENTOPS_BUDGETS is not a list of objects")
    return tuple(dict.fromkeys(budget(each) for each in found))


def dump(budgets: Iterable[Budget]) -> str:
    """Return budgets as `parse` reads them."""
    return json.dumps([_fields(each) for each in budgets], separators=(",", ":"))


def _fields(each: Budget) -> dict[str, Any]:
    given = each._asdict() | {"usd": format(each.usd, "f")}
    defaults = Budget(each.usd, LIFE if each.workflow else DAY)._asdict()
    return {name: value for name, value in given.items() if name == "usd" or value != defaults[name]}


def cases(
    budgets: Sequence[Budget], period: str, kind: str, *, agents: Iterable[str] = (), workflow: str = ""
) -> Iterator[Case]:
    """Return the budgets that hold in a period.

    Parameters
    ----------
    period, kind
        The period, and whether it is a `day`, a `month` or the `life` of a workflow.
    agents
        Who may have spent something, for budgets of each agent.
    workflow
        Whose life it is.
    """
    held = [each for each in budgets if each.period == kind]
    own = {each.name for each in held if each.name not in ("", EACH)}
    spenders = [*dict.fromkeys(agents)] if kind != LIFE else [workflow]
    for each in held:
        if each.name == EACH:
            yield from (Case(each, name, period) for name in spenders if name not in own)
        elif not each.name or kind != LIFE or each.name == workflow:
            yield Case(each, each.name, period)


def day_of(period: str) -> date:
    """Return the first day of a period of days."""
    text = period[2:]
    return date.fromisoformat(text if period.startswith("D#") else f"{text}-01")


def period_at(kind: str, at: datetime) -> str:
    """Return the day or the month that a time is in."""
    text = at.astimezone(UTC).date().isoformat()
    return f"D#{text}" if kind == DAY else f"M#{text[:7]}"


def spent_of(item: Mapping[str, Any]) -> Decimal:
    """Return what an item of a spender's counters says was spent."""
    nothing = {"N": "0"}
    llm, compute = (Decimal(item.get(name, nothing)["N"]) for name in ("llm_cost", "compute_cost"))
    return EXACT.add(llm, compute)


def configured(*, alarmed: bool) -> list[Budget]:
    """Return the budgets of the environment variables.

    Parameters
    ----------
    alarmed
        Whether a CloudWatch alarm tells when the total of a day is spent.

    Raises
    ------
    ValueError
        One makes no sense.
    """
    total = threshold(settings.load().cost_alert_threshold)
    return [
        *([Budget(total, alarm=alarmed)] if total else []),
        *parse(os.environ.get("AGENTOPS_BUDGETS", "")),
    ]


def threshold(text: str) -> Decimal:
    """Return the daily budget that `COST_ALERT_THRESHOLD` says, USD; 0 is none.

    Raises
    ------
    ValueError
        It is no amount of money.
    """
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal(-1)
    if not (found.is_finite() and found >= 0):
        raise ValueError(f"COST_ALERT_THRESHOLD is {text!r}, not an amount in USD")
    return found

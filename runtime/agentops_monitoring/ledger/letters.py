"""What an alert says: to people, and to programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from agentops_monitoring.ledger.alerts import Alert
from agentops_monitoring.ledger.budgets import FORECAST
from agentops_monitoring.ledger.exact import EXACT

MAX_SUBJECT = 99
"""SNS: ASCII, fewer than 100 characters, one line, https://docs.aws.amazon.com/sns/latest/api/API_Publish.html."""
_MAX_NAME = 64
_PERIODS = {"day": "daily budget", "month": "monthly budget", "life": "budget"}


class Cause(NamedTuple):
    """Something that money went to."""

    kind: str
    """`agent`, `model`, `led to` or `compute`."""
    name: str
    usd: Decimal


class Letter(NamedTuple):
    """An alert as it is published."""

    subject: str
    text: str
    document: str
    """JSON."""
    attributes: Mapping[str, str]
    """For filters of subscriptions."""


def letter(alert: Alert, causes: Sequence[Cause] | None, environment: str, dashboard: str) -> Letter:
    """Write an alert.

    Parameters
    ----------
    causes
        What the money went to; None when that could not be read.
    environment
        The deployment's name.
    dashboard
        Address of the cost dashboard.
    """
    usd, spent = Decimal(alert.usd), Decimal(alert.spent)
    percent = EXACT.divide_int(EXACT.multiply(spent, Decimal(1000)), usd) / 10
    whose = f"{alert.scope} {_line(alert.name)}" if alert.name else "all agents"
    budget = f"{_PERIODS[alert.kind]} of {whose}"
    if alert.threshold == FORECAST:
        headline = f"The {budget} is expected to be exceeded"
        subject = f"{_short(whose)} expected to exceed the {_PERIODS[alert.kind]} of ${_money(usd)}"
    else:
        headline = f"{alert.threshold} % of the {budget} is spent"
        subject = f"{_short(whose)} spent {alert.threshold} % of the {_PERIODS[alert.kind]} of ${_money(usd)}"
    period = "the whole workflow" if alert.kind == "life" else f"{alert.period[2:]} (UTC)"
    lines = [
        f"{headline}, in environment {environment}.",
        "",
        f"  spent   ${_money(spent)} of ${_money(usd)}, {percent.normalize():f} %",
        f"  period  {period}, as of {alert.at}",
    ]
    if alert.forecast:
        lines += ["", *_forecast_lines(alert.forecast)]
    lines += ["", *_cause_lines(causes, spent), "", f"Dashboard: {dashboard}"]
    lines += ["", f"Each threshold is told once. Key of this alert: {_line(f'{environment}/{alert.key}')}"]
    document = {
        "version": 1,
        "key": f"{environment}/{alert.key}",
        "environment": environment,
        "scope": alert.scope,
        "name": alert.name,
        "budget": {"period": alert.kind, "usd": _money(usd)},
        "period": alert.name if alert.kind == "life" else alert.period[2:],
        "threshold": alert.threshold,
        "spent_usd": _money(spent),
        "percent": f"{percent.normalize():f}",
        "at": alert.at,
        "forecast": alert.forecast,
        "causes": None if causes is None else [each._asdict() | {"usd": _money(each.usd)} for each in causes],
        "dashboard": dashboard,
    }
    attributes = {
        "environment": environment, "scope": alert.scope, "name": alert.name, "threshold": alert.threshold,
        "period": alert.kind, "key": f"{environment}/{alert.key}",
    }  # fmt: skip
    return Letter(
        _ascii(f"AgentOps {environment}: {subject}")[:MAX_SUBJECT],
        "\n".join(lines) + "\n",
        json.dumps(document),
        # A control character in one may be refused, and then would be each time that the alert is sent again.
        {name: _line(value) for name, value in attributes.items() if value},
    )


def message(written: Letter) -> dict[str, Any]:
    """Return a letter as the arguments of SNS's Publish: text for mail, one line for phones, else JSON."""
    bodies = {"default": written.document, "email": written.text, "sms": written.subject}
    return {
        "Subject": written.subject,
        "Message": json.dumps(bodies),
        "MessageStructure": "json",
        "MessageAttributes": {
            name: {"DataType": "String", "StringValue": value} for name, value in written.attributes.items()
        },
    }


def _forecast_lines(forecast: Mapping[str, Any]) -> list[str]:
    found = [
        f"  forecast  ${forecast['usd']} by the end of the period, {forecast['level']} interval "
        f"${forecast['lower_usd']} to ${forecast['upper_usd']}",
        f"  model     {forecast['model']}, the best of {forecast['models']} on {forecast['history']}",
        f"  backtest  wrong by ${forecast['mae_usd']} on average from {forecast['origins']} origins, where "
        f'"as much as before" is wrong by ${forecast["naive_mae_usd"]}',
    ]
    if forecast["coverage"] is not None:
        found[-1] += f"; {forecast['coverage']} of the values were within their intervals"
    return found


def _cause_lines(causes: Sequence[Cause] | None, spent: Decimal) -> list[str]:
    if causes is None:
        return ["What it went to could not be read; the dashboard shows it."]
    if not causes:
        return ["What it went to is not in the ledger's rollups."]
    rows = [
        (
            each.kind,
            _line(each.name),
            f"${_money(each.usd)}",
            f"{each.usd * 100 / spent:.0f} %" if spent else "",
        )
        for each in causes
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["What most of it went to:"] + [
        f"  {kind:<{widths[0]}}  {name:<{widths[1]}}  {usd:>{widths[2]}}  {share:>{widths[3]}}".rstrip()
        for kind, name, usd, share in rows
    ]


def _money(usd: Decimal) -> str:
    """Return an exact amount, with two decimals at least."""
    whole, _, fraction = format(usd, "f").partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def _line(name: str) -> str:
    """Return a name as it can stand in a line; agents choose theirs, and those of workflows."""
    return "".join(each if each.isprintable() else "?" for each in name)


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "~"


def _ascii(text: str) -> str:
    return "".join(each if " " <= each <= "~" else "?" for each in text)

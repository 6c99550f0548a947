"""Where budgets stand, as HTML for a CloudWatch custom widget."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from . import figures
from .svg import BAD, OK, WARN, esc
from .tables import STYLE


class BudgetRow(NamedTuple):
    """A budget in its period; `percent` is exact to a tenth, `told` says what went to the topic."""

    whose: str
    period: str
    usd: Decimal
    spent: Decimal
    percent: Decimal
    told: Sequence[str] = ()
    expected: str = ""
    """By the end of the period; nothing where nobody knows."""


def render_budgets(rows: Sequence[BudgetRow], *, remark: str = "") -> str:
    """Draw a table with a row for each budget.

    Parameters
    ----------
    rows : Sequence[BudgetRow]
        The rows, in their order.
    remark : str
        What is not in it, below them.
    """
    if not rows:
        table = '<p class="agv-empty">No budget is set, or nobody with one has spent anything yet.</p>'
    else:
        heads = ("Budget of", "Period", ">Spent", ">Budget", ">Used", "Told", "Expected in all")
        head = "".join(
            f'<th class="n">{name[1:]}</th>' if name[0] == ">" else f"<th>{name}</th>" for name in heads
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(map(_row, rows))}</tbody></table>"
    below = f'<p class="q">{esc(remark)}</p>' if remark else ""
    return f'{STYLE}<div class="agv">{table}{below}</div>'


def _row(row: BudgetRow) -> str:
    shade = BAD if row.percent >= 100 else WARN if row.percent >= 80 else OK
    width = min(Decimal(100), max(Decimal(0), row.percent))
    bar = f'<span class="bar"><i style="width:{width:.0f}%;background:{shade}"></i></span>'
    return (
        f'<tr><td>{esc(row.whose)}</td><td class="w q">{esc(row.period)}</td>'
        f'<td class="n"><strong>{figures.usd(row.spent)}</strong></td>'
        f'<td class="n">{figures.usd(row.usd)}</td>'
        f'<td class="n">{bar}{row.percent.normalize():f} %</td>'
        f'<td class="w">{esc(", ".join(row.told) or "–")}</td><td>{esc(row.expected or "–")}</td></tr>'
    )

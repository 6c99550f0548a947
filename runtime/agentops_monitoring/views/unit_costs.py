"""What one result has cost, as HTML for a CloudWatch custom widget."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from . import figures
from .svg import esc
from .tables import STYLE


class Unit(NamedTuple):
    """Results of a kind: how many, and the USD of all and of each, which is None when there was none."""

    name: str
    results: int
    usd: Decimal
    each: Decimal | None


def render_unit_costs(units: Sequence[Unit], *, remark: str = "") -> str:
    """Draw a table with a row for each kind of result.

    Parameters
    ----------
    units : Sequence[Unit]
        The rows, in their order.
    remark : str
        What a reader must know of the figures, below them.
    """
    rows = "".join(
        f"<tr><td>{esc(unit.name)}</td>"
        f'<td class="n"><strong>{figures.usd(unit.each) if unit.each is not None else "–"}</strong></td>'
        f'<td class="n">{figures.count(unit.results)}</td><td class="n q">{figures.usd(unit.usd)}</td></tr>'
        for unit in units
    )
    heads = "<th>One</th>" + "".join(
        f'<th class="n">{head}</th>' for head in ("Cost", "How many", "Together")
    )
    below = f'<p class="q">{esc(remark)}</p>' if remark else ""
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'{STYLE}<div class="agv">{table}{below}</div>'

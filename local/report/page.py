"""index.html: the run's figures and the three dashboards in one page that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agentops_monitoring.views import figures
from agentops_monitoring.views.svg import esc

from .boards import Board, Tile, chips, is_watch
from .facts import Facts

_HERE = Path(__file__).parent
# Nothing may load from anywhere, whatever a widget or an agent's text contains.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of safe cells; a heading that starts with ``>`` sets its column flush right."""
    flush = [' class="r"' if head.startswith(">") else "" for head in heads]
    names = "".join(f"<th{style}>{head.lstrip('>')}</th>" for head, style in zip(heads, flush, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{style}>{cell}</td>" for cell, style in zip(row, flush, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"


def _card(title: str, body: str, *, wide: bool = False) -> str:
    return f'<div class="card{" wide" if wide else ""}"><h3>{esc(title)}</h3>{body}</div>'


def _agents(facts: Facts) -> str:
    rows = [
        [
            f"<b>{esc(agent.name)}</b>",
            figures.count(agent.invocations),
            figures.count(agent.events),
            f"{agent.llm_usd:.6f}",
            f"{agent.compute_usd:.6f}",
            figures.percent(agent.success_rate) if agent.success_rate is not None else "–",
            figures.count(agent.decisions),
            f"{agent.mean_confidence:.2f}" if agent.mean_confidence is not None else "–",
        ]
        for agent in facts.agents
    ]
    heads = (
        "Agent",
        ">Invocations",
        ">Events",
        ">LLM, USD",
        ">Compute, USD",
        ">Success",
        ">Decisions",
        ">Mean confidence",
    )
    return _table(heads, rows)


def _run(facts: Facts) -> str:
    checks = [
        [
            '<span class="good">✓</span>' if check.ok else '<span class="poor">✗ differs</span>',
            esc(check.name),
            esc(check.expected),
            esc(check.actual),
            f'<span class="soft">{esc(check.detail)}</span>',
        ]
        for check in facts.checks
    ]
    units = [
        [
            esc(unit.name.replace("_", " ")),
            figures.count(unit.results),
            "–" if unit.each is None else f"{unit.each:.6f}",
            f"{unit.usd:.6f}",
        ]
        for unit in facts.unit_costs
    ]
    flows = [
        [
            f"{esc(flow.source)} → {esc(flow.target)}",
            figures.count(flow.count),
            figures.duration(flow.latency_ms) if flow.latency_ms is not None else "–",
        ]
        for flow in sorted(facts.flows, key=lambda flow: -flow.count)
    ]
    mails = [
        f"<details><summary>{esc(mail.get('subject', ''))} "
        f'<span class="soft">to {esc(mail.get("to", ""))}</span></summary>'
        f"<pre>{esc(mail.get('body', ''))}</pre></details>"
        for mail in facts.mails
    ]
    empty = [
        f"<li>{esc(w['dashboard'])} · {esc(w['title'])}: {esc(w['reason'])}</li>"
        for w in facts.widgets_without_data
    ]
    note = f'<p class="soft note">{esc(facts.alarm_note)}</p>' if facts.alarm_note else ""
    cards = [
        _card("Agents", _agents(facts), wide=True),
        _card("Recount from the raw logs, the model's log and AgentOps",
              _table(("", "Check", ">Recounted", ">Recorded", ""), checks), wide=True),
        _card("What one result has cost",
              _table(("One", ">How many", ">Each, USD", ">Together, USD"), units)),
        _card("Messages", _table(("Flow", ">Messages", ">Mean latency"), flows)),
        _card("E-mails sent through SNS", "".join(mails) or '<p class="soft">None.</p>'),
        _card("Alarms on the agents", note + chips(a for a in facts.alarms if not is_watch(a)), wide=True),
        _card("Alarms that wake the agents", chips(filter(is_watch, facts.alarms), "Watch-"), wide=True),
    ]  # fmt: skip
    cards += [_card("Widgets without data", f"<ul>{''.join(empty)}</ul>", wide=True)] if empty else []
    return f'<section data-name="run"><h2>The run</h2><div class="cards">{"".join(cards)}</div></section>'


def _tile(tile: Tile) -> str:
    place = f"grid-column:{tile.x + 1}/span {tile.width};grid-row:{tile.y + 1}/span {tile.height}"
    head = f"<h3>{esc(tile.title)}</h3>" if tile.kind != "text" else ""
    scrolls = ' class="in"' if tile.kind in ("custom", "alarm", "text") else ""
    kind = " text" if tile.kind == "text" else ""
    return f'<article class="tile{kind}" style="{place}">{head}<div{scrolls}>{tile.body}</div></article>'


def _totals(facts: Facts) -> str:
    ended = facts.completed + facts.failed
    alarms = [alarm for alarm in facts.alarms if not is_watch(alarm)]
    in_alarm = sum(alarm["state"] == "ALARM" for alarm in alarms)
    confirmed = sum(check.ok for check in facts.checks)
    shown = {
        "workflows": figures.count(facts.workflows),
        "completed": figures.percent(facts.completed / ended) if ended else "–",
        "events": figures.count(facts.events),
        "for models": figures.usd(facts.llm_usd),
        "for compute": figures.usd(facts.compute_usd),
        "alarms in ALARM": f"{in_alarm} of {len(alarms)}",
        "e-mails": figures.count(len(facts.mails)),
        "figures confirmed": f"{confirmed} of {len(facts.checks)}",
    }
    return "".join(
        f'<div class="total"><b>{value}</b><span>{name}</span></div>' for name, value in shown.items()
    )


def render(facts: Facts, boards: Sequence[Board]) -> str:
    """The whole page."""
    links = [("run", "The run"), *((board.name, board.name) for board in boards)]
    tabs = "".join(f'<a href="#{esc(at)}">{esc(name)}</a>' for at, name in links)
    sections = "".join(
        f'<section class="board" data-name="{esc(board.name)}"><h2>{esc(board.name)}</h2>'
        f'<div class="grid">{"".join(_tile(tile) for tile in board.tiles)}</div></section>'
        for board in boards
    )
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>AgentOps monitoring · {esc(facts.environment)}</title><style>{style}</style></head>
<body><div class="wrap"><header><div><h1>AgentOps monitoring · {esc(facts.environment)}</h1>
<p>{esc(facts.started_at)} – {esc(facts.ended_at)} UTC · as deployed, read through the CloudWatch API</p>
</div><button id="theme">Light / dark</button></header><div class="totals">{_totals(facts)}</div></div>
<nav><div class="wrap">{tabs}</div></nav>
<div class="wrap">{_run(facts)}{sections}
<footer>Times are UTC. Costs come from the ledger, to the last digit; charts from metrics.</footer></div>
<div id="tip"></div><dialog></dialog><script>{script}</script></body></html>
"""

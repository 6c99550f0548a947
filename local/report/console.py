"""The figures as aligned plain text; colour only where it helps, and only when asked for."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TextIO

from agentops_monitoring.views import figures

from .boards import is_watch
from .facts import Facts

_BOLD, _DIM, _RED, _GREEN, _YELLOW = "1", "2", "31", "32", "33"
# What a terminal would obey: an agent's name or a mail's subject must not move its cursor.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_STATES = {"ALARM": _RED, "OK": _GREEN, "INSUFFICIENT_DATA": _DIM}


Cell = str | tuple[str, str]


def wants_color(stream: TextIO, env: Mapping[str, str]) -> bool:
    """Whether to colour what goes to `stream`: on a terminal, unless ``NO_COLOR`` is set (no-color.org)."""
    return stream.isatty() and not env.get("NO_COLOR")


def _counted(states: Counter[str]) -> str:
    return ", ".join(f"{number} {state}" for state, number in states.items())


class Console:
    """Writes tables.

    Parameters
    ----------
    color : bool
        Whether to use ANSI colours.
    """

    def __init__(self, *, color: bool) -> None:
        self._color = color

    def paint(self, text: str, code: str) -> str:
        """`text`, coloured when colours are on."""
        return f"\x1b[{code}m{text}\x1b[0m" if self._color and code else text

    def table(self, title: str, heads: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
        """A titled table; a heading with ``>`` is set flush right, a cell may be (text, colour)."""
        cells = [[(c, "") if isinstance(c, str) else c for c in row] for row in rows]
        cells = [[(_CONTROL.sub("�", text), code) for text, code in row] for row in cells]
        names = [head.lstrip(">") for head in heads]
        widths = [max(len(name), *(len(row[i][0]) for row in cells), 0) for i, name in enumerate(names)]

        def aligned(index: int, text: str) -> str:
            return text.rjust(widths[index]) if heads[index].startswith(">") else text.ljust(widths[index])

        out = [
            self.paint(title, _BOLD),
            self.paint("  " + "  ".join(aligned(i, name) for i, name in enumerate(names)).rstrip(), _DIM),
            self.paint("  " + "  ".join("─" * width for width in widths), _DIM),
        ]
        for row in cells:
            line = "  ".join(self.paint(aligned(i, text), code) for i, (text, code) in enumerate(row))
            out.append(f"  {line}".rstrip())
        return "\n".join(out)

    def report(self, facts: Facts) -> str:
        """All of it, top to bottom."""
        parts = [self._agents(facts), self._unit_costs(facts), self._flows(facts)]
        parts += [self._alarms(facts), self._mails(facts)]
        parts += [self._widgets(facts), self._checks(facts)]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _agents(self, facts: Facts) -> str:
        rows = [
            [
                agent.name,
                figures.count(agent.invocations),
                figures.count(agent.events),
                f"{agent.llm_usd:.6f}",
                f"{agent.compute_usd:.6f}",
                figures.percent(agent.success_rate) if agent.success_rate is not None else "–",
                f"{agent.mean_confidence:.2f}" if agent.mean_confidence is not None else "–",
            ]
            for agent in facts.agents
        ]
        rows.append(
            [
                "all",
                figures.count(sum(agent.invocations for agent in facts.agents)),
                figures.count(facts.events),
                f"{facts.llm_usd:.6f}",
                f"{facts.compute_usd:.6f}",
                figures.percent(facts.completed / (facts.completed + facts.failed))
                if facts.completed + facts.failed
                else "–",
                "",
            ]
        )
        heads = ("agent", ">invocations", ">events", ">LLM $", ">compute $", ">success", ">confidence")
        said = f"Agents · {facts.workflows} workflows, {facts.completed} completed, {facts.failed} failed"
        return self.table(said, heads, rows)

    def _unit_costs(self, facts: Facts) -> str:
        rows = [
            [
                unit.name.replace("_", " "),
                figures.count(unit.results),
                "–" if unit.each is None else f"{unit.each:.6f}",
                f"{unit.usd:.6f}",
            ]
            for unit in facts.unit_costs
        ]
        heads = ("one", ">how many", ">each $", ">together $")
        return self.table("Unit costs · what one result has cost", heads, rows) if rows else ""

    def _flows(self, facts: Facts) -> str:
        rows = [
            [
                f"{flow.source} → {flow.target}",
                figures.count(flow.count),
                figures.duration(flow.latency_ms) if flow.latency_ms is not None else "–",
            ]
            for flow in sorted(facts.flows, key=lambda flow: -flow.count)
        ]
        return self.table("Messages", ("flow", ">messages", ">mean latency"), rows) if rows else ""

    def _alarms(self, facts: Facts) -> str:
        own = [alarm for alarm in facts.alarms if not is_watch(alarm)]
        watching = Counter(alarm["state"] for alarm in facts.alarms if is_watch(alarm))
        rows: list[list[Cell]] = [
            [alarm["name"], (alarm["state"], _STATES.get(alarm["state"], "")), alarm["since"]]
            for alarm in own
        ]
        if watching:
            rows.append([f"on {watching.total()} functions of the workload", _counted(watching), ""])
        said = f"Alarms · {_counted(Counter(alarm['state'] for alarm in own))}"
        return self.table(said, ("alarm", "state", "since (UTC)"), rows) if rows else ""

    def _mails(self, facts: Facts) -> str:
        if not facts.mails:
            return self.paint("E-mails", _BOLD) + "\n  none sent"
        rows = [
            [str(m.get("to", "")), textwrap.shorten(str(m.get("subject", "")), 90, placeholder="…")]
            for m in facts.mails
        ]
        return self.table(f"E-mails · {len(rows)} sent through SNS", ("to", "subject"), rows)

    def _widgets(self, facts: Facts) -> str:
        shown = (
            ", ".join(f"{name} ({number})" for name, number in facts.dashboards.items()) or "none deployed"
        )
        out = [self.paint("Dashboards and their widgets", _BOLD), f"  {shown}"]
        for widget in facts.widgets_without_data:
            said = f"{widget['dashboard']} · {widget['title']}: {widget['reason']}"
            out.append("  " + self.paint("without data: ", _YELLOW) + _CONTROL.sub("�", said))
        return "\n".join(out)

    def _checks(self, facts: Facts) -> str:
        rows: list[list[Cell]] = [
            [
                ("ok", _GREEN) if check.ok else ("DIFFERS", _RED),
                check.name,
                check.expected,
                check.actual,
                textwrap.shorten(check.detail, 80, placeholder="…"),
            ]
            for check in facts.checks
        ]
        heads = ("", "check", ">recounted", ">recorded", "")
        return (
            self.table("Recount · from the raw logs, the model's log and AgentOps", heads, rows)
            if rows
            else ""
        )

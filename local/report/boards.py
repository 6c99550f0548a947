"""The deployed dashboards, read through the CloudWatch API and drawn on its 24-column grid."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentops_monitoring.views.svg import esc

from . import markup, widgets
from .widgets import Span

# CloudWatch's grid, at the page's full width: a column takes 60 pixels and a row 50, gaps of 12 included.
COLUMN, ROW, GAP = 48, 38, 12
_HEAD, _PAD = 36, 24


_Draw = Callable[[Mapping[str, Any], float, float, bool, str], tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Tile:
    """A drawn widget in its place."""

    x: int
    y: int
    width: int
    height: int
    kind: str
    title: str
    body: str
    empty: str = ""


@dataclass(slots=True)
class Board:
    """A drawn dashboard."""

    name: str
    tiles: list[Tile] = field(default_factory=list)

    @property
    def without_data(self) -> list[dict[str, str]]:
        """The widgets that show nothing, with the reason."""
        return [{"dashboard": self.name, "title": t.title, "reason": t.empty} for t in self.tiles if t.empty]


def names(cloudwatch: Any, environment: str) -> list[str]:
    """The environment's dashboards, Main first; in production without a suffix."""
    suffix = "" if environment == "production" else f"-{environment}"
    wanted = [f"AgentOps-Monitoring{kind}{suffix}" for kind in ("", "-Cost", "-Collaboration")]
    pages = cloudwatch.get_paginator("list_dashboards").paginate(DashboardNamePrefix="AgentOps-Monitoring")
    there = {entry["DashboardName"] for page in pages for entry in page["DashboardEntries"]}
    return [name for name in wanted if name in there]


class Painter:
    """Draws widgets with what the AWS clients answer.

    Parameters
    ----------
    client : Callable[[str], Any]
        Gives the AWS client of a service.
    span : Span
        The time shown, the same for every widget.
    """

    def __init__(self, client: Callable[[str], Any], span: Span) -> None:
        self._cloudwatch, self._lambda = client("cloudwatch"), client("lambda")
        self._span = span

    def board(self, name: str) -> Board:
        """Read one dashboard and draw it."""
        body = json.loads(self._cloudwatch.get_dashboard(DashboardName=name)["DashboardBody"])
        auto = body.get("periodOverride", "auto") == "auto"
        return Board(name, [self._tile(name, widget, auto) for widget in body["widgets"]])

    def _tile(self, board: str, widget: Mapping[str, Any], auto: bool) -> Tile:
        kind, properties = str(widget["type"]), widget.get("properties", {})
        columns, rows = int(widget.get("width", 6)), int(widget.get("height", 6))
        title = str(properties.get("title") or "")
        width = columns * COLUMN + (columns - 1) * GAP - _PAD
        height = rows * ROW + (rows - 1) * GAP - _PAD - (_HEAD if title else 0)
        draw: dict[str, _Draw] = {
            "metric": self._metric,
            "alarm": self._alarms,
            "custom": self._custom,
            "text": self._text,
        }
        body, empty = "", f"Widgets of type {kind!r} are not drawn here"
        if kind in draw:
            try:
                body, empty = draw[kind](properties, width, height, auto, board)
            except Exception as error:  # noqa: BLE001 - one broken widget is named and must not hide the others
                empty = f"failed: {type(error).__name__}: {error}"
        place = (int(widget.get("x", 0)), int(widget.get("y", 0)), columns, rows)
        return Tile(*place, kind, title or kind, body or f'<p class="empty">{esc(empty)}</p>', empty)

    def _metric(
        self, given: Mapping[str, Any], width: float, height: float, auto: bool, _: str
    ) -> tuple[str, str]:
        data = widgets.fetch(self._cloudwatch, given, self._span, auto=auto)
        drawn = widgets.draw(given, data, self._span, width, height)
        return (drawn, "") if drawn else ("", "No data in this time")

    def _text(self, given: Mapping[str, Any], *_: float | str) -> tuple[str, str]:
        return f'<div class="md">{markup.markdown(str(given.get("markdown", "")))}</div>', ""

    def _alarms(self, given: Mapping[str, Any], *_: float | str) -> tuple[str, str]:
        wanted = [arn.rpartition(":alarm:")[2] for arn in given.get("alarms", [])]
        alarms = {alarm["name"]: alarm for alarm in read_alarms(self._cloudwatch, wanted)}
        found = [alarms[name] for name in wanted if name in alarms]
        return (chips(found), "") if found else ("", "No alarms")

    def _custom(
        self, given: Mapping[str, Any], width: float, height: float, _: bool, board: str
    ) -> tuple[str, str]:
        context = {
            "dashboardName": board,
            "theme": "light",
            "width": width,
            "height": height,
            "timeRange": {"mode": "absolute", "start": self._span.start * 1000, "end": self._span.end * 1000},
        }

        def call(endpoint: str, event: Mapping[str, object]) -> str:
            asked = json.dumps({**event, "widgetContext": context}).encode()
            answer = self._lambda.invoke(FunctionName=endpoint, Payload=asked)
            shown = json.loads(answer["Payload"].read())
            if answer.get("FunctionError"):
                raise RuntimeError(
                    str(shown.get("errorMessage", shown)) if isinstance(shown, dict) else str(shown)
                )
            return markup.markdown(shown["markdown"]) if isinstance(shown, dict) else str(shown)

        html = markup.clean(call(str(given["endpoint"]), given.get("params", {})), call)
        hollow = "agv-empty" in html and not re.search("<svg|<table", html)
        return f'<div class="custom">{html}</div>', "The function had nothing to show" if hollow else ""


def read_alarms(cloudwatch: Any, wanted: list[str] | None = None) -> list[dict[str, str]]:
    """Alarms with their state, those in alarm first."""
    found = []
    for page in cloudwatch.get_paginator("describe_alarms").paginate(
        **({"AlarmNames": wanted} if wanted else {}), AlarmTypes=["MetricAlarm", "CompositeAlarm"]
    ):
        for alarm in page.get("MetricAlarms", []) + page.get("CompositeAlarms", []):
            since = alarm.get("StateTransitionedTimestamp") or alarm.get("StateUpdatedTimestamp")
            found.append(
                {
                    "name": alarm["AlarmName"],
                    "state": alarm["StateValue"],
                    "reason": alarm.get("StateReason", ""),
                    "since": since.strftime("%H:%M:%S") if since else "",
                    "about": alarm.get("AlarmDescription", ""),
                }
            )
    order = ["ALARM", "INSUFFICIENT_DATA", "OK"]
    return sorted(found, key=lambda a: (order.index(a["state"]), a["name"]))


def alarm_chip(alarm: Mapping[str, str], known: str = "") -> str:
    """One alarm as a coloured chip, without the beginning of its name that is `known` from elsewhere."""
    short = re.sub(r"^AgentOps-[^-]+-", "", alarm["name"]).removeprefix(known)
    state = {"ALARM": "in alarm", "INSUFFICIENT_DATA": "no data"}.get(alarm["state"], alarm["state"])
    since = f"since {alarm['since']} UTC" if alarm["since"] else ""
    tip = " · ".join(part for part in (alarm["name"], since, alarm["about"], alarm["reason"]) if part)
    return (
        f'<span class="chip {alarm["state"].lower()}" title="{esc(tip)}"><b>{esc(short)}</b>'
        f"<small>{esc(state)}</small></span>"
    )


def chips(alarms: Iterable[Mapping[str, str]], known: str = "") -> str:
    """Alarms side by side, each without the `known` beginning of its name."""
    return f'<div class="chips">{"".join(alarm_chip(alarm, known) for alarm in alarms)}</div>'


def is_watch(alarm: Mapping[str, str]) -> bool:
    """Whether it watches the workload, which wakes the agents, rather than the agents themselves."""
    return "-Watch-" in alarm["name"]

"""Values over time as plain SVG: lines, areas or columns, thresholds, two axes, gaps where nothing is known.

A drawing carries its values in a ``data-chart`` attribute (JSON, already written for people): a page may add
a crosshair with them; without any script the marks have native ``<title>`` tooltips.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from . import figures
from .figures import Unit
from .svg import BAD, MUTED, Point, colour, document, el, line, num, polyline, rect, shorten, text, text_width

# Up to so many values a series, a line would be a dot, or a slope that never was: columns show the periods.
_COLUMNS_UP_TO = 4
_DOTS_UP_TO = 24


@dataclass(frozen=True, slots=True)
class Series:
    """One line: points are (epoch seconds, value), each standing for ``period`` seconds from there on."""

    label: str
    points: tuple[Point, ...]
    color: str = ""
    period: float = 60.0
    right: bool = False
    unit: Unit = Unit.COUNT


@dataclass(frozen=True, slots=True)
class Mark:
    """A horizontal line at a value, or a vertical one at a time (epoch seconds)."""

    value: float
    label: str = ""
    color: str = ""
    vertical: bool = False
    right: bool = False
    fill: str = ""  # "above" | "below", as CloudWatch names it


@dataclass(frozen=True, slots=True)
class Axis:
    """What the reader of the chart asked of a vertical axis."""

    minimum: float | None = None
    maximum: float | None = None
    label: str = ""


@dataclass(slots=True)
class _Scale:
    """Value → height for one vertical axis."""

    low: float
    high: float
    ticks: list[float]
    unit: Unit
    caption: str
    top: float = 0.0
    bottom: float = 1.0
    labels: list[str] = field(default_factory=list)

    def y(self, value: float) -> float:
        ratio = (value - self.low) / (self.high - self.low)
        return self.bottom - min(1.02, max(-0.02, ratio)) * (self.bottom - self.top)


def _scale(
    series: Sequence[Series], marks: Iterable[Mark], axis: Axis, stacked: bool, rows: int
) -> _Scale | None:
    if not series:
        return None
    values = [value for one in series for _, value in one.points]
    if stacked:
        totals: dict[float, float] = {}
        for one in series:
            for at, value in one.points:
                totals[at] = totals.get(at, 0.0) + value
        values += totals.values()
    unit = series[0].unit
    low, high = min([0.0, *values]), max([0.0, *values])
    # A threshold far above the data would press it flat: it is named at the edge instead of scaled to.
    high = max([high, *(mark.value for mark in marks if high <= 0 or mark.value <= 4 * high)])
    low = axis.minimum if axis.minimum is not None else low
    high = axis.maximum if axis.maximum is not None else high
    ticks = figures.nice_ticks(low, high, rows, whole=unit is Unit.COUNT and all(v == int(v) for v in values))
    low = low if axis.minimum is not None else ticks[0]
    high = high if axis.maximum is not None else ticks[-1]
    high = high if high > low else low + 1
    ticks = [tick for tick in ticks if low <= tick <= high] or [low]
    # Ticks of a time name their unit themselves, the one that suits them: a caption would name another.
    caption = "" if axis.label == unit and unit in (Unit.MILLISECONDS, Unit.SECONDS) else axis.label
    return _Scale(low, high, ticks, unit, caption, labels=figures.tick_labels(ticks, unit))


def legend(entries: Sequence[tuple[str, str]], left: float, width: float) -> tuple[str, float]:
    """Rows of (label, colour) drawn from y = 0 down, and their height."""
    parts: list[str] = []
    x, y = left, 0.0
    for label, shade in entries:
        shown = shorten(label, width - 24)
        needed = text_width(shown) + 30
        if x > left and x + needed > left + width:
            x, y = left, y + 18
        parts += [rect(x, y + 3, 10, 10, shade, rx=3), text(x + 15, y + 12, shown, opacity=0.8)]
        x += needed
    return "".join(parts), y + 18 if entries else 0.0


def _runs(one: Series) -> list[list[Point]]:
    """Points that follow each other without a gap; a missing period breaks the line, as it should."""
    runs: list[list[Point]] = []
    for point in one.points:
        if runs and point[0] - runs[-1][-1][0] <= one.period * 1.5:
            runs[-1].append(point)
        else:
            runs.append([point])
    return runs


@dataclass(slots=True)
class _Chart:
    """The plot's geometry, and the drawing of what is in it."""

    start: float
    end: float
    x0: float
    x1: float
    top: float
    bottom: float
    lefts: _Scale | None
    rights: _Scale | None
    stacked: bool

    def x(self, at: float) -> float:
        return self.x0 + (at - self.start) / max(1e-9, self.end - self.start) * (self.x1 - self.x0)

    def scale(self, right: bool) -> _Scale:
        found = (self.rights if right else self.lefts) or self.lefts or self.rights
        if found is None:
            raise ValueError("series: a chart needs at least one")
        return found

    def frame(self, width: float) -> list[str]:
        grid = self.scale(right=False)
        parts = [
            line((self.x0, grid.y(tick)), (self.x1, grid.y(tick)), opacity=0.3 if tick == 0 else 0.1)
            for tick in grid.ticks
        ]
        sides = (
            (self.lefts, self.x0 - 6, "end", 2.0, None),
            (self.rights, self.x1 + 6, None, width - 2, "end"),
        )
        for side, x, anchor, edge, edge_anchor in sides:
            if side:
                labelled = zip(side.ticks, side.labels, strict=True)
                parts += [text(x, side.y(tick) + 4, t, anchor=anchor, opacity=0.65) for tick, t in labelled]
                parts.append(
                    text(edge, 12, side.caption, anchor=edge_anchor, opacity=0.65) if side.caption else ""
                )
        for at, label in figures.time_ticks(self.start, self.end, max(2, int((self.x1 - self.x0) / 90))):
            x, half = self.x(at), text_width(label) / 2
            anchor = "end" if x + half > width else "start" if x - half < 0 else "middle"
            parts.append(line((x, self.bottom), (x, self.bottom + 4), opacity=0.35))
            parts.append(text(x, self.bottom + 17, label, anchor=anchor, opacity=0.65))
        return parts

    def columns(self, one: Series, shade: str, floor: dict[float, float], place: int, many: int) -> list[str]:
        scale = self.scale(one.right)
        slot = min(one.period / max(1e-9, self.end - self.start) * (self.x1 - self.x0) * 0.8, 120.0)
        share = slot if self.stacked else slot / many
        parts = []
        for at, value in one.points:
            edge = self.x(at + one.period / 2) - slot / 2 + (0 if self.stacked else place * share)
            high = scale.y(floor[at] + value)
            low = scale.y(floor[at] if self.stacked else max(0.0, scale.low))
            size = max(abs(low - high), 1.0)
            parts.append(
                rect(
                    edge + 0.5,
                    min(high, low),
                    max(1.5, share - 1),
                    size,
                    shade,
                    tip=_tip(one, at, value),
                    rx=2,
                )
            )
        return parts

    def lines(self, one: Series, shade: str, floor: dict[float, float], many: int) -> list[str]:
        scale, parts = self.scale(one.right), []
        for run in _runs(one):
            upper = [(self.x(at), scale.y(floor[at] + value)) for at, value in run]
            if len(run) > 1 and (self.stacked or many == 1):
                lower = [(self.x(at), scale.y(floor[at])) for at, _ in reversed(run)]
                opacity = 0.35 if self.stacked else 0.12
                parts.append(el("path", d=f"M{polyline(upper + lower)}Z", fill=shade, fill_opacity=opacity))
            if len(run) > 1:
                path = f"M{polyline(upper)}"
                parts.append(
                    el("path", d=path, fill="none", stroke=shade, stroke_width=2, stroke_linejoin="round")
                )
            if len(run) == 1 or len(one.points) <= _DOTS_UP_TO:
                parts += [
                    el("circle", tip=_tip(one, at, value), cx=px, cy=py, r=2.6, fill=shade)
                    for (px, py), (at, value) in zip(upper, run, strict=True)
                ]
        return parts

    def mark(self, mark: Mark) -> list[str]:
        shade = colour(mark.color) if mark.color else MUTED if mark.vertical else BAD
        if mark.vertical:
            if not self.start <= mark.value <= self.end:
                return []
            x = self.x(mark.value)
            label = text(x + 4, self.top + 10, mark.label, size=10, fill=shade)
            return [line((x, self.top), (x, self.bottom), opacity=0.9, dash="4 3", stroke=shade), label]
        scale = self.scale(mark.right)
        shown = mark.label or figures.write(mark.value, scale.unit)
        if mark.value > scale.high:
            return [text(self.x1 - 2, 12, f"↑ {shown}", anchor="end", size=10.5, fill=shade)]
        y, parts = scale.y(mark.value), []
        if mark.fill in ("above", "below"):
            edge, depth = (self.top, y - self.top) if mark.fill == "above" else (y, self.bottom - y)
            parts.append(rect(self.x0, edge, self.x1 - self.x0, depth, shade, fill_opacity=0.07))
        parts.append(line((self.x0, y), (self.x1, y), opacity=0.9, dash="5 4", stroke=shade))
        label_y = y - 5 if y - self.top > 12 else y + 13
        return [*parts, text(self.x0 + 6, label_y, shown, size=10.5, fill=shade)]


def _tip(one: Series, at: float, value: float) -> str:
    return f"{one.label}: {figures.write(value, one.unit)} · {figures.clock(at)}"


def time_series(
    series: Sequence[Series],
    *,
    width: float,
    height: float,
    start: float,
    end: float,
    title: str = "chart over time",
    stacked: bool = False,
    marks: Sequence[Mark] = (),
    left: Axis | None = None,
    right: Axis | None = None,
    show_legend: bool = True,
) -> str:
    """A chart over time.

    Parameters
    ----------
    series : Sequence[Series]
        At least one.
    width, height : float
        The drawing's size in pixels.
    start, end : float
        The time shown, in epoch seconds.
    title : str
        What a screen reader says.
    stacked : bool
        Pile the series up instead of drawing them over each other.
    marks : Sequence[Mark]
        Thresholds and events.
    left, right : Axis | None
        Bounds and captions of the two vertical axes.
    show_legend : bool
        Name the series beneath.

    Returns
    -------
    str
        An ``<svg>`` element.

    Raises
    ------
    ValueError
        Without any series.
    """
    left, right = left or Axis(), right or Axis()
    shades = [colour(one.color, index) for index, one in enumerate(series)]
    rows = max(3, min(6, int(height / 36)))
    levels = [mark for mark in marks if not mark.vertical]
    lefts = _scale(
        [s for s in series if not s.right], (m for m in levels if not m.right), left, stacked, rows
    )
    rights = _scale([s for s in series if s.right], (m for m in levels if m.right), right, stacked, rows)
    x0 = 14 + max((text_width(t) for t in lefts.labels), default=0) if lefts else 10.0
    x1 = width - 14 - (max((text_width(t) for t in rights.labels), default=0) if rights else 4)
    entries = list(zip((one.label for one in series), shades, strict=True)) if show_legend else []
    names, names_height = legend(entries, x0, x1 - x0)
    beyond = any(mark.value > s.high for mark in levels if (s := rights if mark.right else lefts))
    captions = any(scale.caption for scale in (lefts, rights) if scale)
    top, bottom = (22.0 if captions or beyond else 10.0), height - names_height - 24
    for scale in (lefts, rights):
        if scale:
            scale.top, scale.bottom = top, bottom
    chart = _Chart(start, end, x0, x1, top, bottom, lefts, rights, stacked)
    parts = chart.frame(width)

    columns = max(len(one.points) for one in series) <= _COLUMNS_UP_TO
    drawn = [(one, shade) for one, shade in zip(series, shades, strict=True) if one.points]
    base: dict[tuple[float, bool], float] = {}
    for place, (one, shade) in enumerate(drawn):
        floor = {at: base.get((at, one.right), 0.0) if stacked else 0.0 for at, _ in one.points}
        if columns:
            parts += chart.columns(one, shade, floor, place, len(drawn))
        else:
            parts += chart.lines(one, shade, floor, len(drawn))
        base |= {(at, one.right): floor[at] + value for at, value in one.points}
    for mark in marks:
        parts += chart.mark(mark)
    parts.append(el("g", names, transform=f"translate(0 {num(height - names_height)})") if names else "")
    return document(width, height, *parts, title=title, data=_hover(chart, series, shades, columns))


def _hover(chart: _Chart, series: Sequence[Series], shades: Sequence[str], columns: bool) -> str:
    times = sorted({at for one in series for at, _ in one.points})
    values = [dict(one.points) for one in series]
    middle = max((one.period for one in series), default=0.0) / 2 if columns else 0.0
    plot = (chart.x0, chart.top, chart.x1 - chart.x0, chart.bottom - chart.top)
    data = {
        "plot": [round(value, 1) for value in plot],
        "x": [round(chart.x(at + middle), 1) for at in times],
        "t": [figures.clock(at) + " UTC" for at in times],
        "s": [
            [one.label, shade, [figures.write(known[at], one.unit) if at in known else None for at in times]]
            for one, shade, known in zip(series, shades, values, strict=True)
        ],
    }
    return json.dumps(data, separators=(",", ":"))

"""Single figures as plain SVG: bars, rings, gauges, big numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from . import figures
from .figures import Unit
from .svg import BAD, Point, colour, document, el, num, polyline, rect, shorten, text, text_width
from .timeseries import Mark


@dataclass(frozen=True, slots=True)
class Value:
    """One figure with its name; `points` gives it a small line beneath."""

    label: str
    value: float
    unit: Unit = Unit.COUNT
    color: str = ""
    points: tuple[Point, ...] = ()

    @property
    def written(self) -> str:
        """The figure, as a person reads it."""
        return figures.write(self.value, self.unit)


def _arc(centre: Point, radius: float, start: float, turn: float) -> str:
    """Path data of an arc, clockwise from `start` (radians, 0 = three o'clock) over `turn`."""
    # A full turn has no start and end apart, so it can't be one arc; a hair less looks the same.
    turn = min(turn, 2 * math.pi * 0.99999)
    (ax, ay), (bx, by) = (
        (centre[0] + radius * math.cos(a), centre[1] + radius * math.sin(a)) for a in (start, start + turn)
    )
    return f"M{num(ax)} {num(ay)}A{num(radius)} {num(radius)} 0 {int(turn > math.pi)} 1 {bx:.3f} {by:.3f}"


def bars(values: Sequence[Value], *, width: float, height: float, title: str = "bar chart") -> str:
    """Horizontal bars, one per value, in the order given, each labelled with its figure."""
    rows = [row for row in values if math.isfinite(row.value)]
    left = min(width * 0.4, max((text_width(row.label, 12) for row in rows), default=0) + 12)
    right = max((text_width(row.written, 12) for row in rows), default=0) + 14
    room = max(20.0, width - left - right)
    top = max((abs(row.value) for row in rows), default=0.0) or 1.0
    pitch = min(40.0, height / max(1, len(rows)))
    thick = min(20.0, pitch * 0.62)
    parts = []
    for index, row in enumerate(rows):
        y = index * pitch + pitch / 2
        length = max(2.0 if row.value else 1.0, abs(row.value) / top * room)
        shade, name = colour(row.color, index), shorten(row.label, left - 8, 12)
        parts += [
            text(left - 8, y + 4, name, size=12, anchor="end", opacity=0.8),
            rect(left, y - thick / 2, length, thick, shade, tip=f"{row.label}: {row.written}", rx=3),
            text(left + length + 7, y + 4, row.written, size=12, weight=600),
        ]
    return document(width, height, *parts, title=title)


def ring(values: Sequence[Value], *, width: float, height: float, title: str = "shares") -> str:
    """Shares of a whole as a ring, the largest first, the total in its middle; their figures beside it."""
    shaded = [(row, colour(row.color, index)) for index, row in enumerate(values)]
    rows = [(row, shade) for row, shade in shaded if row.value > 0 and math.isfinite(row.value)]
    rows.sort(key=lambda each: -each[0].value)
    total = sum(row.value for row, _ in rows)
    beside = width > 300
    radius = max(24.0, min(height / 2 - 8, width * (0.22 if beside else 0.4)))
    centre, thick = (radius + 10 if beside else width / 2, height / 2), radius * 0.34
    parts, angle = [], -math.pi / 2
    pitch = min(24.0, height / max(1, len(rows)))
    for index, (row, shade) in enumerate(rows):
        share = row.value / total
        figure = f"{row.written} · {figures.percent(share)}"
        path = _arc(centre, radius - thick / 2, angle, share * 2 * math.pi)
        tip = f"{row.label}: {figure}"
        parts.append(el("path", tip=tip, d=path, fill="none", stroke=shade, stroke_width=thick))
        angle += share * 2 * math.pi
        if beside:
            left, y = centre[0] + radius + 24, centre[1] + (index - (len(rows) - 1) / 2) * pitch
            name = shorten(row.label, width - left - 30 - text_width(figure, 12), 12)
            parts += [
                rect(left, y - 6, 11, 11, shade, rx=3),
                text(left + 18, y + 4, name, size=12, opacity=0.85),
                text(width - 6, y + 4, figure, size=12, anchor="end", weight=600),
            ]
    if rows:
        whole, size = figures.write(total, rows[0][0].unit), max(11, radius * 0.2)
        parts.append(text(centre[0], centre[1] + size * 0.36, whole, size=size, anchor="middle", weight=650))
    return document(width, height, *parts, title=title)


def gauge(
    values: Sequence[Value],
    *,
    width: float,
    height: float,
    low: float,
    high: float,
    marks: Sequence[Mark] = (),
    title: str = "gauge",
) -> str:
    """Half-ring gauges between `low` and `high`; marks are ticks on the ring, and colour what passed them."""
    each, span = width / max(1, len(values)), (high - low) or 1
    radius = max(20.0, min(each / 2 - 18, height - 52))
    thick, parts = max(10.0, radius * 0.2), []
    levels = [mark for mark in marks if not mark.vertical]
    for index, row in enumerate(values):
        cx, cy = each * (index + 0.5), (height + radius) / 2 - 6
        ratio = min(1.0, max(0.0, (row.value - low) / span))
        passed = [mark for mark in levels if row.value >= mark.value]
        shade = colour(row.color, index)
        if passed or row.value > high:
            shade = colour(max(passed, key=lambda mark: mark.value).color or BAD) if passed else BAD
        dial = _arc((cx, cy), radius, math.pi, math.pi)
        parts.append(
            el("path", d=dial, fill="none", stroke="currentColor", stroke_opacity=0.1, stroke_width=thick)
        )
        if ratio > 0:
            path, tip = _arc((cx, cy), radius, math.pi, ratio * math.pi), f"{row.label}: {row.written}"
            parts.append(el("path", tip=tip, d=path, fill="none", stroke=shade, stroke_width=thick))
        for mark in levels:
            angle = math.pi * (1 + (mark.value - low) / span)
            if math.pi < angle < 2 * math.pi:
                inner, outer = radius - thick * 0.75, radius + thick * 0.75
                ends = [(cx + r * math.cos(angle), cy + r * math.sin(angle)) for r in (inner, outer)]
                level_colour = colour(mark.color or BAD)
                parts.append(
                    el("path", tip=mark.label, d=f"M{polyline(ends)}", stroke=level_colour, stroke_width=2)
                )
        small = [
            (cx - radius, figures.write(low, row.unit), 10),
            (cx + radius, figures.write(high, row.unit), 10),
        ]
        small.append((cx, shorten(row.label, radius * 1.3), 11))
        parts += [
            text(x, cy + 17, label, size=size, anchor="middle", opacity=0.65) for x, label, size in small
        ]
        parts.append(
            text(
                cx,
                cy - radius * 0.12,
                row.written,
                size=max(14.0, radius * 0.34),
                anchor="middle",
                weight=650,
            )
        )
    return document(width, height, *parts, title=title)


def big_numbers(values: Sequence[Value], *, width: float, height: float, title: str = "figures") -> str:
    """Figures large enough to read across a room, in columns that fit; sparklines beneath where given."""
    rows = max(1, math.ceil(len(values) / max(1, int(width / 130))))
    per_row = max(1, math.ceil(len(values) / rows))
    cell_width, cell_height = width / per_row, height / rows
    parts = []
    for index, item in enumerate(values):
        x, y = (index % per_row) * cell_width, (index // per_row) * cell_height
        spark = len(item.points) > 4 and cell_height >= 90
        size = min(34.0, cell_height * 0.36, (cell_width - 14) / max(1.0, len(item.written) * 0.58))
        size = round(max(14.0, size), 1)
        middle = y + (cell_height - (28 if spark else 0)) / 2 + size * 0.2
        cell = [
            text(x + 4, middle, item.written, size=size, weight=650),
            text(x + 4, middle + 19, shorten(item.label, cell_width - 12, 12), size=12, opacity=0.65),
        ]
        if spark:
            low, high = min(0.0, *(v for _, v in item.points)), max(v for _, v in item.points)
            first, last = item.points[0][0], item.points[-1][0]
            path = [
                (
                    x + 4 + (at - first) / ((last - first) or 1) * (cell_width - 20),
                    y + cell_height - 4 - (value - low) / ((high - low) or 1) * 26,
                )
                for at, value in item.points
            ]
            shade = colour(item.color, index)
            cell.append(el("path", d=f"M{polyline(path)}", fill="none", stroke=shade, stroke_width=1.8))
        parts.append(el("g", *cell, tip=f"{item.label}: {item.written}"))
    return document(width, height, *parts, title=title)

"""The little that is needed to write SVG and HTML safely: everything given is escaped, nothing is trusted."""

from __future__ import annotations

import math
import re
from html import escape

# Mid-tones that read on white and on near-black; neighbours differ in hue and lightness.
BLUE, AMBER, GREEN, VIOLET, PINK = "#3b82f6", "#f59e0b", "#10b981", "#a855f7", "#ec4899"
PALETTE = (BLUE, AMBER, GREEN, VIOLET, PINK, "#06b6d4", "#84cc16", "#f97316", "#6366f1", "#94a3b8")
OK, WARN, BAD, MUTED = GREEN, AMBER, "#ef4444", "#94a3b8"

FONT = "Inter,'Amazon Ember',system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"

_COLOUR = re.compile(r"#[0-9a-fA-F]{3,8}\Z|[a-zA-Z]{3,20}\Z")
# What XML 1.0 cannot hold; a log line can, and a parser would refuse the whole widget.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")

Point = tuple[float, float]


def esc(value: object) -> str:
    """Text made safe for element content and for quoted attributes."""
    return escape(_NOT_XML.sub("�", str(value)), quote=True)


def colour(value: object, index: int = 0) -> str:
    """`value` when it is a plain CSS colour, else the palette's colour number `index`."""
    given = str(value or "")
    return given if _COLOUR.match(given) else PALETTE[index % len(PALETTE)]


def num(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if math.isfinite(value) else "0"


def el(name: str, *body: str, tip: str = "", **attributes: float | str | None) -> str:
    """An SVG element.

    Parameters
    ----------
    name : str
        The element.
    *body : str
        Markup inside it, already safe.
    tip : str
        A native tooltip (``<title>``), escaped here.
    **attributes : float | str | None
        Escaped here; ``stroke_width`` is written ``stroke-width``; ``None`` leaves one out.
    """
    written = "".join(
        f' {key.replace("_", "-")}="{esc(value) if isinstance(value, str) else num(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = (f"<title>{esc(tip)}</title>" if tip else "") + "".join(body)
    return f"<{name}{written}>{inside}</{name}>" if inside else f"<{name}{written}/>"


def text(
    x: float,
    y: float,
    content: object,
    *,
    size: float = 11,
    anchor: str | None = None,
    weight: float | None = None,
    opacity: float | None = None,
    fill: str = "currentColor",
) -> str:
    """One line of text; its baseline is at `y`."""
    return el(
        "text",
        esc(content),
        x=x,
        y=y,
        font_size=size,
        fill=fill,
        text_anchor=anchor,
        font_weight=weight,
        fill_opacity=opacity,
    )


def line(
    a: Point, b: Point, *, opacity: float = 0.1, stroke: str = "currentColor", dash: str | None = None
) -> str:
    """A thin straight line."""
    return el(
        "line",
        x1=a[0],
        y1=a[1],
        x2=b[0],
        y2=b[1],
        stroke=stroke,
        stroke_opacity=opacity,
        stroke_dasharray=dash,
    )


def rect(
    x: float, y: float, width: float, height: float, fill: str, *, tip: str = "", **more: float | str
) -> str:
    """A filled rectangle; negative sizes are drawn as nothing."""
    return el("rect", tip=tip, x=x, y=y, width=max(0.0, width), height=max(0.0, height), fill=fill, **more)


def polyline(points: list[Point]) -> str:
    """Path data through the points, without the leading ``M``."""
    return "L".join(f"{num(x)} {num(y)}" for x, y in points)


def text_width(content: str, size: float = 11) -> float:
    """About how wide a text is drawn; 0.56 em is the mean advance of the sans-serif faces used here."""
    return len(content) * size * 0.56


def shorten(content: str, width: float, size: float = 11) -> str:
    """`content`, cut with an ellipsis when it would be wider than `width` pixels."""
    room = max(1, int(width / (size * 0.56)))
    return content if len(content) <= room else content[: max(1, room - 1)].rstrip() + "…"


def document(width: float, height: float, *body: str, title: str, data: str | None = None) -> str:
    """An inline ``<svg>`` that scales with its container; `title` is what a screen reader says."""
    return el(
        "svg",
        *body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {num(width)} {num(height)}",
        role="img",
        aria_label=title,
        width="100%",
        height="100%",
        font_family=FONT,
        data_chart=data,
    )

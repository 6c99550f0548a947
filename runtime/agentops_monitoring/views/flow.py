"""The map of agents and the messages between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from . import figures
from .svg import MUTED, PALETTE, Point, document, el, num, rect, shorten, text, text_width

# More than this is no map any more; the busiest are drawn and the rest is counted in words.
MAX_FLOWS, MAX_AGENTS = 40, 24
_BOX_W, _BOX_H = 148.0, 58.0
# The report's cards name their own colour; on CloudWatch the browser's canvas follows the theme.
_SURFACE = "var(--card,Canvas)"


@dataclass(frozen=True, slots=True)
class AgentNode:
    """An agent: its name and what it did in the time shown (cost in USD)."""

    name: str
    events: int | None = None
    cost_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Flow:
    """Messages from one agent to another; mean and 95th percentile of the milliseconds from sending to
    receiving, where known."""

    source: str
    target: str
    count: int
    latency_ms: float | None = None
    p95_ms: float | None = None


def _layers(names: Sequence[str], flows: Sequence[Flow]) -> dict[str, int]:
    """Each agent's column: messages run left to right, but for those that close a loop.

    Flows are taken busiest first; one that would close a loop over those already taken is left out of the
    order (and later drawn as an arc back), so the main direction of work decides the layout.
    """
    after: dict[str, set[str]] = {name: set() for name in names}

    def reaches(start: str, goal: str) -> bool:
        seen, stack = set(), [start]
        while stack:
            here = stack.pop()
            if here == goal:
                return True
            if here not in seen:
                seen.add(here)
                stack += after[here]
        return False

    for flow in sorted(flows, key=lambda f: (-f.count, f.source, f.target)):
        if flow.source != flow.target and not reaches(flow.target, flow.source):
            after[flow.source].add(flow.target)
    column = dict.fromkeys(names, 0)
    for _ in names:  # longest path, by relaxation: at most one pass per agent
        moved = False
        for source in names:
            for target in after[source]:
                if column[target] <= column[source]:
                    column[target], moved = column[source] + 1, True
        if not moved:
            break
    return column


def _busiest(flows: Sequence[Flow]) -> tuple[list[Flow], dict[str, int]]:
    """The flows that are drawn, and their agents' columns, leftmost first."""
    found = sorted(flows, key=lambda f: (-f.count, f.source, f.target))[:MAX_FLOWS]
    names = dict.fromkeys(name for flow in found for name in (flow.source, flow.target))
    talking = list(names)[:MAX_AGENTS]
    found = [flow for flow in found if flow.source in talking and flow.target in talking]
    column = _layers(talking, found)
    return found, dict(sorted(column.items(), key=lambda item: item[1]))


def agents_in_order(flows: Sequence[Flow]) -> list[str]:
    """The agents that talk, in the direction of their work; the same order gives the same colours."""
    return list(_busiest(flows)[1])


def _arrow(tip: Point, angle: float, size: float, shade: str) -> str:
    corners = [
        (tip[0] - size * math.cos(angle + t), tip[1] - size * math.sin(angle + t)) for t in (-0.42, 0.42)
    ]
    return el("polygon", points=" ".join(f"{num(x)},{num(y)}" for x, y in (tip, *corners)), fill=shade)


def _badge(spot: Point, flow: Flow) -> str:
    """A caption on an arrow, on the page's own colour, so that no line runs through it."""
    late = flow.latency_ms
    label = figures.count(flow.count) + (f" · {figures.duration(late)}" if late is not None else "")
    wide = text_width(label) + 14
    box = rect(
        spot[0] - wide / 2,
        spot[1] - 10,
        wide,
        19,
        _SURFACE,
        rx=9.5,
        stroke="currentColor",
        stroke_opacity=0.2,
    )
    return el("g", box, text(spot[0], spot[1] + 4, label, anchor="middle", weight=550), tip=_describe(flow))


def _describe(flow: Flow) -> str:
    said = f"{flow.source} → {flow.target}: {figures.count(flow.count)} messages"
    if flow.latency_ms is not None:
        said += f", {figures.duration(flow.latency_ms)} on the way"
    if flow.p95_ms is not None:
        said += f", 95 % of them within {figures.duration(flow.p95_ms)}"
    return said


def _box(node: AgentNode, at: Point, shade: str) -> str:
    facts = [f"{figures.count(node.events)} events"] if node.events is not None else []
    facts += [figures.usd(node.cost_usd)] if node.cost_usd is not None else []
    x, y = at[0], at[1] - _BOX_H / 2
    centre, name, below = x + _BOX_W / 2, shorten(node.name, _BOX_W - 20, 14), " · ".join(facts)
    return el(
        "g",
        rect(x, y, _BOX_W, _BOX_H, _SURFACE, rx=12),
        rect(x, y, _BOX_W, _BOX_H, shade, rx=12, fill_opacity=0.13, stroke=shade, stroke_width=1.6),
        text(centre, at[1] - (3 if facts else -5), name, size=14, anchor="middle", weight=650),
        text(centre, at[1] + 16, shorten(below, _BOX_W - 12), anchor="middle", opacity=0.7),
        tip=" · ".join([node.name, *facts]),
    )


def _place(column: Mapping[str, int], width: float) -> tuple[dict[str, Point], float]:
    """Where each agent's box starts (left edge) and is centred (height), and how far down the boxes reach."""
    stacks: dict[int, list[str]] = {}
    for name in sorted(column, key=lambda n: (column[n], n)):
        stacks.setdefault(column[name], []).append(name)
    pitch = _BOX_H + 26
    reach = max(len(stack) for stack in stacks.values()) * pitch
    gap = (width - 24 - _BOX_W) / max(1, len(stacks) - 1)
    at: dict[str, Point] = {}
    for place, layer in enumerate(sorted(stacks)):
        stack = stacks[layer]
        x = 12 + place * gap if len(stacks) > 1 else (width - _BOX_W) / 2
        at |= {n: (x, reach / 2 + (row - (len(stack) - 1) / 2) * pitch) for row, n in enumerate(stack)}
    return at, reach


def _forward(start: Point, end: Point, thick: float, shade: str) -> tuple[str, str, Point]:
    """Path data, arrow head and the caption's place of a message to an agent further right."""
    (sx, sy), (tx, ty), size = start, end, 8 + thick
    x0, x1 = sx + _BOX_W, tx - 3
    bend = (x1 - x0) * 0.45
    curve = [(x0 + bend, sy), (x1 - bend, ty), (x1 - size + 3, ty)]
    path = f"M{num(x0)} {num(sy)}C{' '.join(f'{num(x)} {num(y)}' for x, y in curve)}"
    return path, _arrow((x1, ty), 0.0, size, shade), ((x0 + x1) / 2, (sy + ty) / 2)


def _back(start: Point, end: Point, depth: float, thick: float, shade: str) -> tuple[str, str, Point]:
    """The same for a message back, or to itself: out below the sender, in below the receiver."""
    size = 8 + thick
    x0, x1 = start[0] + _BOX_W * 0.65, end[0] + _BOX_W * 0.35
    y0, y1 = start[1] + _BOX_H / 2, end[1] + _BOX_H / 2 + 3
    turn = 14.0 if x0 > x1 else -14.0
    path = (
        f"M{num(x0)} {num(y0)}L{num(x0)} {num(depth - 14)}"
        f"Q{num(x0)} {num(depth)} {num(x0 - turn)} {num(depth)}"
        f"L{num(x1 + turn)} {num(depth)}Q{num(x1)} {num(depth)} {num(x1)} {num(depth - 14)}"
        f"L{num(x1)} {num(y1 + size - 3)}"
    )
    return path, _arrow((x1, y1), -math.pi / 2, size, shade), ((x0 + x1) / 2, depth)


def render_flow(
    agents: Sequence[AgentNode], flows: Sequence[Flow], *, width: float = 900, height: float = 0
) -> str:
    """Draw the agents as boxes and the messages as arrows, thick where there are many.

    Parameters
    ----------
    agents : Sequence[AgentNode]
        Agents to show; those that only occur in `flows` are added.
    flows : Sequence[Flow]
        Messages, one entry per pair. The busiest 40 are drawn.
    width, height : float
        Room in pixels; a small map is drawn larger to fill it, a large one takes more height.

    Returns
    -------
    str
        One ``<svg>``, or a sentence when there is nothing to draw.
    """
    busiest, column = _busiest(flows)
    known, talking = {agent.name: agent for agent in agents}, list(column)
    if not busiest:
        return '<p class="agv-empty">No messages between agents in this time.</p>'
    silent = [agent.name for agent in agents if agent.name not in talking]
    notes = [f"{len(flows) - len(busiest)} quieter flows not drawn"] if len(flows) > len(busiest) else []
    notes += [f"without messages: {', '.join(silent[:8])}{' …' if len(silent) > 8 else ''}"] if silent else []

    many_back = sum(column[flow.target] <= column[flow.source] for flow in busiest)
    below = (24.0 + 26.0 * min(many_back, 6) if many_back else 0.0) + (22 if notes else 6)
    needed = _place(column, width)[1] + below
    zoom = min(1.6, max(1.0, height / needed))
    width, height = width / zoom, height / zoom
    at, reach = _place(column, width)
    tall = max(reach + below, height)
    lift = (tall - reach - below) / 2

    most = max(flow.count for flow in busiest)
    lines, badges = [], []
    arcs = 0
    for flow in busiest:
        thick = 1.5 + 4.5 * math.log1p(flow.count) / math.log1p(most)
        shade = PALETTE[talking.index(flow.source) % len(PALETTE)]
        if column[flow.target] > column[flow.source]:
            path, head, spot = _forward(at[flow.source], at[flow.target], thick, shade)
        else:
            depth = reach + 14 + 26 * min(arcs, 5)
            path, head, spot = _back(at[flow.source], at[flow.target], depth, thick, shade)
            arcs += 1
        drawn = el(
            "path",
            tip=_describe(flow),
            d=path,
            fill="none",
            stroke=shade,
            stroke_width=thick,
            stroke_opacity=0.75,
        )
        lines.append(drawn + head)
        badges.append(_badge(spot, flow))
    boxes = [
        _box(known.get(name, AgentNode(name)), at[name], PALETTE[index % len(PALETTE)])
        for index, name in enumerate(talking)
    ]
    picture = el("g", *lines, *badges, *boxes, transform=f"translate(0 {num(lift)})")
    said = text(12, tall - 6, shorten(" · ".join(notes), width - 24), fill=MUTED) if notes else ""
    return document(width, tall, picture, said, title="messages between agents")

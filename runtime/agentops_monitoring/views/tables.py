"""Decisions with their reasoning, and what costs most, as HTML for CloudWatch custom widgets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from html import escape

from . import figures
from .svg import BAD, OK, PALETTE, WARN, esc

STYLE = """<style>
.agv{font-size:13px;line-height:1.45}
.agv table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
.agv th{text-align:left;font-weight:600;opacity:.65;font-size:12px;padding:4px 10px 6px 0;
border-bottom:1px solid rgba(128,128,128,.3)}
.agv td{padding:7px 10px 7px 0;border-bottom:1px solid rgba(128,128,128,.16);vertical-align:top}
.agv .n{text-align:right;white-space:nowrap}
.agv .q{opacity:.65}
.agv .w{white-space:nowrap}
.agv .bar{display:inline-block;width:56px;height:7px;border-radius:4px;background:rgba(128,128,128,.22);
vertical-align:middle;margin-right:7px;overflow:hidden}
.agv .bar i{display:block;height:100%;border-radius:4px}
.agv .tag{display:inline-block;padding:1px 9px;border-radius:10px;font-size:12px;font-weight:600;
white-space:nowrap}
.agv ol{margin:8px 0 8px 22px;padding:0}
.agv li{margin:0 0 10px;padding-left:4px}
.agv dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 12px;margin:0}
.agv dt{opacity:.6}
.agv dd{margin:0;white-space:pre-wrap;overflow-wrap:anywhere}
.agv pre{white-space:pre-wrap;overflow-wrap:anywhere;background:rgba(128,128,128,.1);border-radius:6px;
padding:8px 10px;margin:4px 0 10px;font-size:12px}
.agv h4{margin:12px 0 2px;font-size:13px}
.agv a.btn{white-space:nowrap}
.agv-empty{opacity:.65;padding:8px 0}
</style>"""

# What outputs and inputs are commonly called, the plainest first; their form is each agent's own affair.
_OUTCOMES = ("verdict", "decision", "outcome", "action", "result", "status", "choice")
_REASONS = ("root_cause", "explanation", "reason", "summary", "recommendation", "comment")
_SUBJECTS = ("function", "function_name", "subject", "target", "resource", "service")


@dataclass(frozen=True, slots=True)
class Decision:
    """A recorded decision; `key` is what leads back to it, `at` an RFC 3339 time, `confidence` 0…1."""

    key: Mapping[str, str]
    agent: str
    type: str
    at: str
    workflow_id: str = ""
    confidence: float | None = None
    chain: Sequence[object] = ()
    inputs: object = None
    outputs: object = None
    alternatives: object = None
    outcome: Mapping[str, object] | None = None
    """What became of it, as `LedgerReader.decision` says; None while nobody told."""


@dataclass(frozen=True, slots=True)
class Driver:
    """Something that costs: of which kind (agent, model, event type), how much, and what stands behind it."""

    kind: str
    name: str
    usd: Decimal
    evidence: Mapping[str, object] = field(default_factory=dict)


def _words(value: object, limit: int = 0) -> str:
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return shown if not limit or len(shown) <= limit else shown[: limit - 1].rstrip() + "…"


def _evidence(evidence: Mapping[str, object]) -> str:
    """Name and figure, one after another; what is named in USD is written as money."""

    def written(name: str, value: object) -> str:
        words = name.replace("_", " ").split()
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            named = [word for word in words if word.lower() != "usd"]
            figure = figures.usd(value) if len(named) < len(words) else figures.count(value)
            return " ".join([*named, figure])
        return " ".join([*words, _words(value, 80)])

    return " · ".join(written(name, value) for name, value in evidence.items())


def _shade(confidence: float) -> str:
    return OK if confidence >= 0.8 else WARN if confidence >= 0.5 else BAD


def _bar(ratio: float, shade: str) -> str:
    size = min(1.0, max(0.0, ratio)) * 100
    return f'<span class="bar"><i style="width:{size:.0f}%;background:{shade}"></i></span>'


def _confidence(value: float | None) -> str:
    return _bar(value, _shade(value)) + figures.percent(value) if value is not None else "–"


def _verdict(outcome: Mapping[str, object] | None) -> str:
    """Whether a decision proved right, in a word or a figure. HTML."""
    if outcome is None:
        return '<span class="q">open</span>'
    correct, score = outcome.get("correct"), outcome.get("score")
    rated = float(score) if isinstance(score, int | float | Decimal) else None
    if isinstance(correct, bool):
        shade, said = (OK, "right") if correct else (BAD, "wrong")
        tag = f'<span class="tag" style="background:{shade}26;color:{shade}">{said}</span>'
        return tag if rated is None else f"{tag} {figures.percent(rated)}"
    return _confidence(rated)


def _tag(name: str, order: Sequence[str]) -> str:
    shade = PALETTE[order.index(name) % len(PALETTE)]
    return f'<span class="tag" style="background:{shade}26;color:{shade}">{esc(name)}</span>'


def _cell(content: str, style: str = "") -> str:
    return f'<td class="{style}">{content}</td>' if style else f"<td>{content}</td>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells; a heading that starts with ``>`` is set flush right."""
    names = "".join(
        f'<th class="n">{head[1:]}</th>' if head[0] == ">" else f"<th>{head}</th>" for head in heads
    )
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"


def _page(*parts: str) -> str:
    return f'{STYLE}<div class="agv">{"".join(parts)}</div>'


def _first(told: object, names: Sequence[str]) -> str:
    """The first of the named entries that says something in a word or a sentence."""
    entries = told if isinstance(told, Mapping) else {}
    found = (entries.get(name) for name in names)
    return next((value.strip() for value in found if isinstance(value, str) and value.strip()), "")


def _last(chain: Sequence[object], name: str) -> str:
    steps = (_first(step, [name]) for step in reversed(chain))
    return next(filter(None, steps), "")


def _subject(decision: Decision) -> str:
    """What the decision is about, where its inputs or outputs say so."""
    return _first(decision.inputs, _SUBJECTS) or _first(decision.outputs, _SUBJECTS)


def _decided(decision: Decision) -> str:
    """What was decided, and why, from the outputs; without any the last thought. HTML."""
    outputs, chain = decision.outputs, decision.chain
    outcome, reason = _first(outputs, _OUTCOMES), _first(outputs, _REASONS)
    if outcome:
        # An observation may go on with a whole log; what it says is in its first line.
        reason = (reason or _last(chain, "observation") or _last(chain, "thought")).partition("\n")[0]
        return f"<strong>{esc(_words(outcome, 60))}</strong>" + (
            f" – {esc(_words(reason, 150))}" if reason else ""
        )
    if not reason and isinstance(outputs, Mapping):
        plain = {name: value for name, value in outputs.items() if isinstance(value, str | int | float)}
        reason = " · ".join(f"{str(name).replace('_', ' ')} {value}" for name, value in plain.items())
    elif not reason and outputs not in (None, "", []):
        reason = _words(outputs)
    return esc(_words(reason or _last(chain, "thought"), 150))


def drill_down(event: Mapping[str, object], endpoint: str, label: str) -> str:
    """A link that calls the widget function again and pops up the answer (CloudWatch's ``cwdb-action``)."""
    asked = escape(json.dumps(event), quote=False)
    return (
        f'<a class="btn">{esc(label)}</a>'
        f'<cwdb-action action="call" display="popup" endpoint="{esc(endpoint)}">{asked}</cwdb-action>'
    )


def render_decisions(
    decisions: Sequence[Decision], *, endpoint: str, environment: str, agents: Sequence[str] = ()
) -> str:
    """The latest decisions, newest first, each with a link to its full reasoning.

    Parameters
    ----------
    decisions : Sequence[Decision]
        What to show, in any order.
    endpoint : str
        ARN of the widget function, which answers the drill-down.
    environment : str
        Goes back to the function with each drill-down.
    agents : Sequence[str]
        The order of the agents, which gives them their colours.
    """
    if not decisions:
        return _page('<p class="agv-empty">No decisions recorded yet.</p>')
    newest = sorted(decisions, key=lambda d: d.at, reverse=True)
    order = list(dict.fromkeys([*agents, *(decision.agent for decision in reversed(newest))]))
    subjects = [_subject(decision) for decision in newest]
    told = any(decision.outcome is not None for decision in newest)
    rows = []
    for decision, subject in zip(newest, subjects, strict=True):
        event = {"widget": "decision", "environment": environment, "key": dict(decision.key)}
        steps = len(decision.chain)
        link = drill_down(event, endpoint, "1 step" if steps == 1 else f"{steps} steps")
        about = [_cell(esc(_words(subject, 60)), "w")] if any(subjects) else []
        rows.append(
            [
                _cell(esc(decision.at[11:19]), "q w"),
                _cell(_tag(decision.agent, order)),
                _cell(esc(decision.type)),
                *about,
                _cell(_decided(decision)),
                _cell(_confidence(decision.confidence), "w"),
                *([_cell(_verdict(decision.outcome), "w")] if told else []),
                _cell(link, "w"),
            ]
        )
    proved = ["Proved"] if told else []
    about = ["About"] if any(subjects) else []
    heads = (
        "Time (UTC)",
        "Agent",
        "Decision",
        *about,
        "What was decided",
        "Confidence",
        *proved,
        "Reasoning",
    )
    return _page(_table(heads, rows))


def render_decision(decision: Decision) -> str:
    """One decision in full: every step of its reasoning, inputs, outputs, alternatives, what became of it."""
    steps = []
    for step in decision.chain:
        pairs = step.items() if isinstance(step, Mapping) else [("step", step)]
        shown = [
            f"<dt>{esc(str(name).capitalize())}</dt><dd>{esc(_words(value))}</dd>" for name, value in pairs
        ]
        steps.append(f"<li><dl>{''.join(shown)}</dl></li>")
    head = (
        f"<p>{_tag(decision.agent, [decision.agent])} <strong>{esc(decision.type)}</strong> "
        f'<span class="q">{esc(decision.at)} · workflow {esc(decision.workflow_id or "–")}</span><br>'
        f"{_confidence(decision.confidence)} confident{_proof(decision.outcome)}</p>"
    )
    chain = f"<h4>Reasoning</h4><ol>{''.join(steps)}</ol>"
    if not steps:
        chain = '<p class="agv-empty">No reasoning recorded.</p>'
    given = {"Inputs": decision.inputs, "Outputs": decision.outputs, "Alternatives": decision.alternatives}
    given["What became of it"] = (decision.outcome or {}).get("evidence")
    blocks = [
        f"<h4>{name}</h4><pre>{esc(json.dumps(value, indent=2, ensure_ascii=False, default=str))}</pre>"
        for name, value in given.items()
        if value not in (None, {}, [], "")
    ]
    return _page(head, chain, *blocks)


def _proof(outcome: Mapping[str, object] | None) -> str:
    if outcome is None:
        return ""
    by = f"{esc(outcome.get('agent'))}, {esc(outcome.get('at'))}"
    return f' · proved {_verdict(outcome)} <span class="q">by {by}</span>'


def _opportunity(found: Mapping[str, object]) -> str:
    saving, evidence = found.get("estimated_savings_usd"), found.get("evidence")
    said = f"<strong>{esc(str(found.get('type', '')).replace('_', ' '))}</strong> – "
    said += esc(found.get("recommendation", ""))
    if isinstance(saving, Decimal | int | float):
        said += f" <strong>saves {figures.usd(saving)}</strong>"
    if isinstance(evidence, Mapping) and evidence:
        said += f'<br><span class="q">{esc(_evidence(evidence))}</span>'
    return f"<li>{said}</li>"


def render_cost_drivers(
    drivers: Sequence[Driver], opportunities: Sequence[Mapping[str, object]] = (), *, total_usd: Decimal
) -> str:
    """What could be done, with its evidence, then what costs most, with its share and evidence.

    What could be done comes first: a dashboard's tile shows its top without scrolling.

    Parameters
    ----------
    drivers : Sequence[Driver]
        Agents, models and event types with their cost; the costliest of each kind come first.
    opportunities : Sequence[Mapping[str, object]]
        As ``AgentOpsAnalyzer.identify_optimization_opportunities`` returns them.
    total_usd : Decimal
        The whole that shares refer to, in USD.
    """
    if not drivers:
        return _page('<p class="agv-empty">No cost booked yet.</p>')
    kinds = list(dict.fromkeys(driver.kind for driver in drivers))
    rows = []
    for driver in sorted(drivers, key=lambda d: (kinds.index(d.kind), -d.usd)):
        share = float(driver.usd / total_usd) if total_usd else 0.0
        shade = PALETTE[kinds.index(driver.kind) % len(PALETTE)]
        rows.append(
            [
                _cell(_tag(driver.kind, kinds)),
                _cell(esc(driver.name)),
                _cell(figures.usd(driver.usd), "n"),
                _cell(_bar(share, shade) + figures.percent(share), "w"),
                _cell(esc(_evidence(driver.evidence)), "q"),
            ]
        )
    advice = '<p class="q">Nothing found that would save something in this time.</p>'
    if opportunities:
        advice = f"<ol>{''.join(_opportunity(found) for found in opportunities)}</ol>"
    drivers_table = _table(("Kind", "Name", ">Cost", "Share", "Evidence"), rows)
    return _page("<h4>What could be done</h4>", advice, "<h4>What costs most</h4>", drivers_table)

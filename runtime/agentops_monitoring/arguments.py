"""What the monitor's arguments may be, and what becomes of those that are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agentops_monitoring.encoding import render
from agentops_monitoring.event_types import CUSTOM_EVENT
from agentops_monitoring.settings import DEFAULT_AGENT_NAME

MAX_AGENT_NAME = 128
MAX_EVENT_TYPE = 128
AGENT_NAME_RULE = f"not printable ASCII without # and |, 1 to {MAX_AGENT_NAME} characters"

_MAX_SHOWN = 300


def shown(value: object) -> str:
    """Show a value in a message, shortened."""
    shown = str(render(value))
    return repr(shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "…")


def agent_name(name: object) -> str:
    """Return the nearest name that can be a dimension and stand in keys, whose separators are # and |."""
    text = str(render(name)).strip().lstrip(":")
    kept = "".join(
        each if each.isascii() and each.isprintable() and each not in "#|" else "_" for each in text
    )
    return kept[:MAX_AGENT_NAME].strip() or DEFAULT_AGENT_NAME


def event_type(given: object, problems: list[str]) -> str:
    """Return the type as given, or `custom_event` for what can be no name."""
    if isinstance(given, str):
        kind = str.__str__(given)
        if 0 < len(kind) <= MAX_EVENT_TYPE and kind.isprintable() and "#" not in kind:
            return kind
    problems.append(f"event type {shown(given)} is not printable, 1 to 128 characters, without #")
    return CUSTOM_EVENT


def steps(chain: object, problems: list[str]) -> list[object]:
    """Return a reasoning chain as a list of mappings; nothing of it gets lost."""
    if isinstance(chain, str | bytes | Mapping) or not isinstance(chain, Iterable):
        problems.append(f"reasoning_chain is no sequence of steps but {type(chain).__name__}")
        return [chain if isinstance(chain, Mapping) else {"thought": chain}]
    steps: list[object] = []
    try:
        for number, step in enumerate(chain, start=1):
            if isinstance(step, Mapping):
                steps.append(step)
            else:
                problems.append(f"step {number} of reasoning_chain is no mapping but {type(step).__name__}")
                steps.append({"thought": step})
    except Exception as error:  # noqa: BLE001 - an iterator of the caller's that raises
        problems.append(f"reasoning_chain ends with {type(error).__name__}")
    return steps


def confidence(score: object, problems: list[str]) -> float | None:
    """Return a confidence as a float, None for what is not within 0 … 1."""
    if score is None:
        return None
    try:
        number = float(score) if not isinstance(score, bool | str) else -1.0  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - no number
        number = -1.0
    if 0 <= number <= 1:
        return number
    problems.append(f"confidence_score {shown(score)} is not within 0 … 1")
    return None

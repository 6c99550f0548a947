"""What the monitor's arguments may be, and what becomes of those that are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeGuard

from agentops_monitoring.encoding import render
from agentops_monitoring.event_types import CUSTOM_EVENT
from agentops_monitoring.settings import DEFAULT_AGENT_NAME

MAX_AGENT_NAME = 128
MAX_EVENT_TYPE = 128
AGENT_NAME_RULE = f"not printable ASCII without # and |, 1 to {MAX_AGENT_NAME} characters"

_MAX_SHOWN = 300


def is_text(value: object) -> TypeGuard[str]:
    """Whether a value is a string; unlike `isinstance` it does not touch objects that raise when touched."""
    return issubclass(type(value), str)


def is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    """Whether a value is a mapping, by its type alone, as `is_text`."""
    return issubclass(type(value), Mapping)


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


def identifier(given: object) -> str:
    """Return an id as a text, an empty one for None."""
    return "" if given is None else str(render(given))


def label(name: str, given: object, problems: list[str]) -> str | None:
    """Return an optional text; what is none is shown."""
    if given is None or is_text(given):
        return given
    problems.append(f"{name} {shown(given)} is no text")
    return shown(given)


def event_type(given: object, problems: list[str]) -> str:
    """Return the type as given, or `custom_event` for what can be no name."""
    if is_text(given):
        kind = str.__str__(given)
        if 0 < len(kind) <= MAX_EVENT_TYPE and kind.isprintable() and "#" not in kind:
            return kind
    problems.append(f"event type {shown(given)} is not printable, 1 to 128 characters, without #")
    return CUSTOM_EVENT


def steps(chain: object, problems: list[str]) -> list[object]:
    """Return a reasoning chain as a list of mappings; nothing of it gets lost."""
    kind = type(chain)
    if issubclass(kind, str | bytes | Mapping) or not issubclass(kind, Iterable):
        problems.append(f"reasoning_chain is no sequence of steps but {kind.__name__}")
        return [chain if is_mapping(chain) else {"thought": chain}]
    steps: list[object] = []
    wrong = 0
    try:
        for number, step in enumerate(chain, start=1):  # type: ignore[var-annotated, arg-type]
            if is_mapping(step):
                steps.append(step)
                continue
            steps.append({"thought": step})
            wrong += 1
            # The first alone: there may be any number of them, and the reasons stand in each part of a line.
            if wrong == 1:
                problems.append(f"step {number} of reasoning_chain is no mapping but {type(step).__name__}")
    except Exception as error:  # noqa: BLE001 - an iterator of the caller's that raises
        problems.append(f"reasoning_chain ends with {type(error).__name__}")
    if wrong > 1:
        problems[-1] += f", as are {wrong - 1} more"
    return steps


def confidence(score: object, problems: list[str]) -> float | None:
    """Return a confidence as a float, None for what is not within 0 … 1."""
    if score is None:
        return None
    try:
        number = float(score) if not issubclass(type(score), bool | str) else -1.0  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - no number
        number = -1.0
    if 0 <= number <= 1:
        return number
    problems.append(f"confidence_score {shown(score)} is not within 0 … 1")
    return None

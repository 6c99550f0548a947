"""What the monitor's arguments may be, and what becomes of those that are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized

from agentops_monitoring.encoding import encode, render
from agentops_monitoring.event_types import CUSTOM_EVENT
from agentops_monitoring.settings import DEFAULT_AGENT_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeGuard

MAX_AGENT_NAME = 128
MAX_EVENT_TYPE = 128
AGENT_NAME_RULE = f"not printable ASCII without # and |, 1 to {MAX_AGENT_NAME} characters"

MAX_STEPS = 10_000
"""Steps taken from a reasoning chain that does not say how many it has: it may never end."""
MAX_TAGS = 32
MAX_TAG = 256
"""Characters of a tag's name and of its value: tags stand in every line."""
MAX_TAGS_BYTES = 8_000
"""All tags as they stand in a line, those of outer contexts included."""

_MAX_SHOWN = 300
_STEP_TEXTS = ("thought", "action", "observation")


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
    text = str(render(name, redact=False)).strip().lstrip(":")
    kept = "".join(
        each if each.isascii() and each.isprintable() and each not in "#|" else "_" for each in text
    )
    return kept[:MAX_AGENT_NAME].strip() or DEFAULT_AGENT_NAME


def identifier(given: object) -> str:
    """Return an id as a text, an empty one for None."""
    return "" if given is None else str(render(given, redact=False))


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


def text(name: str, given: object, problems: list[str]) -> object:
    """Return the value as it is; a problem where it is no text."""
    if not is_text(given) or not given:
        problems.append(f"{name} {shown(given)} is no text")
    return given


def steps(chain: object, problems: list[str]) -> list[object]:
    """Return a reasoning chain as a list of mappings; nothing of it gets lost."""
    kind = type(chain)
    if issubclass(kind, str | bytes | Mapping) or not issubclass(kind, Iterable):
        problems.append(f"reasoning_chain is no sequence of steps but {kind.__name__}")
        return [chain if is_mapping(chain) else {"thought": chain}]
    steps: list[object] = []
    wrong, first = 0, ""
    endless = not issubclass(kind, Sized)
    try:
        for number, step in enumerate(chain, start=1):  # type: ignore[var-annotated, arg-type]
            if endless and number > MAX_STEPS:
                problems.append(f"reasoning_chain has more than {MAX_STEPS} steps, and does not say how many")
                break
            reason = _wrong_in(step)
            steps.append(step if is_mapping(step) else {"thought": step})
            if reason:
                wrong += 1
                # The first alone: there may be any number, and the reasons stand in each part of a line.
                first = first or f"step {number} of reasoning_chain {reason}"
    except Exception as error:  # noqa: BLE001 - an iterator of the caller's that raises
        problems.append(f"reasoning_chain ends with {type(error).__name__}")
    if wrong:
        problems.append(first if wrong == 1 else f"{first}, and {wrong - 1} more steps are wrong")
    return steps


def _wrong_in(step: object) -> str | None:
    if not is_mapping(step):
        return f"is no mapping but {type(step).__name__}"
    for name in _STEP_TEXTS:
        try:
            given = step.get(name)
        except Exception as error:  # noqa: BLE001 - a mapping of the caller's own
            return f"cannot be read: {type(error).__name__}"
        if given is not None and not is_text(given):
            return f"has as {name} no text but {type(given).__name__}"
    return None


def fraction(name: str, given: object, problems: list[str]) -> float | None:
    """Return a number as a float, None for what is not within 0 … 1."""
    if given is None:
        return None
    try:
        number = float(given) if not issubclass(type(given), bool | str) else -1.0  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - no number
        number = -1.0
    if 0 <= number <= 1:
        return number
    problems.append(f"{name} {shown(given)} is not within 0 … 1")
    return None


def verdict(name: str, given: object, problems: list[str]) -> bool | None:
    """Return True, False or None; what is none of them, a NumPy one included, is a problem."""
    rendered = render(given)
    if rendered is None or rendered is True or rendered is False:
        return rendered
    problems.append(f"{name} {shown(given)} is neither True nor False")
    return None


def milliseconds(name: str, given: object, problems: list[str]) -> float | None:
    """Return a duration as a number, None for what is none."""
    if given is None:
        return None
    rendered = render(given)
    if type(rendered) in (int, float) and rendered >= 0:
        return rendered  # type: ignore[no-any-return]
    problems.append(f"{name} {shown(given)} is no number of milliseconds")
    return None


def belonging(name: str, given: object, problems: list[str]) -> str | None:
    """Return the id of a user or a session: a text, or a whole number; None for none."""
    if given is None or (issubclass(type(given), str | int) and not issubclass(type(given), bool)):
        return identifier(given) or None
    problems.append(f"{name} {shown(given)} is neither text nor number")
    return identifier(given) or None


def tags(given: object, problems: list[str]) -> dict[str, object] | None:
    """Return tags as texts, numbers and truth values by name; what is none is shown, what is long is cut."""
    if given is None:
        return None
    if not is_mapping(given):
        problems.append(f"tags is no mapping but {type(given).__name__}")
        return None
    rendered = render(given)
    if not isinstance(rendered, dict):
        problems.append(f"tags cannot be read: {rendered}")
        return None
    kept: dict[str, object] = {}
    wrong: list[str] = []
    for name, value in rendered.items():
        if type(value) in (list, dict):
            wrong.append(f"tag {shown(name)} is {shown(value)}, neither text nor number")
            value = shown(value)
        if len(name) > MAX_TAG or (type(value) is str and len(value) > MAX_TAG):
            wrong.append(f"tag {shown(name)} is longer than {MAX_TAG} characters")
            value = value[:MAX_TAG] if type(value) is str else value
        kept[name[:MAX_TAG]] = value
        if len(kept) > MAX_TAGS:  # enough to say so
            break
    joined = joined_tags({}, kept, problems)
    problems += wrong
    return joined


def joined_tags(
    outer: Mapping[str, object], inner: Mapping[str, object], problems: list[str]
) -> dict[str, object]:
    """Return the tags of a context in another; where there is no room for all, its own come first."""
    kept: dict[str, object] = {}
    room = MAX_TAGS_BYTES
    for name, value in {**inner, **{name: outer[name] for name in outer if name not in inner}}.items():
        room -= len(encode({name: value}))
        if room < 0 or len(kept) == MAX_TAGS:
            problems.append(f"tags are too many: {MAX_TAGS} at most, in {MAX_TAGS_BYTES} bytes, are kept")
            break
        kept[name] = value
    return kept


def failure(error: object) -> dict[str, object] | None:
    """Describe what went wrong: an exception by type and message, anything else as it is; None if nothing."""
    if error is None:
        return None
    kind = type(error)
    if not issubclass(kind, BaseException):
        return {"message": error}
    from agentops_monitoring.redaction import redact_text

    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - a __str__ that raises
        message = str(render(error))
    return {"type": name, "message": redact_text(message)}

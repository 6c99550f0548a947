"""Read a model's answer: one JSON object, wherever in the text it stands, with fields of the right kind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

SEVERITIES = ("low", "medium", "high", "critical")
# A `{` in prose before the object is tried too; more of them than this is no answer.
_MAX_STARTS = 50


class AnswerError(ValueError):
    """The answer can't be used. The message is for the model: it says what to do better."""


def json_object(text: str) -> dict[str, Any]:
    """Return the first JSON object in `text`; prose and code fences around it do not matter.

    Raises
    ------
    AnswerError
        There is none.
    """
    decoder = json.JSONDecoder()
    start = -1
    for _ in range(_MAX_STARTS):
        start = text.find("{", start + 1)
        if start < 0:
            break
        try:
            found, _end = decoder.raw_decode(text, start)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    raise AnswerError("there is no complete JSON object in it")


def text_field(answer: Mapping[str, Any], name: str, *, limit: int = 4000) -> str:
    """Return a field that is a text with something in it, at most `limit` characters."""
    value = answer.get(name)
    if not isinstance(value, str) or not value.strip():
        raise AnswerError(f"`{name}` has to be a text")
    return value.strip()[:limit]


def choice_field(answer: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> str:
    """Return a field that is one of `choices`, in any case of letters."""
    value = answer.get(name)
    if not isinstance(value, str) or value.strip().lower() not in choices:
        raise AnswerError(f"`{name}` has to be one of {', '.join(choices)}")
    return value.strip().lower()


def confidence_field(answer: Mapping[str, Any]) -> float:
    """Return the stated confidence, from 0 to 1."""
    value = answer.get("confidence")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise AnswerError("`confidence` has to be a number from 0 to 1")
    return float(value)


def reasoning_field(answer: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the reasoning chain: one or more steps of thought, action and observation."""
    steps = answer.get("reasoning")
    if not isinstance(steps, list) or not steps:
        raise AnswerError("`reasoning` has to be a list of steps")
    names = ("thought", "action", "observation")
    if not all(isinstance(step, Mapping) and isinstance(step.get("thought"), str) for step in steps):
        raise AnswerError("each step of `reasoning` has to be an object with thought, action and observation")
    return [{name: str(step[name]) for name in names if name in step} for step in steps]

"""The corpus of Lambda's own log lines, and the shape of a line: what is left without its ids and figures."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "corpus" / "logs"
# Optional in AWS's schema (Telemetry API event schema reference), and of no meaning here.
OPTIONAL = frozenset({"instanceId", "instanceMaxMemory", "spans"})
_WORDS = frozenset({"type", "status", "phase", "initializationType", "version", "functionVersion"})
_LAMBDAS = re.compile(r"(INIT_START|START|END|REPORT|INIT_REPORT) |\{\"time\":")
_SHAPES = (
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "<id>"),
    (re.compile(r"arn:[^\s\"]+"), "<arn>"),
    (re.compile(r"(?<=Runtime Version: )\S+"), "<runtime>"),
    (re.compile(r"(?<=Error Type: )\S+"), "<type>"),
    (re.compile(r"\d+\.\d\d(?= ms)"), "0.00"),
    (re.compile(r"\d+(?= (ms|MB))(?<!\.\d\d)"), "0"),
)


@dataclass(frozen=True)
class Case:
    """Lines as AWS wrote them."""

    file: str
    name: str
    source: str
    title: str
    lines: Sequence[str]
    reports: Sequence[Mapping[str, Any]]
    ending: str = ""
    tabs: bool = True
    complete: bool = False

    @property
    def format(self) -> str:
        """The function's log format."""
        return "JSON" if self.file == "json" else "Text"


@cache
def cases() -> Sequence[Case]:
    """Return every case of the corpus."""
    return [
        Case(path.stem, **case)
        for path in sorted(FOLDER.glob("*.toml"))
        for case in tomllib.loads(path.read_text()).get("case", [])
    ]


def lambdas_own(lines: Sequence[str]) -> Iterator[str]:
    """Leave out what the function itself wrote."""
    return (line for line in lines if _LAMBDAS.match(line))


def shape(line: str, *, tabs: bool = True) -> str:
    """Return a line with its ids and figures replaced; field names, order, units and separators stay.

    Parameters
    ----------
    line
        A line of Lambda's own.
    tabs
        Whether tabs and ends of lines count.
    """
    if line.startswith("{"):
        return json.dumps(_abstract(json.loads(line)))
    for pattern, name in _SHAPES:
        line = pattern.sub(name, line)
    return line if tabs else " ".join(line.split())


def _abstract(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _abstract(one, name) for name, one in value.items() if name not in OPTIONAL}
    if isinstance(value, str):
        return value if key in _WORDS else "<text>"
    return type(value).__name__

"""A patch: edits to a function's files, each a replacement of one passage or a whole new text."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from .answers import AnswerError
from .source import is_test

MAX_EDITS = 40
MAX_FILE_CHARS = 200_000


@dataclass(frozen=True, slots=True)
class Edit:
    """One change to one file.

    Parameters
    ----------
    path
        Within the function's folder.
    replace
        The new text.
    search
        The passage that it replaces, which has to stand in the file exactly once; None replaces all of it.
    """

    path: str
    replace: str
    search: str | None = None


def read_edits(answer: Mapping[str, Any]) -> list[Edit]:
    """Return the edits of a model's answer.

    Raises
    ------
    AnswerError
        They have not the form that was asked for.
    """
    raw = answer.get("edits")
    if not isinstance(raw, list) or not 1 <= len(raw) <= MAX_EDITS:
        raise AnswerError(f"`edits` has to be a list of 1 to {MAX_EDITS} edits")
    edits = []
    for item in raw:
        if not isinstance(item, Mapping) or not isinstance(item.get("path"), str):
            raise AnswerError("each edit has to be an object with `path`")
        if isinstance(item.get("content"), str):
            edits.append(Edit(item["path"], item["content"]))
        elif isinstance(item.get("search"), str) and item["search"] and isinstance(item.get("replace"), str):
            edits.append(Edit(item["path"], item["replace"], item["search"]))
        else:
            raise AnswerError("each edit needs either `content`, or `search` and `replace`")
    return edits


def load_edits(stored: Sequence[Mapping[str, Any]]) -> list[Edit]:
    """Return edits that `dump_edits` wrote."""
    return [Edit(item["path"], item["replace"], item["search"]) for item in stored]


def dump_edits(edits: Sequence[Edit]) -> list[dict[str, Any]]:
    """Return the edits as JSON values."""
    return [asdict(edit) for edit in edits]


def apply(files: Mapping[str, str], edits: Sequence[Edit]) -> dict[str, str]:
    """Return all files with the edits applied, in their order.

    Raises
    ------
    AnswerError
        An edit names a test or a path outside of the folder, its passage is not there exactly once, a Python
        file does not parse any more, or nothing changes.
    """
    patched = dict(files)
    for edit in edits:
        _check_path(edit.path)
        if edit.search is None:
            patched[edit.path] = edit.replace
            continue
        if edit.path not in patched:
            raise AnswerError(f"there is no file {edit.path!r}")
        count = patched[edit.path].count(edit.search)
        if count != 1:
            raise AnswerError(f"the passage {edit.search!r} stands {count} times in {edit.path}, not once")
        patched[edit.path] = patched[edit.path].replace(edit.search, edit.replace)
    changed = [path for path, text in patched.items() if files.get(path) != text]
    if not changed:
        raise AnswerError("the edits change nothing")
    for path in changed:
        _check_text(path, patched[path])
    return patched


def diff(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Return the change as a unified diff, for people."""
    lines: list[str] = []
    for path in sorted({*before, *after}):
        old, new = before.get(path, ""), after.get(path, "")
        if old != new:
            lines += difflib.unified_diff(
                old.splitlines(), new.splitlines(), f"a/{path}", f"b/{path}", lineterm=""
            )
    return "\n".join(lines)


def _check_path(path: str) -> None:
    parts = PurePosixPath(path).parts
    if not parts or PurePosixPath(path).is_absolute() or ".." in parts or "\\" in path or "\0" in path:
        raise AnswerError(f"{path!r} is not a path within the function's folder")
    if is_test(path):
        raise AnswerError(f"{path!r} is a test; tests stay as they are")


def _check_text(path: str, text: str) -> None:
    if len(text) > MAX_FILE_CHARS:
        raise AnswerError(f"{path} gets longer than {MAX_FILE_CHARS} characters")
    if path.endswith(".py"):
        try:
            ast.parse(text)
        except (SyntaxError, ValueError) as error:
            raise AnswerError(f"{path} is no Python any more: {error}") from None

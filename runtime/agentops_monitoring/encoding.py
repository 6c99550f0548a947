"""Any Python value as JSON: what JSON does not know is rendered, and nothing is ever raised.

The text is pure ASCII. So its length is its size in bytes, whatever encoding stdout has, and no character
in it can end a line.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import ItemsView, KeysView, Mapping, ValuesView
from enum import Enum

from agentops_monitoring import redaction
from agentops_monitoring.redaction import CLEAN, REDACTED, SECRET, verdict

# The C function alone: the package json loads a parser and regular expressions with it.
try:
    from _json import encode_basestring_ascii as _quote
except ImportError:  # another Python than CPython
    from json.encoder import encode_basestring_ascii as _quote

# Not from typing, whose import alone takes a third of what all of ours may.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_DEPTH = 100
"""Levels of nesting that are rendered: readers in other languages stop not far above."""

MAX_VALUES = 1_000_000
"""Values within one value: objects that share others again and again can be without end without a cycle."""

CHARACTERS_A_VALUE = 100
"""Characters of texts that count as one value more: 100 million in all, ten times the longest that a model
takes. One long text may stand in a thousand places, and what no memory holds would end the agent."""

_LONG = 10**12
_LONG_TEXT = 256
"""Characters of a text that the value itself is counted for."""
_FEW = 16
"""Fields of an event whose own texts nobody counts, to save the time."""
_NAMES_CACHED = 4096
_names: dict[str, str] = {}
"""Keys that are shown, as they stand in the text."""


class Encoded(str):
    """A value that has been encoded already."""

    __slots__ = ()


class _OddError(Exception):
    """A value that is to be rendered first."""


def encode(value: object, redact: bool = True) -> str:
    """Encode a value.

    Parameters
    ----------
    value
        Anything. Most values are plain and cost one walk; others are copied as rendered.
    redact
        Hide values behind telling keys, and what the chosen filters find in texts; see `redaction`.
    """
    if type(value) is Encoded:
        return value
    try:
        if not redaction.filters or not redact:
            text = _plain(value, 0, _shown_name if redact else _any_name)
            # A lone surrogate is legal in a Python string and in JSON's grammar, but in no UTF-8 behind it.
            if "\\ud" not in text:
                return text
    except Exception:  # noqa: BLE001, S110 - a value that changes underway, an endless number: rendered below
        pass
    try:
        return _dumped(render(value, redact=redact))
    except Exception as error:  # noqa: BLE001 - even the renderer's stack can be exhausted
        return encode_text(f"<{type(value).__name__} that cannot be rendered: {type(error).__name__}>")


def encode_text(text: str) -> str:
    """Encode a string, quotes included."""
    return _quote(_text(text))


def _plain(
    value: object,
    depth: int,
    name_of: Callable[[object], str],
    left: list[int] | None = None,
    names: Mapping[str, str] = _names,
) -> str:
    """Encode a value of JSON's own types; raises for anything unusual."""
    kind = type(value)
    if kind is dict:
        if left is not None:
            left[0] -= len(value)  # type: ignore[arg-type]
            if depth > MAX_DEPTH or left[0] < 0:
                raise _OddError
        elif len(value) > _FEW:  # type: ignore[arg-type]
            left = [MAX_VALUES]
        pieces = []
        # A copy: another thread may take a key out and put it back, and then it comes twice.
        for key, item in value.copy().items():  # type: ignore[attr-defined]
            try:
                name = names[key]
            except KeyError:
                name = name_of(key)
            kind = type(item)
            # The most frequent types here, which saves a call for each of them.
            if kind is str:
                if left is not None and len(item) > _LONG_TEXT:
                    _less(left, item)
                pieces.append(name + _quote(item))
            elif kind is int:
                pieces.append(f"{name}{item}")
            elif kind is float and item * 0 == 0:
                pieces.append(f"{name}{item!r}")
            else:
                left = left or [MAX_VALUES]
                pieces.append(name + _plain(item, depth + 1, name_of, left))
        return f"{{{','.join(pieces)}}}"
    if kind is str:
        if left is not None:
            _less(left, value)  # type: ignore[arg-type]
        return _quote(value)  # type: ignore[arg-type]
    if kind is list or kind is tuple:
        left = left or [MAX_VALUES]
        left[0] -= len(value)  # type: ignore[arg-type]
        if depth > MAX_DEPTH or left[0] < 0:
            raise _OddError
        return f"[{','.join([_plain(item, depth + 1, name_of, left) for item in value])}]"  # type: ignore[attr-defined]
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is int or (kind is float and value * 0 == 0):  # type: ignore[operator]
        return repr(value)
    raise _OddError


def _less(left: list[int], text: str) -> None:
    """Count a text."""
    left[0] -= len(text) // CHARACTERS_A_VALUE
    if left[0] < 0:
        raise _OddError


def _shown_name(key: object) -> str:
    if type(key) is not str or verdict(key):
        raise _OddError
    name = f"{_quote(key)}:"
    if len(_names) < _NAMES_CACHED and len(key) <= 128:
        _names[key] = name
    return name


def _any_name(key: object) -> str:
    if type(key) is not str:
        raise _OddError
    return f"{_quote(key)}:"


def render(value: object, *, redact: bool = True) -> Any:
    """Copy a value into plain dicts, lists, strings and finite numbers."""
    return _Renderer(redact).render(value, 0)


def _text(value: str) -> str:
    # The unbound methods, since a subclass of str may override anything.
    return str.encode(value, "utf-8", "backslashreplace").decode("utf-8")


def _number(value: float) -> float | str:
    if value * 0 == 0:
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _integer(value: int) -> int | str:
    try:
        int.__repr__(value)
    except ValueError:  # Python refuses to convert very long integers to decimal
        return int.__format__(value, "#x")
    return value


def _dumped(rendered: object) -> str:
    return _plain(rendered, 0, _any_name, [sys.maxsize])


class _Renderer:
    __slots__ = ("above", "left", "redact")

    def __init__(self, redact: bool) -> None:
        self.redact = redact
        self.above: set[int] = set()
        self.left = MAX_VALUES

    def render(self, value: object, depth: int) -> Any:
        self.left -= 1
        if self.left < 0:
            return _more()
        try:
            rendered = self._render(value, depth)
        except Exception as error:  # noqa: BLE001 - a __repr__, a property or a field that raises
            return _unprintable(value, error)
        if type(rendered) is str:
            room = self.left * CHARACTERS_A_VALUE
            self.left -= len(rendered) // CHARACTERS_A_VALUE
            if self.left < 0:
                rendered = rendered[:room] + _more()
        return _filtered(rendered) if self.redact and redaction.filters else rendered

    def _render(self, value: object, depth: int) -> Any:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if issubclass(kind, Enum):
            return self._render(value.value, depth)  # type: ignore[attr-defined]
        if issubclass(kind, str):
            return _text(value)  # type: ignore[arg-type]
        if issubclass(kind, int):
            return _integer(int.__int__(value))  # type: ignore[arg-type]
        if issubclass(kind, float):
            return _number(float.__float__(value))  # type: ignore[arg-type]
        if id(value) in self.above:
            return "<cycle>"
        if depth > MAX_DEPTH:
            return f"<deeper than {MAX_DEPTH} levels>"
        self.above.add(id(value))
        try:
            return self._compound(value, kind, depth + 1)
        finally:
            self.above.discard(id(value))

    def _compound(self, value: Any, kind: type, depth: int) -> Any:
        if issubclass(kind, Mapping):
            return self._mapping(list(value.items()), depth)
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return self._mapping(list(zip(kind._fields, value, strict=False)), depth)
        if issubclass(kind, list | tuple | deque | KeysView | ValuesView | ItemsView):
            return [self.render(item, depth) for item in list(value)]
        if issubclass(kind, set | frozenset):
            # Sorted, so that the same set reads the same in every process.
            return sorted((self.render(item, depth) for item in list(value)), key=_dumped)
        if issubclass(kind, bytes | bytearray | memoryview):
            return _bytes(bytes(value))
        return self._object(value, kind, depth)

    def _mapping(self, items: list[tuple[Any, Any]], depth: int) -> dict[str, Any]:
        rendered: dict[str, Any] = {}
        twins: dict[str, int] = {}
        for key, item in items:
            name = self._key(key, depth)
            judged = CLEAN
            if self.redact and item is not None:
                # By what stands there, not by what filters leave of it.
                judged = verdict(_Renderer(False)._key(key, depth) if redaction.filters else name)
            if judged == SECRET or (judged and not isinstance(item, int | float)):
                content: Any = REDACTED
            else:
                content = self.render(item, depth)
            # 1 and "1" are two keys in Python and one in JSON; neither value may get lost.
            unique = name
            while unique in rendered:
                twins[name] = twins.get(name, 1) + 1
                unique = f"{name} ({twins[name]})"
            rendered[unique] = content
        return rendered

    def _key(self, key: object, depth: int) -> str:
        rendered = self.render(key, depth)
        return rendered if type(rendered) is str else _dumped(rendered)

    def _object(self, value: Any, kind: type, depth: int) -> Any:
        if value is ...:
            return "..."
        decimal = sys.modules.get("decimal")
        if decimal is not None and issubclass(kind, decimal.Decimal):
            return str(value)
        if hasattr(kind, "__dataclass_fields__"):
            return self._mapping([(name, getattr(value, name)) for name in kind.__dataclass_fields__], depth)
        # datetime and its kin, timedelta, pydantic models, numpy's arrays and scalars, UUID, paths
        for method in ("isoformat", "total_seconds", "model_dump", "tolist", "__fspath__"):
            if callable(getattr(kind, method, None)):
                return self._render(getattr(value, method)(), depth)
        if kind.__name__ == "UUID":
            return str(value)
        if isinstance(value, BaseException):
            return _text(f"{kind.__name__}: {value}")
        return _text(repr(value))


def _more() -> str:
    return f"<more than {MAX_VALUES} values or {MAX_VALUES * CHARACTERS_A_VALUE} characters>"


def _filtered(rendered: Any) -> Any:
    if type(rendered) is str:
        return _text(redaction.redact_value(rendered))
    # A card's number may be a number.
    if type(rendered) is int and abs(rendered) >= _LONG:
        written = str(rendered)
        left = redaction.redact_value(written)
        return rendered if left == written else _text(left)
    return rendered


def _bytes(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        from binascii import b2a_base64

        return "base64:" + b2a_base64(value, newline=False).decode("ascii")


def _unprintable(value: object, error: Exception) -> str:
    return f"<{_text(type(value).__name__)} that cannot be rendered: {_text(type(error).__name__)}>"

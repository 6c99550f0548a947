"""What must not leave the process: values behind telling keys; by choice, what looks private in any text.

`AGENTOPS_REDACT` names detectors for texts: `secrets`, `email`, `card`; `use` takes a function of your own.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

REDACTED = "[REDACTED]"

CLEAN, SECRET, SECRET_TEXT = 0, 1, 2
"""Verdicts on a key: show its value, hide it, or hide it unless it is a number (a `token` may be a count)."""

_PARTS = (
    "password", "passwd", "passphrase", "secret", "credential", "authorization", "apikey", "accesskey",
    "privatekey", "signingkey", "encryptionkey", "connectionstring", "sessioncookie", "setcookie",
)  # fmt: skip
_WHOLE = frozenset({"auth", "bearer", "cookie", "cookies", "jwt", "pwd", "ssn"})
_COUNTED = (
    "count", "usage", "type", "limit", "budget", "cost", "price", "rate", "total", "iz", "detail", "ids",
    "prob", "logprob", "length", "window", "per",
)  # fmt: skip
_BEARERS = tuple(
    f"{kind}tokens"
    for kind in ("access", "refresh", "auth", "bearer", "session", "api", "device", "csrf", "xsrf")
)

_CACHE_SIZE = 4096
_verdicts: dict[str, int] = {}


def verdict(key: str) -> int:
    """Judge a key: `tokens`, `input_tokens` and `token_count` are figures, `access_token` is not."""
    found = _verdicts.get(key)
    if found is None:
        found = _judge(key)
        if len(_verdicts) < _CACHE_SIZE and len(key) <= 128:
            _verdicts[key] = found
    return found


def _judge(key: str) -> int:
    letters = "".join(each for each in key.lower() if each.isalnum())
    if letters in _WHOLE or letters.endswith("auth") or any(part in letters for part in _PARTS):
        return SECRET
    if letters.endswith(("token", *_BEARERS)):
        return SECRET_TEXT
    _, found, rest = letters.partition("token")
    if found and not rest.startswith(("s", *_COUNTED)):
        return SECRET_TEXT
    return CLEAN


filters: tuple[Callable[[str], str], ...] = ()
"""What every text passes, in this order; none by default. `use` and `configure` change it."""

_own: Callable[[str], str] | None = None
_named: str | None = None
_detectors: tuple[Callable[[str], str], ...] = ()
_failures_said: set[type] = set()
_inside: set[int] = set()


def use(function: Callable[[str], str] | None) -> Callable[[str], str] | None:
    """Pass every text of every event through a function of yours, keys included; None undoes it.

    It sees what the detectors of `AGENTOPS_REDACT` left, and is called where the event is recorded. A text
    for which it raises, or returns no text, is hidden whole. Returns the function that was there.
    """
    global _own
    before, _own = _own, function
    _renew()
    return before


def configure() -> None:
    """Apply `AGENTOPS_REDACT`; a name that no detector has is said on stderr, the others apply."""
    global _named, _detectors
    named = os.environ.get("AGENTOPS_REDACT", "")
    if named == _named:
        return
    _named = named
    if not named:
        _detectors = ()
    else:
        from agentops_monitoring import detectors

        wanted = [name.strip().lower() for name in named.split(",") if name.strip()]
        _detectors = tuple(detectors.BY_NAME[name] for name in wanted if name in detectors.BY_NAME)
        for name in wanted:
            if name not in detectors.BY_NAME:
                _say(f"AGENTOPS_REDACT: {name!r} is none of {', '.join(detectors.BY_NAME)}")
    _renew()


def _renew() -> None:
    global filters
    filters = _detectors if _own is None else (*_detectors, _own)


def redact_value(text: str) -> str:
    """Pass one text through the filters that are chosen."""
    if not filters:
        return text
    from threading import get_ident

    # A function of the user's that records events itself would never end.
    thread = get_ident()
    if thread in _inside:
        return REDACTED
    _inside.add(thread)
    try:
        for each in filters:
            text = each(text)
            if type(text) is not str:
                raise TypeError(f"no text but {type(text).__name__}")
    except Exception as error:  # noqa: BLE001 - better nothing than a secret
        if type(error) not in _failures_said:
            _failures_said.add(type(error))
            _say(f"a text was hidden whole, its redaction failed: {type(error).__name__}")
        return REDACTED
    finally:
        _inside.discard(thread)
    return text


def _say(text: str) -> None:
    from agentops_monitoring.transport import say

    say(text)


def redact_text(text: str) -> str:
    """Hide what looks like a secret in a text, such as a traceback, whatever the settings."""
    from agentops_monitoring.detectors import secrets

    return secrets(text)

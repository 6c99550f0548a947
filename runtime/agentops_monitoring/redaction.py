"""What must not leave the process: values behind telling keys, and secrets in texts such as tracebacks."""

from __future__ import annotations

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


def redact_text(text: str) -> str:
    """Hide what looks like a secret in a text.

    That is: assignments to telling names, AWS keys, bearer tokens, passwords in URLs. Meant for the rare
    path of a failure, it costs far more than looking at keys.
    """
    import re

    # Each pattern starts with a literal and never looks back, so the time is linear in the text's length.
    # Plurals ("max_tokens=5") do not match: the sign must follow the name.
    name = (
        r"(?:password|passwd|passphrase|secret|credentials?|authorization|token"
        r"|api[_-]?key|access[_-]?key|private[_-]?key)"
    )
    sign = r"\s{0,9}(?:=>|=|:)\s{0,9}"
    for pattern, replacement in (
        (rf"(?i)(authorization{sign})(?![\s\"'])[^\n]+", r"\1" + REDACTED),
        (r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{6,}", r"\1 " + REDACTED),
        (rf"(?i)({name}[\"']?{sign})(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s,;)}}\]]+)", r"\1" + REDACTED),
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", REDACTED),
        (r"\b(?:sk|rk|pk)-[A-Za-z0-9_-]{16,}", REDACTED),
        (r"(://[^/\s:@]+:)[^/\s@]+@", r"\1" + REDACTED + "@"),
        (r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", REDACTED),
    ):
        text = re.sub(pattern, replacement, text)
    return text

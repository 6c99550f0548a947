"""Finds what is private in a text by its looks: secrets, e-mail addresses, card numbers.

Each takes time linear in the text. They load `re`, which an agent without them never does.
"""

from __future__ import annotations

import re

from agentops_monitoring.redaction import REDACTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Each pattern starts with a literal or at the begin of a run, so that no character is looked at from many
# starts. Before it stand literals, in lower case, one of which a text must hold: most texts hold none.
# Plurals ("max_tokens=5") do not match: the sign must follow the name.
_NAME = (
    r"(?:password|passwd|passphrase|secret|credentials?|authorization|token"
    r"|api[_-]?key|access[_-]?key|private[_-]?key)"
)
_SIGN = r"\s{0,9}(?:=>|=|:)\s{0,9}"
_SECRETS = tuple(
    (literals.split(), re.compile(pattern), replacement)
    for literals, pattern, replacement in (
        ("authorization", rf"(?i)(authorization{_SIGN})(?![\s\"'])[^\n]+", r"\1" + REDACTED),
        ("bearer basic", r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{6,}", r"\1 " + REDACTED),
        (
            "passw passphrase secret credential authorization token key",
            rf"(?i)({_NAME}[\"']?{_SIGN})(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s,;)}}\]]+)",
            r"\1" + REDACTED,
        ),
        ("akia asia", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", REDACTED),
        # OpenAI, Anthropic, Stripe
        ("sk- sk_ rk- rk_ pk- pk_", r"\b(?:sk|rk|pk)[-_][A-Za-z0-9_-]{16,}", REDACTED),
        # GitHub, GitLab, Slack, Google, Hugging Face, npm
        (
            "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ glpat- xox aiza hf_ npm_",
            r"\b(?:gh[opsur]_|github_pat_|glpat-|xox[abeoprs]-|AIza|hf_|npm_)[A-Za-z0-9_-]{10,}",
            REDACTED,
        ),
        # A JSON web token
        ("eyj", r"(?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]*)?", REDACTED),
        ("://", r"(://[^/\s:@]+:)[^/\s@]+@", r"\1" + REDACTED + "@"),
        (
            "-----begin",
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
            REDACTED,
        ),
    )
)

# The local part is taken whole or not at all: possessive, and from the begin of its run only.
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]++(?:@|%40)[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,}")

# Written without gaps, in groups of four, or as American Express and Diners do; all three may hold at one
# place, and only the check digit tells which is the number ("4111 1111 1111 1111 123" ends with a code).
_GROUPS = r"\d{{3}}(?P<{0}>[ -])\d{{4}}(?P={0})\d{{4}}(?P={0})\d{{4}}"
_CARD = re.compile(
    r"[2-6](?<!\d\d)(?=\d{3})"
    r"(?=(\d{12,18}(?!\d))?)"
    rf"(?=({_GROUPS.format('long')}(?P=long)\d{{3}}(?!\d))?)"
    rf"(?=({_GROUPS.format('short')}(?!\d))?)"
    r"(?=(\d{3}[ -]\d{6}[ -]\d{4,5}(?!\d))?)"
)
_CARD_GROUPS = (1, 2, 4, 6)
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def secrets(text: str) -> str:
    """Hide assignments to telling names, keys and tokens of known makes, and passwords in URLs."""
    lower = text.lower()
    for literals, pattern, replacement in _SECRETS:
        if any(literal in lower for literal in literals):
            text = pattern.sub(replacement, text)
    return text


def emails(text: str) -> str:
    """Hide e-mail addresses."""
    return _EMAIL.sub(REDACTED, text) if "@" in text or "%40" in text else text


def cards(text: str) -> str:
    """Hide numbers of payment cards: of a maker's form, and with the right check digit."""
    if len(text) < 13:
        return text
    pieces: list[str] = []
    end = 0
    for found in _CARD.finditer(text):
        if found.start() < end:
            continue
        for last in map(found.end, _CARD_GROUPS):
            if last > 0 and _is_card(text[found.start() : last].replace(" ", "").replace("-", "")):
                pieces += text[end : found.start()], REDACTED
                end = last
                break
    return "".join(pieces) + text[end:] if pieces else text


def _is_card(number: str) -> bool:
    # Makers by their first digits and lengths: https://en.wikipedia.org/wiki/Payment_card_number
    first = int(number[:4])
    if not number.isascii():
        return False
    if first // 1000 == 4:
        lengths: tuple[int, ...] = (13, 16, 19)
    elif 5100 <= first < 5600 or 2221 <= first < 2721:
        lengths = (16,)
    elif first // 100 in (34, 37):
        lengths = (15,)
    elif first // 100 in (36, 38, 39) or 3000 <= first < 3060:
        lengths = (14, 16)
    else:  # Discover, JCB, UnionPay, Maestro
        lengths = (16, 17, 18, 19) if first // 100 == 35 or first // 1000 == 6 else ()
    if len(number) not in lengths:
        return False
    # The check digit of Luhn: https://www.iso.org/standard/70484.html (ISO/IEC 7812-1, annex B)
    digits = [int(each) for each in reversed(number)]
    return (sum(digits[::2]) + sum(_DOUBLED[each] for each in digits[1::2])) % 10 == 0


BY_NAME: dict[str, Callable[[str], str]] = {"secrets": secrets, "email": emails, "card": cards}

"""Prices of your own: negotiated rates, models of your own, names that stand for a model.

`AGENTOPS_PRICES` names a JSON file, or `ssm:` and a parameter that holds the same. One object; each name in
it is a model's, in any spelling that the book resolves, or an ARN:

    {
      "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/a1b2": "claude-sonnet-4-5",
      "my-finetune": {"input": 3, "output": 12, "tiers": {"batch": {"input": 1.5, "output": 6}}},
      "claude-opus-5-5": {"since": "2026-12-01", "input": "3.6", "output": "18", "cache_read": "0.18"}
    }

A text is an alias. Prices are USD per million tokens, numbers or texts: `input`, `output`, `cache_read`,
`cache_write`, `cache_write_1h`, and `input_`, `output_`, `cache_read_` with `audio` or `image`; a cached
token without a price costs as input, and what a tier does not name costs as in the standard one.
`web_searches` and `file_searches` are USD per thousand. `above` holds what prompts of more tokens cost:
{"200000": {"input": 6, "output": 22.5}}. Prices replace the book's for that model as a whole, tiers included,
from `since` on; a list holds several of them, in the order of their days.

The ledger books the truth, so the plane has to know these prices: `MonitoringPlane(price_overrides=)`.
An agent reads a file only, for what `track_llm_usage` returns and its lines say: no price is worth a network
call on its path. A process that writes to the ledger directly books by its own file or parameter.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, NoReturn

from agentops_monitoring.pricing.rates import Model
from agentops_monitoring.transport import say

if TYPE_CHECKING:
    from agentops_monitoring.pricing.book import Book

VARIABLE = "AGENTOPS_PRICES"
REFRESH_S = 300
"""How long the plane's functions take a parameter's value for its present one."""

_KINDS = {
    "input": "i",
    "output": "o",
    "cache_read": "r",
    "cache_write": "w",
    "cache_write_1h": "h",
    "input_audio": "ia",
    "output_audio": "oa",
    "cache_read_audio": "ra",
    "input_image": "ii",
    "output_image": "oi",
    "cache_read_image": "ri",
    "web_searches": "ws",
    "file_searches": "fs",
}
_PER_THOUSAND = ("web_searches", "file_searches")
_MAX_USD = 1_000_000


class OverridesError(ValueError):
    """Prices that make no sense; the text names the field."""


class Overrides:
    """Prices that come before the book's.

    Parameters
    ----------
    given
        The object described above, decoded.
    book
        Whose prices they replace.

    Raises
    ------
    OverridesError
        A field is missing, unknown or wrong.
    """

    def __init__(self, given: object, book: Book) -> None:
        if not isinstance(given, Mapping):
            raise OverridesError("the prices are no object of names")
        self._aliases: dict[str, str] = {}
        self._models: dict[str, Model] = {}
        self._replaced: dict[tuple[str, str], Model] = {}
        for name, value in given.items():
            if not isinstance(name, str) or not name.strip():
                raise OverridesError(f"{name!r} is no name of a model")
            key = name.strip().lower()
            if key in self._aliases or key in self._models:
                raise OverridesError(f"{name}: stands there twice")
            if isinstance(value, str):
                self._aliases[key] = value.strip().lower()
            else:
                self._add(name, key, value, book)
        for key, target in self._aliases.items():
            if target in self._aliases:
                raise OverridesError(f"{key}: {target!r} is an alias itself, expected a model")
            if target not in self._models and book.find(target) is None:
                raise OverridesError(f"{key}: {target!r} is neither a model of the book nor one of yours")

    def _add(self, name: str, key: str, value: object, book: Book) -> None:
        known = book.find(key)
        since, prices, tiers = _periods(name, value)
        before = _before(known.raw, since, tiers) if known is not None and since is not None else ([], {})
        raw = {
            "id": known.id if known is not None else key,
            "prices": before[0] + prices,
            "tiers": {tier: before[1].get(tier, []) + tiers.get(tier, []) for tier in {*before[1], *tiers}},
        }
        model = Model(known.provider if known is not None else "own", raw)
        self._models[key] = model
        if known is not None:
            if (known.provider, known.id) in self._replaced:
                raise OverridesError(f"{name}: {known.id} stands there twice, in another spelling")
            self._replaced[known.provider, known.id] = model

    def renamed(self, name: str) -> str:
        """Return what a name stands for; the name itself where that is nothing else."""
        return self._aliases.get(name.strip().lower(), name)

    def named(self, name: str) -> Model | None:
        """Return the model that goes by exactly this name here."""
        return self._models.get(name.strip().lower())

    def instead_of(self, found: Model) -> Model:
        """Return what replaces a model of the book; the model itself where nothing does."""
        return self._replaced.get((found.provider, found.id), found)


def _before(
    raw: Mapping[str, Any], since: str, own_tiers: Mapping[str, Any]
) -> tuple[list[Any], dict[str, list[Any]]]:
    """Return the book's prices up to a day; a tier that is not replaced has none from then on."""

    def until(periods: list[Any]) -> list[Any]:
        return [period for period in periods if period[0] is None or period[0] < since]

    tiers = {tier: until(periods) for tier, periods in raw.get("tiers", {}).items()}
    for tier, periods in tiers.items():
        if tier not in own_tiers:
            periods.append([since, None])
    return until(raw["prices"]), tiers


def _periods(name: str, value: object) -> tuple[str | None, list[Any], dict[str, list[Any]]]:
    several = isinstance(value, list)
    periods = value if isinstance(value, list) else [value]
    if not periods:
        raise OverridesError(f"{name}: expected prices, an alias or a list of prices")
    prices: list[Any] = []
    tiers: dict[str, list[Any]] = {}
    last: str | None = None
    for index, period in enumerate(periods):
        where = f"{name}[{index}]" if several else name
        if not isinstance(period, Mapping):
            raise OverridesError(f"{where}: expected an object of prices or the name of a model")
        fields = dict(period)
        since = _day(f"{where}.since", fields.pop("since", None))
        if index and (since is None or (last is not None and since <= last)):
            raise OverridesError(f"{where}.since: expected a day after that of the prices before")
        last = since
        of_tiers = fields.pop("tiers", {})
        if not isinstance(of_tiers, Mapping):
            raise OverridesError(f"{where}.tiers: expected an object of tiers")
        prices.append([since, _rates(where, fields)])
        for tier in {*tiers, *of_tiers}:
            given = of_tiers.get(tier)
            own = None if given is None else _rates(f"{where}.tiers.{tier}", given)
            tiers.setdefault(tier, []).append([since, own])
    return prices[0][0], prices, tiers


def _rates(where: str, given: object) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise OverridesError(f"{where}: expected an object of prices")
    fields = dict(given)
    above = fields.pop("above", {})
    if not isinstance(above, Mapping):
        raise OverridesError(f"{where}.above: expected an object of numbers of tokens")
    rates: dict[str, Any] = {kind: _usd(where, kind, value) for kind, value in fields.items()}
    for kind in ("input", "output"):
        # An embedding has no output; that is written as 0.
        if kind not in rates:
            raise OverridesError(f"{where}.{kind}: is missing")
    for tokens in sorted(above, key=lambda each: (len(str(each)), str(each))):
        if not (isinstance(tokens, str) and tokens.isascii() and tokens.isdigit()):
            raise OverridesError(f"{where}.above: {tokens!r} is no number of tokens")
        step = above[tokens]
        if not isinstance(step, Mapping):
            raise OverridesError(f"{where}.above.{tokens}: expected an object of prices")
        for kind, value in step.items():
            price = _usd(f"{where}.above.{tokens}", kind, value)
            if kind not in rates:
                raise OverridesError(f"{where}.above.{tokens}.{kind}: has no price below that")
            base = rates[kind]
            rates[kind] = base if isinstance(base, list) else [base, []]
            rates[kind][1].append([int(tokens), price])
    return {_KINDS[kind]: rate for kind, rate in rates.items()}


def _usd(where: str, kind: str, value: object) -> str:
    if kind not in _KINDS:
        raise OverridesError(f"{where}.{kind}: is no kind of price, expected one of {', '.join(_KINDS)}")
    try:
        usd = Decimal(str(value)) if isinstance(value, str | int | float | Decimal) else Decimal("NaN")
    except InvalidOperation:
        usd = Decimal("NaN")
    if isinstance(value, bool) or not usd.is_finite() or not 0 <= usd <= _MAX_USD:
        raise OverridesError(f"{where}.{kind}: {value!r} is no price in USD, expected 0 to {_MAX_USD:,}")
    return f"{usd * 1000 if kind in _PER_THOUSAND else usd:f}"


def _day(where: str, given: object) -> str | None:
    if given is None:
        return None
    try:
        return date.fromisoformat(given).isoformat()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise OverridesError(f"{where}: {given!r} is no day, expected YYYY-MM-DD") from None


def parse(text: str, book: Book) -> Overrides:
    """Read overrides out of their JSON.

    Raises
    ------
    OverridesError
        It is no JSON, or a field is wrong.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(name for name, _ in pairs if [each for each, _ in pairs].count(name) > 1)
            raise OverridesError(f"{twice}: stands there twice")
        return found

    def refuse(constant: str) -> NoReturn:
        raise OverridesError(f"{constant} is no price")

    try:
        # Prices as they are written: 0.1 has no float.
        given = json.loads(text, parse_float=Decimal, parse_constant=refuse, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise OverridesError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    return Overrides(given, book)


_lock = threading.Lock()
_read_at: float | None = None


def from_file(book: Book) -> Overrides | None:
    """Return the overrides of the file that the environment names; what is wrong with it is said."""
    path = os.environ.get(VARIABLE, "").strip()
    if not path or path.startswith("ssm:"):
        return None
    try:
        with open(path, encoding="utf-8") as file:
            return parse(file.read(), book)
    except (OSError, ValueError, RecursionError) as error:
        say(f"{VARIABLE} {path}: {error}; the price book alone is used")
        return None


def refresh() -> None:
    """Read the parameter that the environment names, where the value at hand is older than `REFRESH_S`.

    For whoever writes to the ledger: it calls AWS. A value that makes no sense is said and changes nothing.

    Raises
    ------
    botocore.exceptions.ClientError
        There is no value at hand, and none can be read: what is priced now would be priced wrongly.
    """
    global _read_at
    name = os.environ.get(VARIABLE, "").strip()
    if not name.startswith("ssm:"):
        return
    with _lock:
        now = time.monotonic()
        if _read_at is not None and now - _read_at < REFRESH_S:
            return
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.session import Session

        from agentops_monitoring.pricing import book

        try:
            # Not the default session: where an agent writes directly, this is another thread than its own.
            # And soon done: a parameter store that does not answer is no reason to lose ingest's time.
            config = Config(connect_timeout=2, read_timeout=3, retries={"total_max_attempts": 2})
            client: Any = Session().create_client("ssm", config=config)
            answer = client.get_parameter(Name=name.removeprefix("ssm:"), WithDecryption=True)
            book.use(parse(answer["Parameter"]["Value"], book.price_book()))
        except OverridesError as error:
            say(f"{VARIABLE} {name}: {error}; nothing changes")
        except (BotoCoreError, ClientError) as error:
            if _read_at is None:
                raise
            say(f"{VARIABLE} {name}: {error}; nothing changes")
        _read_at = now

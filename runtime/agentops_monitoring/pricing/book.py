"""The price book: which model a name means, and what its tokens cost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from agentops_monitoring.forks import at_fork
from agentops_monitoring.pricing.rates import Model, Rates, matches
from agentops_monitoring.pricing.usage import FEES, TokenUsage

if TYPE_CHECKING:
    from agentops_monitoring.pricing.overrides import Overrides

_EXACT = Context(prec=38, traps=[Inexact, InvalidOperation])
_ZERO = Decimal(0)
_EPOCH = date(1970, 1, 1)
_DAY_S = 86_400

_HOSTS = {
    "bedrock": "aws", "bedrock_converse": "aws", "aws": "aws", "anthropic": "anthropic", "openai": "openai",
    "azure": "openai", "google": "google", "gemini": "google", "vertex_ai": "google", "models": "google",
}  # fmt: skip
_GEOGRAPHIES = frozenset(
    ("global", "regional", "us", "us-gov", "eu", "apac", "au", "jp", "in", "ca", "sa", "mx", "il", "me", "af")
)
# A profile or model of the account's own: its ARN does not say which model stands behind it.
_OPAQUE_ARNS = ("application-inference-profile", "provisioned-model", "custom-model", "imported-model")


class Book:
    """All models, with the origin and the date of their prices."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.source: str = raw["source"]
        self.version: str = raw["version"]
        self.generated: str = raw["generated"]
        self._hints: list[tuple[str, Any]] = []
        self._models: dict[str, list[Model]] = {}
        self._by_id: dict[str, Model] = {}
        for provider in raw["providers"]:
            models = [Model(provider["id"], each) for each in provider["models"]]
            self._models[provider["id"]] = models
            if provider.get("match") is not None:
                self._hints.append((provider["id"], provider["match"]))
            for model in models:
                self._by_id.setdefault(model.id, model)
        ids = (each.id.split(".") for each in self._models.get("aws", ()))
        plain = (parts[1:] if parts[0] in _GEOGRAPHIES else parts for parts in ids)
        self._vendors = frozenset(parts[0] for parts in plain if len(parts) > 1)

    def models(self) -> Iterable[Model]:
        """All models, each once."""
        return (model for models in self._models.values() for model in models)

    def find(self, name: str, region: str | None = None) -> Model | None:
        """Return the model that a name means; None when the book does not know it."""
        name = name.strip().lower()
        host: str | None = None
        if name.startswith("arn:"):
            # arn:aws:bedrock:<region>:<account>:<kind>/<name>, and the name may hold colons.
            kind, _, name = name.split(":", 5)[-1].partition("/")
            if kind in _OPAQUE_ARNS or not name:
                return None
            host = "aws"
        elif "/" in name:
            host = _HOSTS.get(name.partition("/")[0])
            name = name.rpartition("/")[2]
        if host is None and "." in name and name.partition(".")[0] in self._vendors | _GEOGRAPHIES:
            host = "aws"
        for candidate in _spellings(name):
            found = self._search(candidate, host, region)
            if found is not None:
                return found
        known = self._by_id.get(name)
        return known if known is not None and host in (None, known.provider) else None

    def _search(self, name: str, host: str | None, region: str | None) -> Model | None:
        if host == "aws":
            head, _, rest = name.partition(".")
            # Geographies come up faster than the book: what it does not list costs as in-Region does.
            regional = rest if head in _GEOGRAPHIES and head != "global" else ""
            return self._first("aws", name) or (self._first("aws", regional) if regional else None)
        order = [host] if host else [provider for provider, rule in self._hints if matches(rule, name)]
        if host is None:
            order += [each for each in self._models if each not in order]
            if region is not None and region.count("-") >= 2:
                order.insert(0, "aws")
        return next((model for each in order if (model := self._first(each, name))), None)

    def _first(self, provider: str, name: str) -> Model | None:
        return next((each for each in self._models.get(provider, ()) if each.matches(name)), None)


def _spellings(name: str) -> Iterable[str]:
    """The name, then how else it is written: a date glued together, `@date`, `-latest`."""
    yield name
    if "@" in name:
        name = name.replace("@", "-")
        yield name
    head, _, tail = name.rpartition("-")
    if len(tail) == 8 and tail.isdigit():
        yield f"{head}-{tail[:4]}-{tail[4:6]}-{tail[6:]}"
    if tail == "latest":
        yield head


_book: Book | None = None
_loading = Lock()


def _renew() -> None:
    # A fork may have copied the lock while another thread held it.
    global _loading
    _loading = Lock()


at_fork(after_in_child=_renew)


def price_book() -> Book:
    """The committed book, read once."""
    global _book
    if _book is None:
        with _loading:
            if _book is None:
                with open(os.path.join(os.path.dirname(__file__), "book.json"), "rb") as file:
                    text = file.read()
                if not text.startswith(b"{"):  # agents' bundles hold it compressed
                    import zlib

                    text = zlib.decompress(text)
                _book = Book(json.loads(text))
    return _book


_overrides: Overrides | None = None
_overrides_read = False


def use(overrides: Overrides | None) -> None:
    """Put prices before the book's from now on; None for the book alone."""
    global _overrides, _overrides_read
    with _loading:
        _overrides, _overrides_read = overrides, True
        _find.cache_clear()
        resolve.cache_clear()
        _known.clear()


def _own() -> Overrides | None:
    if not _overrides_read:
        from agentops_monitoring.pricing.overrides import VARIABLE, from_file

        use(from_file(price_book()) if os.environ.get(VARIABLE) else None)
    return _overrides


@lru_cache(maxsize=1024)
def _find(name: str, region: str | None) -> Model | None:
    own = _own()
    if own is None:
        return price_book().find(name, region)
    name = own.renamed(name)
    exact = own.named(name)
    if exact is not None:
        return exact
    found = price_book().find(name, region)
    return None if found is None else own.instead_of(found)


@lru_cache(maxsize=1024)
def resolve(model: str, *, region: str | None = None) -> str | None:
    """Return the price book's id of a model; None when it knows none. `resolve(resolve(m)) == resolve(m)`.

    Parameters
    ----------
    model
        A short name, a dated name, `…-latest`, a Bedrock model or inference profile id, or its ARN.
    region
        See `llm_cost`.
    """
    found = _find(model, region)
    if found is None:
        return None
    # Providers share some ids; one that means another provider's model by itself gets its provider's name.
    by_itself = _find(found.id, None)
    if by_itself is not None and (by_itself.provider, by_itself.id) == (found.provider, found.id):
        return found.id
    return f"{found.provider}/{found.id}"


def llm_cost(
    model: str, usage: TokenUsage, *, at: datetime | str | None = None, region: str | None = None
) -> Decimal | None:
    """Return the USD of one model call, exact; None when the model, or one of its tokens, has no known price.

    Parameters
    ----------
    model
        A short name, a dated name, `…-latest`, a Bedrock model or inference profile id, or its ARN.
    usage
        The call's tokens.
    at
        When the call was made (prices change); a naive time is UTC, a text is RFC 3339. Now when left out.
    region
        The AWS region of a call to Bedrock: a name that does not say where it runs is then priced as
        Bedrock's in-Region endpoint. Leave it out for other providers.

    Raises
    ------
    ValueError
        A count of tokens is negative or no whole number.
    """
    counts: tuple[int, ...] = usage[:5]
    for count in counts:
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"{count!r} is no count of tokens")
    return cost_of(model, counts, usage.tier, usage.extra, region, None if at is None else _day(at))


def cost_of(
    model: str,
    counts: tuple[int, ...],
    tier: str,
    extra: tuple[tuple[str, int], ...],
    region: str | None,
    day: int | None = None,
) -> Decimal | None:
    """Return `llm_cost` of the fields of a usage that is known to be right; `day` counts from 1970."""
    if day is None:
        day = int(time.time()) // _DAY_S
    try:
        rates = _known[model, region, tier, day]
    except KeyError:
        rates = _rates_of(model, region, tier, day)
    if rates is None or rates.counts[0] is None:
        return None
    if extra or rates.units is None:
        return _cost_in_detail(rates, TokenUsage._make((*counts, tier, extra)))
    fresh, out, read, written, hour = counts
    per_fresh, per_out, per_read, per_written, per_hour = rates.units
    total = fresh * per_fresh + out * per_out + read * per_read + written * per_written + hour * per_hour
    return _EXACT.scaleb(Decimal(total), rates.exponent)


def _cost_in_detail(rates: Rates, usage: TokenUsage) -> Decimal | None:
    prompt = usage.prompt_tokens
    total = _ZERO
    counts: tuple[int, ...] = usage[:5]
    for count, rate in zip(counts, rates.counts, strict=True):
        if count:
            if rate is None:
                return None
            total = _EXACT.fma(rate.at(prompt), count, total)
    for kind, count in usage.extra:
        rate = rates.rate_of(kind)
        if rate is not None:
            total = _EXACT.fma(rate.at(prompt), count, total)
        elif kind not in FEES:
            return None
    return _EXACT.scaleb(total, -6)


_known: dict[tuple[str, str | None, str, int], Rates | None] = {}


def _rates_of(model: str, region: str | None, tier: str, day: int) -> Rates | None:
    found = _find(model, region)
    rates = None if found is None else found.rates(tier, day)
    # Names, tiers and days that agents make up may be without end.
    if len(_known) > 1024:
        _known.clear()
    _known[model, region, tier, day] = rates
    return rates


def unpriced_fees(model: str, usage: TokenUsage, *, region: str | None = None) -> list[str]:
    """Return the kinds of fees of a call that `llm_cost` leaves out, since the book has no price for them."""
    fees = [kind for kind, _ in usage.extra if kind in FEES]
    rates = _rates_of(model, region, usage.tier, int(time.time()) // _DAY_S) if fees else None
    return [kind for kind in fees if rates is None or rates.rate_of(kind) is None]


def _day(at: datetime | str) -> int:
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    day = at.date() if at.tzinfo is None else at.astimezone(UTC).date()
    return (day - _EPOCH).days

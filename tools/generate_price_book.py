"""Write the price book from the installed `genai-prices`, and say what changed: `make prices`.

genai-prices counts cached tokens as input; the book holds prices only, so that difference stays out of it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from genai_prices import types
from genai_prices.data import providers

BOOK = Path(__file__).parent.parent / "runtime" / "agentops_monitoring" / "pricing" / "book.json"

# In this order a name that says nothing of its provider is looked up.
PROVIDERS = ("anthropic", "openai", "google", "aws")
KINDS = {
    "input_mtok": "i",
    "output_mtok": "o",
    "cache_read_mtok": "r",
    "cache_write_mtok": "w",
    "cache_write_1h_mtok": "h",
    "input_audio_mtok": "ia",
    "output_audio_mtok": "oa",
    "cache_audio_read_mtok": "ra",
    "input_image_mtok": "ii",
    "output_image_mtok": "oi",
    "cache_image_read_mtok": "ri",
    "web_searches_kcount": "ws",
    "storage_searches_kcount": "fs",
}
TIERS = {
    ("processing", "batch"): "batch",
    ("service_tier", "flex"): "flex",
    ("service_tier", "priority"): "priority",
    ("service_tier", "fast"): "fast",
    ("speed", "fast"): "fast",
}


def rule(clause: Any) -> Any:
    """Write a match clause: one text with its kind in front, a list for "any", {"all": …} for "all"."""
    match clause:
        case types.ClauseEquals():
            return "=" + clause.equals.lower()
        case types.ClauseStartsWith():
            return "^" + clause.starts_with.lower()
        case types.ClauseEndsWith():
            return "$" + clause.ends_with.lower()
        case types.ClauseContains():
            return "*" + clause.contains.lower()
        case types.ClauseRegex():
            return "~" + clause.regex
        case types.ClauseOr():
            return [rule(each) for each in clause.or_]
        case types.ClauseAnd():
            return {"all": [rule(each) for each in clause.and_]}
    raise ValueError(f"unknown clause {clause!r}")


def price(value: Any) -> Any:
    if isinstance(value, types.TieredPrices):
        return [str(value.base), [[tier.start, str(tier.price)] for tier in value.tiers]]
    return str(value)


def rates(prices: Any) -> dict[str, Any]:
    """Return USD per million, of tokens or of what a fee counts."""
    return {
        # The source has fees by the thousand.
        kind: str(prices.__dict__[name] * 1000) if name.endswith("_kcount") else price(prices.__dict__[name])
        for name, kind in KINDS.items()
        if prices.__dict__.get(name) is not None
    }


def since(constraint: Any) -> str | None:
    if constraint is None:
        return None
    if isinstance(constraint, types.StartDateConstraint):
        return constraint.start_date.isoformat()
    raise ValueError(f"unknown constraint {constraint!r}")


def model(info: Any) -> dict[str, Any] | None:
    conditional = (
        info.prices if isinstance(info.prices, list) else [types.ConditionalPrice(prices=info.prices)]
    )
    periods: list[list[Any]] = [[since(each.constraint), rates(each.prices)] for each in conditional]
    # The source falls back on its first entry before any of them starts.
    periods[0][0] = None
    if not any("i" in period[1] for period in periods):
        return None
    tiers: dict[str, list[Any]] = {}
    for variant in info.price_variants or ():
        (condition,) = variant.when.items()
        if condition == ("service_tier", "default"):
            continue
        tiers.setdefault(TIERS[condition], []).append([since(variant.constraint), rates(variant.prices)])
    written = {"id": info.id, "match": rule(info.match), "prices": periods}
    # The source takes the first variant that is active, the book the last period that is.
    return written | ({"tiers": {name: each[::-1] for name, each in tiers.items()}} if tiers else {})


def book(generated: str) -> dict[str, Any]:
    """Return the whole book."""
    by_id = {provider.id: provider for provider in providers}

    def models(infos: Iterable[Any]) -> list[dict[str, Any]]:
        return [written for each in infos if (written := model(each)) is not None]

    return {
        "source": "genai-prices",
        "version": version("genai-prices"),
        "generated": generated,
        "providers": [
            {
                "id": name,
                "match": rule(by_id[name].model_match) if by_id[name].model_match else None,
                "models": models(by_id[name].models),
            }
            for name in PROVIDERS
        ],
    }


Prices = dict[tuple[str, str, str, str], str]
"""USD per million by model, tier, first day and kind."""


def prices_of(written: Mapping[str, Any]) -> Prices:
    """Return all prices of a book, flat."""
    names = {kind: name.removesuffix("_mtok") for name, kind in KINDS.items()}
    found: Prices = {}
    for provider in written["providers"]:
        for each in provider["models"]:
            for tier, periods in {"standard": each["prices"], **each.get("tiers", {})}.items():
                for first, kinds in periods:
                    for kind, usd in kinds.items():
                        key = (f"{provider['id']}/{each['id']}", tier, first or "", names[kind])
                        found[key] = usd if isinstance(usd, str) else _steps(usd)
    return found


def _steps(usd: list[Any]) -> str:
    base, steps = usd
    return f"{base} ({', '.join(f'above {start:,}: {price}' for start, price in steps)})"


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return model, what of it, the old price and the new one, for each price that is not as it was."""
    old, new = prices_of(before), prices_of(after)
    known, current = {key[0] for key in old}, {key[0] for key in new}
    rows = []
    for key in sorted(old.keys() | new.keys()):
        model, tier, first, kind = key
        if old.get(key) == new.get(key):
            continue
        # Of a model that comes or goes, the two prices that tell it.
        if (model not in known or model not in current) and (
            tier != "standard" or kind not in ("input", "output")
        ):
            continue
        what = " ".join(filter(None, (kind, tier if tier != "standard" else "", first and f"from {first}")))
        fallback = ("new model", "removed") if model not in known & current else ("-", "-")
        rows.append((model, what, old.get(key, fallback[0]), new.get(key, fallback[1])))
    return rows


def table(rows: Iterable[tuple[str, str, str, str]]) -> str:
    """Return rows as a text table, in USD per million."""
    lines = [("model", "price", "was", "is"), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[3]])
        for line in lines
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--date", default=datetime.now(UTC).date().isoformat(), help="the book's date")
    written = book(parser.parse_args().date)
    before = json.loads(BOOK.read_text(encoding="utf-8"))
    rows = changes(before, written)
    print(table(rows) if rows else "no price changed")
    BOOK.write_text(json.dumps(written, separators=(",", ":")) + "\n", encoding="utf-8")
    count = sum(len(provider["models"]) for provider in written["providers"])
    print(
        f"{BOOK}: {count} models, genai-prices {before['version']} -> {written['version']}, "
        f"{BOOK.stat().st_size:,} bytes"
    )


if __name__ == "__main__":
    main()

"""Quote prices in the customer's currency, from a warm cache."""

from __future__ import annotations

# Cents of a euro; and what a euro costs in each currency, in hundredths.
LIST_PRICE = {"TSH-0042": 1990, "HAT-0007": 2450, "MUG-0003": 890}
RATE = {"EUR": 100, "USD": 108, "GBP": 85}

_cache = {}


class CurrencyMismatch(Exception):
    """A quote in a currency that was not asked for."""


def load_quote(sku, currency):
    """The slow way: list price and rate."""
    return {"sku": sku, "currency": currency, "cents": LIST_PRICE[sku] * RATE[currency] // 100}


def quote(sku, currency, load=load_quote):
    """Quote from the cache, loaded on first use."""
    key = sku
    if key not in _cache:
        _cache[key] = load(sku, currency)
    return _cache[key]


def handler(event, _context):
    quotes = []
    for item in event["items"]:
        found = quote(item["sku"], item["currency"])
        if found["currency"] != item["currency"]:
            raise CurrencyMismatch(f"asked for {item['currency']}, the quote is in {found['currency']}")
        quotes.append(found)
    return {"quotes": quotes}

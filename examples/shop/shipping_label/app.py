"""Lay out the address lines of a shipping label."""

from __future__ import annotations

MAX_LINE = 35


def label(address):
    """Lines of the label, top to bottom, none longer than the printer takes."""
    lines = [address["name"], address["street"]]
    if address.get("unit"):
        lines.append(address["unit"])
    lines.append(f"{address['city']}, {address['state']} {address['postcode']}")
    lines.append(address["country"].upper())
    return [line[:MAX_LINE] for line in lines]


def handler(event, _context):
    return {"order": event["order"], "lines": label(event["address"])}

"""Which tier of the loyalty programme a customer is in."""

from __future__ import annotations

# Points needed for each tier, highest first.
TIERS = [("platinum", 5000), ("gold", 1000), ("silver", 250), ("bronze", 0)]


def tier(points):
    """Name of the highest tier whose points are reached."""
    if points < 0:
        raise ValueError("points cannot be negative")
    reached = [name for name, needed in TIERS if points > needed]
    return reached[0]


def handler(event, _context):
    customers = event["customers"]
    return {"tiers": {customer["id"]: tier(customer["points"]) for customer in customers}}

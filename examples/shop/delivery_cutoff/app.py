"""The day on which an order leaves the warehouse."""

from __future__ import annotations

from datetime import datetime, time, timedelta, timezone

# Orders placed until three o'clock, warehouse time, leave the same day.
CUTOFF = time(15, 0)

# Warehouses plan in standard time all year round.
WAREHOUSES = {
    "hamburg": timezone(timedelta(hours=1)),
    "austin": timezone(timedelta(hours=-6)),
    "osaka": timezone(timedelta(hours=9)),
}


def ships_on(ordered_at, warehouse):
    """Day of dispatch; a timestamp without an offset is in the warehouse's own time."""
    if warehouse not in WAREHOUSES:
        raise ValueError(f"no warehouse {warehouse!r}")
    cutoff = datetime.combine(ordered_at.date(), CUTOFF)
    if ordered_at <= cutoff:
        return cutoff.date()
    return cutoff.date() + timedelta(days=1)


def handler(event, _context):
    ordered_at = datetime.fromisoformat(event["ordered_at"])
    return {"order": event["order"], "ships_on": ships_on(ordered_at, event["warehouse"]).isoformat()}

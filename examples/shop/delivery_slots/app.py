"""Delivery slots that a customer can choose from."""

from __future__ import annotations


def clock(minutes):
    """Minutes since midnight as a time of day: 540 is "09:00"."""
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def slots(opens, closes, length):
    """Slots of `length` minutes from opening to closing; a rest that is shorter is not offered."""
    bounds = list(range(opens, closes + 1, length))
    found = []
    for index in range(len(bounds)):
        found.append(f"{clock(bounds[index])}-{clock(bounds[index + 1])}")
    return found


def handler(event, _context):
    return {"day": event["day"], "slots": slots(event["opens"], event["closes"], event["length"])}

"""How many boxes an order needs, and how heavy each may get."""

from __future__ import annotations

import math

MAX_GRAMS = 20_000


class BoxTooHeavy(Exception):
    """A carrier would refuse the box."""


def pack(items, per_box, weight_g):
    """Boxes for `items` pieces of `weight_g` grams in all, `per_box` pieces to a box."""
    boxes = items // per_box
    grams = math.ceil(weight_g / boxes)
    if grams > MAX_GRAMS:
        raise BoxTooHeavy(f"{grams} g in a box, at most {MAX_GRAMS} g are carried")
    return {"boxes": boxes, "grams_per_box": grams}


def handler(event, _context):
    return pack(event["items"], event["per_box"], event["weight_g"])

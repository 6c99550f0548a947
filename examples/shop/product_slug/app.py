"""The part of a product's address that people read."""

from __future__ import annotations

import re

MAX_LENGTH = 60


def slug(name):
    """Lower-case ASCII words of a product name, joined by hyphens, cut between words."""
    plain = name.lower().encode("ascii").decode("ascii")
    result = ""
    for word in re.findall(r"[a-z0-9]+", plain):
        longer = f"{result}-{word}" if result else word
        if len(longer) > MAX_LENGTH:
            break
        result = longer
    return result


def handler(event, _context):
    return {"slugs": [slug(product["name"]) for product in event["products"]]}

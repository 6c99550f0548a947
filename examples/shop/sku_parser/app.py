"""Take a stock-keeping unit apart: family, number, colour, size."""

from __future__ import annotations

import re

# TSH-0042-BLUE-XL: a T-shirt, design 42, blue, extra large.
SKU = re.compile(r"(?P<family>[A-Z]{3})-(?P<number>\d{4})-(?P<colour>[A-Z]+)-(?P<size>XS|S|M|L|XL|XXL)$")


def parse(sku):
    """Parts of a stock-keeping unit; the colour in lower-case words."""
    parts = SKU.match(sku).groupdict()
    parts["number"] = int(parts["number"])
    parts["colour"] = parts["colour"].replace("-", " ").lower()
    return parts


def handler(event, _context):
    return {"items": [parse(sku) for sku in event["skus"]]}

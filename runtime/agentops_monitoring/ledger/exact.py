"""Exact arithmetic: a sum of money that would need rounding is an error, never a rounded sum."""

from __future__ import annotations

import math
from decimal import ROUND_DOWN, Context, Decimal, Inexact, InvalidOperation, Rounded

EXACT = Context(prec=38, traps=[Inexact, Rounded, InvalidOperation])
"""DynamoDB's own precision: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html."""

_WIDE = Context(prec=60, rounding=ROUND_DOWN)
_QUANTUM = Decimal("1e-15")

Number = int | Decimal


def share(amount: Decimal, part: Decimal, whole: Decimal) -> Decimal:
    """Return `amount * part / whole`, towards zero at 10⁻¹⁵ USD; the rest is the caller's to place."""
    return _WIDE.quantize(_WIDE.divide(_WIDE.multiply(amount, part), whole), _QUANTUM)


def number(value: object) -> Number | None:
    """Return a JSON number as an exact one; None for anything else, booleans and NaN included."""
    if type(value) is int:
        return value
    if type(value) is float and math.isfinite(value):
        return Decimal(repr(value))
    return None


def dynamo(value: Number) -> dict[str, str]:
    """Return a number as DynamoDB's JSON wants it, without an exponent."""
    return {"N": str(value) if type(value) is int else format(value, "f")}

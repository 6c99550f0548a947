"""Redeem coupons: each code at most once in a basket."""

from __future__ import annotations

DISCOUNT_CENTS = {"WELCOME5": 500, "SPRING3": 300, "FREESHIP": 490}


class CouponAlreadyUsed(Exception):
    """The same code twice in one basket."""


def redeem(total_cents, codes, used=[]):
    """Total after the discounts of `codes`, never below zero."""
    for code in codes:
        if code in used:
            raise CouponAlreadyUsed(f"coupon {code} was already used")
        used.append(code)
        total_cents -= DISCOUNT_CENTS.get(code, 0)
    return max(total_cents, 0)


def handler(event, _context):
    return {"totals": [redeem(basket["total_cents"], basket["codes"]) for basket in event["baskets"]]}

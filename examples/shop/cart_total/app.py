"""Accept a payment when it covers the cart exactly."""

from __future__ import annotations


class PaymentMismatch(Exception):
    """The amount paid is not the amount due."""


def cart_total(lines):
    """Sum of unit price x quantity over the lines of a cart."""
    total = 0.0
    for line in lines:
        total += float(line["unit_price"]) * line["quantity"]
    return total


def handler(event, _context):
    due = cart_total(event["lines"])
    paid = float(event["payment"]["amount"])
    if paid != due:
        raise PaymentMismatch(f"cart is {due}, payment is {paid}")
    return {"status": "accepted", "total": f"{due:.2f}"}

"""Split an amount into monthly instalments."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

CENT = Decimal("0.01")


class PlanDoesNotAddUp(Exception):
    """The instalments are not the amount."""


def plan(amount, months):
    """Instalments to the cent; where it doesn't divide, the first ones are a cent higher."""
    part = (amount / months).quantize(CENT, ROUND_HALF_UP)
    parts = [part] * months
    if sum(parts) != amount:
        raise PlanDoesNotAddUp(f"{months} x {part} is not {amount}")
    return parts


def handler(event, _context):
    parts = plan(Decimal(event["amount"]), event["months"])
    return {"instalments": [str(part) for part in parts]}

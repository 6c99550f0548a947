"""An agent's daily budget: what is set, where it is held, and what tells of it."""

from __future__ import annotations

import json
from decimal import Context, Decimal, Inexact, InvalidOperation

EXACT = Context(prec=38, traps=[Inexact, InvalidOperation])
"""As exact as a number in DynamoDB, whatever the agent has set for its own."""
VARIABLE = "AGENTOPS_BUDGET"
"""The environment variable that holds `Budget.to_text()`."""
EVENT = "budget_exceeded"
"""Type of the event of a call that did not fit: refused under "block", made all the same under "warn"."""


class Budget:
    """What an agent may spend on models in a UTC day.

    Parameters
    ----------
    daily_usd
        USD a UTC day. A float is taken as it is written: 0.1 is a tenth.
    on_exceed
        "block" raises `BudgetExceeded` in the agent, "warn" records an event and lets the call be made.
    when_unreachable
        Of the table that holds the budget: "open" lets calls be made, and books them later; "closed" refuses
        them.

    Raises
    ------
    ValueError
        One of them is none of that.
    """

    def __init__(
        self, *, daily_usd: Decimal | float | str, on_exceed: str = "block", when_unreachable: str = "open"
    ) -> None:
        try:
            self.daily_usd = Decimal(str(daily_usd))
        except InvalidOperation:
            self.daily_usd = Decimal("NaN")
        # DynamoDB's numbers have 38 digits; a cost's go down to 10^-12.
        if not (self.daily_usd.is_finite() and 0 < self.daily_usd <= 10**12):
            raise ValueError(f"budget: daily_usd {daily_usd!r} is no amount above 0")
        if on_exceed not in ("block", "warn"):
            raise ValueError(f"budget: on_exceed {on_exceed!r} is neither 'block' nor 'warn'")
        if when_unreachable not in ("open", "closed"):
            raise ValueError(f"budget: when_unreachable {when_unreachable!r} is neither 'open' nor 'closed'")
        self.blocks = on_exceed == "block"
        self.closed = when_unreachable == "closed"

    def to_text(self) -> str:
        """Return the value of the environment variable."""
        return json.dumps(
            {
                "daily_usd": f"{self.daily_usd:f}",
                "on_exceed": "block" if self.blocks else "warn",
                "when_unreachable": "closed" if self.closed else "open",
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_text(cls, text: str) -> Budget:
        """Read the value of the environment variable: the JSON of `to_text`, or a number of USD alone.

        Raises
        ------
        ValueError
            It is none.
        """
        try:
            given = json.loads(text, parse_float=str, parse_int=str)
        except ValueError:
            raise ValueError(f"budget: {VARIABLE} {text!r} is no JSON") from None
        if isinstance(given, str):
            given = {"daily_usd": given}
        if not isinstance(given, dict) or "daily_usd" not in given:
            raise ValueError(f"budget: {VARIABLE} {text!r} names no daily_usd")
        unknown = given.keys() - {"daily_usd", "on_exceed", "when_unreachable"}
        if unknown:
            raise ValueError(f"budget: {VARIABLE} has unknown fields {', '.join(sorted(unknown))}")
        return cls(**given)


def partition_key(agent: str, day: str) -> str:
    """Return the key of an agent's budget on a day in the ledger's table; its sort key is `STATE`."""
    return f"BUDGET#{agent}#{day}"

"""What an agent meets when a model call does not fit into its daily budget.

Apart from what enforces budgets, which only agents with one carry, so that all can name what they catch.
"""

from __future__ import annotations

import copyreg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from decimal import Decimal
    from typing import Any


class BudgetExceeded(Exception):
    """A model call was refused: its worst case does not fit into what is left of the agent's daily budget.

    Nothing was sent. The agent may catch it, and end its work in good order.

    Attributes
    ----------
    agent
        Whose budget it is.
    day
        The UTC day, as YYYY-MM-DD.
    limit_usd, spent_usd, reserved_usd
        The budget, what was spent of it, and what calls under way may still spend; None is not known.
    asked_usd
        The call's worst case; None where nothing bounds it.
    model
        The model that was asked for.
    """

    def __init__(
        self,
        text: str,
        *,
        agent: str,
        day: str,
        model: str,
        limit_usd: Decimal,
        spent_usd: Decimal | None = None,
        reserved_usd: Decimal | None = None,
        asked_usd: Decimal | None = None,
    ) -> None:
        super().__init__(text)
        self.agent = agent
        self.day = day
        self.model = model
        self.limit_usd = limit_usd
        self.spent_usd = spent_usd
        self.reserved_usd = reserved_usd
        self.asked_usd = asked_usd

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is made anew of its text alone; a pool of processes would break of it.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class BudgetUnreachable(BudgetExceeded):
    """A model call was refused: the budget's table does not answer, and the budget is to be closed then."""

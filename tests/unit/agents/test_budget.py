"""What the agents do when their budget is spent: they end the workflow, and say why."""

from __future__ import annotations

from tests.unit.core.budgets import Enforced

from .conftest import World


def test_a_workflow_without_room_in_the_budget_ends_in_good_order(world: World) -> None:
    Enforced("0.000001")
    world.fail("cart-total")
    world.report("cart-total")
    world.settle()
    (failed,) = world.of("workflow_failed")
    assert "BudgetExceeded" in str(failed["data"])
    assert world.of("budget_exceeded")
    assert world.of("invocation_failed", "llm_usage") == []

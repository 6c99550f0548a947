"""Which states a unit belongs to. A new kind of state is one more entry in `KINDS`."""

from __future__ import annotations

from agentops_monitoring.ledger.allocation import Invocation
from agentops_monitoring.ledger.receipts import Receipt
from agentops_monitoring.ledger.sequences import Sequence
from agentops_monitoring.ledger.state import State, Unit
from agentops_monitoring.ledger.workflows import Workflow

KINDS: tuple[type[State], ...] = (Workflow, Invocation, Receipt, Sequence)


def concerned(unit: Unit, stream: str) -> list[tuple[str, type[State]]]:
    """Return key and kind of the states that a unit of a log stream belongs to."""
    return [(key, kind) for kind in KINDS if (key := kind.key(unit, stream)) is not None]

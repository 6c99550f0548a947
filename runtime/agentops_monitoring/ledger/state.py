"""A state: an item with a version, for what can only be counted by knowing what came before.

What it adds to the counters depends on it alone: whoever changes it books the difference in the same
transaction, under the condition that the version is still the one that was read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

from agentops_monitoring.ledger.events import Event, Report
from agentops_monitoring.ledger.rollup import Increments, Key
from agentops_monitoring.ledger.schema import Tables

Unit = Event | Report
"""What a batch consists of."""


class State(ABC):
    """What is known of something; it is changed by adding to it and never in any other way.

    Parameters
    ----------
    version
        Of the item in the table; 0 when there is none.
    text
        The state as JSON; that of nothing known when left out.
    """

    __slots__ = ("touches", "version")

    def __init__(self, version: int = 0, text: str | None = None) -> None:  # noqa: ARG002
        self.version = version
        self.touches: set[Key] = set()
        """The counters that its contributions may change, at most."""

    @staticmethod
    @abstractmethod
    def key(unit: Unit, stream: str, /) -> str | None:
        """Return the partition key of the state that a unit of a log stream belongs to; None for no state."""

    @abstractmethod
    def copy(self) -> Self:
        """Return a copy to add to; what fails to commit is thrown away."""

    @abstractmethod
    def text(self) -> str:
        """Return the state as JSON."""

    @abstractmethod
    def changes(self, unit: Unit) -> bool:
        """Whether adding a unit changes anything; a report that changes nothing is a duplicate."""

    @abstractmethod
    def add(self, unit: Unit) -> None:
        """Add a unit; one that is there already changes nothing."""

    @abstractmethod
    def contributions(self) -> Increments:
        """Return everything that it adds to the counters."""

    @abstractmethod
    def touched_by(self, unit: Unit) -> set[Key]:
        """Return the counters that its contributions may change beyond `touches` once a unit is added."""

    def most_others(self, unit: Unit | None = None, /) -> int:  # noqa: ARG002
        """Return how many items it has, at most, that `others` puts, once a unit is added."""
        return 0

    def others(self, before: Self | None, tables: Tables, now: float, /) -> list[dict[str, Any]]:  # noqa: ARG002
        """Return actions on other items, without conditions, given the state that is in the table."""
        return []

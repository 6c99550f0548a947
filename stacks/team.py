"""The reference agents: what each is called, what wakes it, and whom it writes to."""

from __future__ import annotations

from dataclasses import dataclass

from agentops_constructs import AgentRef, Names


@dataclass(frozen=True, slots=True)
class Member:
    """One of the reference agents."""

    name: str
    title: str
    subscribes_to: tuple[str, ...]
    sends_to: tuple[str, ...]
    timeout_seconds: int

    def ref(self, names: Names) -> AgentRef:
        """Return the agent as other stacks know it."""
        return AgentRef(self.name, names.function(self.name))


MANAGER = Member("manager", "Manager", ("issue.reported",), ("engineer",), 420)
ENGINEER = Member("engineer", "Engineer", ("issue.found", "patch.rejected"), ("qa",), 600)
QA = Member("qa", "QA", ("patch.ready",), ("engineer",), 600)
TEAM = (MANAGER, ENGINEER, QA)
FLOWS = tuple((member.name, receiver) for member in TEAM for receiver in member.sends_to)
SANDBOX = "sandbox"

"""Tests of agents: what an agent recorded, as objects to assert on; nothing leaves the process.

With pytest the fixture `agent_events` does it, see `testing.plugin`; elsewhere, `capture_events`:

>>> with capture_events() as events:
...     my_agent.handle(order)
>>> assert events.one("llm_usage").data["gen_ai.request.model"] == "claude-sonnet-4-5"
"""

from __future__ import annotations

from agentops_monitoring.testing.capture import capture_events
from agentops_monitoring.testing.events import Event, Events
from agentops_monitoring.testing.handlers import LambdaContext, invoke

__all__ = ["Event", "Events", "LambdaContext", "capture_events", "invoke"]

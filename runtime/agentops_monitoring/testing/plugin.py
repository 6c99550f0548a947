"""The pytest plugin: installed with the package, it needs no line in a conftest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from agentops_monitoring.testing.capture import capture_events
from agentops_monitoring.testing.events import Events

_EVENTS = pytest.StashKey[Events]()


@pytest.fixture
def agent_events(request: pytest.FixtureRequest) -> Iterator[Events]:
    """What the agents of this test record, in strict mode; see `agentops_monitoring.testing`."""
    with capture_events() as events:
        request.node.stash[_EVENTS] = events
        yield events


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show what was recorded where a test fails."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed and _EVENTS in item.stash:
        report.sections.append(("Recorded agent events", str(item.stash[_EVENTS])))

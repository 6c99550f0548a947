"""The book alone before and after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agentops_monitoring.pricing import book, overrides


@pytest.fixture(autouse=True)
def book_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(overrides.VARIABLE, raising=False)
    yield
    monkeypatch.undo()
    book.use(None)
    book._overrides_read = False
    overrides._read_at = None

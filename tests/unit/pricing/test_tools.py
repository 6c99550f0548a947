"""What `make prices` says, and what `make release` refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agentops_monitoring.pricing import price_book
from tools import release
from tools.generate_price_book import BOOK, changes, table

BEFORE: dict[str, Any] = {
    "providers": [
        {
            "id": "anthropic",
            "models": [
                {"id": "old", "prices": [[None, {"i": "1", "o": "2"}]]},
                {
                    "id": "claude",
                    "prices": [[None, {"i": "3", "o": "15", "r": "0.3"}]],
                    "tiers": {"batch": [[None, {"i": "1.5"}]]},
                },
            ],
        }
    ]
}


def test_every_change_of_a_price_is_told() -> None:
    after = deepcopy(BEFORE)
    models = after["providers"][0]["models"]
    models[0] = {"id": "new", "prices": [[None, {"i": "7", "o": "8", "r": "0.7"}]]}
    claude = models[1]
    claude["prices"][0][1] |= {"i": ["3", [[200_000, "6"]]], "w": "3.75"}
    del claude["prices"][0][1]["r"]
    claude["prices"].append(["2027-01-01", {"i": "2"}])
    claude["tiers"]["batch"][0][1]["i"] = "1.4"
    assert changes(BEFORE, after) == [
        ("anthropic/claude", "input batch", "1.5", "1.4"),
        ("anthropic/claude", "cache_read", "0.3", "-"),
        ("anthropic/claude", "cache_write", "-", "3.75"),
        ("anthropic/claude", "input", "3", "3 (above 200,000: 6)"),
        ("anthropic/claude", "input from 2027-01-01", "-", "2"),
        ("anthropic/new", "input", "new model", "7"),
        ("anthropic/new", "output", "new model", "8"),
        ("anthropic/old", "input", "1", "removed"),
        ("anthropic/old", "output", "2", "removed"),
    ]
    lines = table(changes(BEFORE, after)).splitlines()
    assert lines[0].split() == ["model", "price", "was", "is"]
    assert lines[1].split() == ["anthropic/claude", "input", "batch", "1.5", "1.4"]


def test_nothing_changes_between_a_book_and_itself() -> None:
    book = json.loads(BOOK.read_text())
    assert changes(book, book) == []


def test_the_book_says_where_its_prices_are_from_and_of_what_day() -> None:
    book = price_book()
    assert book.source == "genai-prices"
    assert date.fromisoformat(book.generated) <= datetime.now(UTC).date()


@pytest.mark.parametrize(("age", "released"), [(0, True), (90, True), (91, False), (400, False)])
def test_a_book_of_more_than_90_days_is_not_released(age: int, released: bool) -> None:
    generated = date(2026, 11, 22)
    book = {"generated": generated.isoformat(), "source": "genai-prices", "version": "0.2.3"}
    why_not = release.outdated(book, generated + timedelta(days=age))
    assert (why_not is None) is released
    assert released or (f"{age} days" in (why_not or "") and "make prices" in (why_not or ""))


def test_a_release_stops_at_an_old_book(tmp_path: Path) -> None:
    book = json.loads(BOOK.read_text())
    for generated, status in ((datetime.now(UTC).date().isoformat(), 0), ("2020-01-01", 1)):
        path = tmp_path / "book.json"
        path.write_text(json.dumps({**book, "generated": generated}))
        command = [sys.executable, release.__file__, "--check", "--book", str(path)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == status, ran.stderr
        assert bool(ran.stderr) is bool(status)

"""An embedded AWS whose faults the tests order: a process of its own, so that nobody else meets them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.conftest import EmbeddedAws, running_aws


class FaultyAws(EmbeddedAws):
    """An embedded AWS and its rules."""

    def order(self, *rules: dict[str, Any], seed: int = 7) -> None:
        """Replace every rule."""
        status, told = self.put_faults({"seed": seed, "rules": rules})
        assert status == 200, told

    def put_faults(self, document: Any) -> tuple[int, str]:
        """Send a document, whatever it says; return the status and the answer."""
        body = json.dumps(document).encode()
        request = urllib.request.Request(f"{self.url}/_local/faults", data=body, method="PUT")
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def counts(self) -> list[tuple[int, int]]:
        """Return, by rule, how often it has matched and fired."""
        return [(rule["matched"], rule["fired"]) for rule in self.local("faults")["rules"]]

    def table(self) -> str:
        """Create a table and return its name."""
        return self.stream_table()[0]

    def keys(self, table: str) -> set[str]:
        """Return the keys of a table's items."""
        return {item["pk"]["S"] for item in self.client("dynamodb").scan(TableName=table)["Items"]}


@pytest.fixture(scope="module")
def started() -> Iterator[FaultyAws]:
    """Start one for a module."""
    with running_aws("--retry-seconds", "0.05") as (_, url):
        yield FaultyAws(url)


@pytest.fixture
def aws(started: FaultyAws) -> Iterator[FaultyAws]:
    """Give it without rules, and take those of the test away."""
    yield started
    started.order()
    started.settle()

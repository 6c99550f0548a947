"""One readable picture of each stack: a change of a template is seen in review."""

from __future__ import annotations

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.json import JSONSnapshotExtension

from .conftest import Templates, readable


@pytest.mark.parametrize("part", ["monitoring", "agents", "dashboards"])
def test_the_template_is_as_reviewed(part: str, production: Templates, snapshot: SnapshotAssertion) -> None:
    assert readable(production[part]) == snapshot(extension_class=JSONSnapshotExtension)

"""Over how many items the ledger's counters are spread: one answer for all who write and read them."""

from __future__ import annotations

import pytest
from aws_cdk import Stack

from agentops_constructs import MonitoringPlane

from .conftest import synth


def test_all_functions_of_the_plane_are_told_the_same(stack: Stack) -> None:
    MonitoringPlane(stack, "Monitoring", environment="team", alert_email="a@example.com", ledger_shards=16)
    told = {
        one["Properties"]["FunctionName"]: one["Properties"]["Environment"]["Variables"].get(
            "AGENTOPS_LEDGER_SHARDS"
        )
        for one in synth(stack).find_resources("AWS::Lambda::Function").values()
        if "agentops_monitoring.functions" in one["Properties"].get("Handler", "")
    }
    assert {"agentops-ingest-team", "agentops-gauges-team", "agentops-fold-team"} <= told.keys()
    assert set(told.values()) == {"16"}


@pytest.mark.parametrize("shards", [0, -1, 65, 4.0, True, "4"])
def test_a_number_that_makes_no_sense_is_refused(stack: Stack, shards: object) -> None:
    with pytest.raises(ValueError, match="ledger_shards must be within 1 and 64"):
        MonitoringPlane(stack, "Monitoring", environment="team", ledger_shards=shards)  # type: ignore[arg-type]

"""Resources of the synthesized stacks, as `tests/synth` reviews them: what the embedded AWS has to serve."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SNAPSHOTS = Path(__file__).parents[1] / "synth" / "__snapshots__" / "test_snapshots"


def properties(kind: str) -> Iterator[dict[str, Any]]:
    """Return the properties of every resource of a type, over all stacks."""
    for path in sorted(SNAPSHOTS.glob("*.json")):
        for resource in json.loads(path.read_text())["Resources"].values():
            if resource["Type"] == kind:
                yield resource["Properties"]


def alarm(name: str) -> dict[str, Any]:
    """Return the alarm of that name behind ``AgentOps-production-``, as PutMetricAlarm takes it."""
    (found,) = (one for one in alarms() if one["AlarmName"] == f"AgentOps-production-{name}")
    return found


def alarms() -> Iterator[dict[str, Any]]:
    """Return every alarm as PutMetricAlarm takes it, without its actions; references become their names."""
    for one in properties("AWS::CloudWatch::Alarm"):
        kept = {name: value for name, value in one.items() if name not in ("AlarmActions", "Tags")}
        for dimension in kept.get("Dimensions", []):
            if not isinstance(dimension["Value"], str):
                dimension["Value"] = json.dumps(dimension["Value"])
        yield kept

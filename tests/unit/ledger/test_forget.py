"""`agentops-monitoring forget`: the data goes, every counter stays, also when the lines come again."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError
from hypothesis import given, settings
from hypothesis import strategies as st

from agentops_monitoring import cli
from agentops_monitoring.cli import plane
from agentops_monitoring.export.stream import inserted
from agentops_monitoring.ledger import forget
from agentops_monitoring.ledger.events import Source
from agentops_monitoring.ledger.forget import Forget, Forgotten
from agentops_monitoring.ledger.later import LaterLines
from agentops_monitoring.ledger.parse import read_payload
from agentops_monitoring.ledger.reader import LedgerReader
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.fake_dynamodb import FakeDynamoDB
from tests.unit.ledger.recount import recount
from tests.unit.ledger.streams import LogEvent, World, payload
from tests.unit.ledger.test_writer import check, scan, writer_of

COUNTED = ("H#", "D#", "M#", "WS#")


def deliver(client: Any, batches: list[list[LogEvent]]) -> None:
    for batch in batches:
        writer_of(client).write(read_payload(payload(batch), "us-east-1"))


def counters(client: Any) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (item["pk"]["S"], item["sk"]["S"]): {
            name: value for name, value in item.items() if name != "expires_at"
        }
        for item in scan(client, TABLES.ledger)
        if item["pk"]["S"].startswith(COUNTED)
    }


def sweep(client: Any, workflow: str) -> Forgotten:
    total = Forgotten()
    for each in Forget(client, TABLES).sweep(workflow):
        total = total.plus(each)
    return total


def assert_forgotten(client: Any, workflow: str, keys: set[str]) -> None:
    """Nothing is left of a workflow but the keys of its events."""
    pk = f"WF#{workflow}"
    kept = [item for item in scan(client, TABLES.monitoring) if item["pk"]["S"] == pk]
    assert all(item.keys() == {"pk", "sk", "expires_at", "withdrawn"} for item in kept)
    assert {item["sk"]["S"].partition("#")[2] for item in kept} >= keys
    decisions = scan(client, TABLES.decisions)
    assert [
        item for item in decisions if workflow in (item["pk"]["S"][3:], item.get("workflow_id", {}).get("S"))
    ] == []
    for item in scan(client, TABLES.ledger):
        assert not (item["pk"]["S"].startswith("PART#") and workflow in item.get("line", {}).get("S", ""))
        assert not any(item["pk"]["S"].startswith(f"DATA#{key}") for key in keys)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_forgotten_workflow_changes_no_counter(seed: int) -> None:
    dice = random.Random(seed)
    world = World(seed, streams=2)
    batches = world.deliveries()
    forgotten = dice.choice(world.workflows)
    twin, client = FakeDynamoDB(), FakeDynamoDB()
    deliver(twin, batches)
    check(twin, recount(world.events))
    moment = dice.randrange(len(batches) + 1)
    deliver(client, batches[:moment])
    Forget(client, TABLES).mark(forgotten)
    sweep(client, forgotten)
    deliver(client, batches[moment:])
    # Everything is replayed, in other portions.
    deliver(client, world.deliveries())
    assert counters(client) == counters(twin)
    keys = {body["id"] for body in recount(world.events).events.values() if body["workflow_id"] == forgotten}
    assert_forgotten(client, forgotten, keys)
    assert sweep(client, forgotten) == Forgotten()
    others = [item for item in scan(twin, TABLES.monitoring) if item["pk"]["S"] != f"WF#{forgotten}"]
    assert len(others) == len(
        [item for item in scan(client, TABLES.monitoring) if item["pk"]["S"] != f"WF#{forgotten}"]
    )


def test_interrupted_anywhere_it_is_done_by_a_repetition() -> None:
    world = World(4, streams=2, invocations=3)
    workflow = world.workflows[0]
    keys = {body["id"] for body in recount(world.events).events.values() if body["workflow_id"] == workflow}
    for when in ("before", "after"):
        calls = 0
        client = FakeDynamoDB()
        deliver(client, world.deliveries())
        before = counters(client)
        for fails_at in range(1, 60):
            calls = 0

            def fault(operation: str, moment: str, when: str = when, fails_at: int = fails_at) -> None:
                nonlocal calls
                calls += moment == when
                if moment == when and calls == fails_at:
                    raise KeyboardInterrupt

            client.fault = fault
            try:
                Forget(client, TABLES).mark(workflow)
                sweep(client, workflow)
            except KeyboardInterrupt:
                continue
            break
        client.fault = lambda operation, when: None
        assert fails_at > 5
        assert_forgotten(client, workflow, keys)
        assert counters(client) == before


def test_a_forgotten_workflow_in_the_table(
    dynamodb: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, table in zip(("MONITORING", "DECISIONS", "LEDGER"), TABLES, strict=True):
        monkeypatch.setenv(f"{name}_TABLE_NAME", table)
    monkeypatch.setattr(forget, "IN_FLIGHT_S", 0.0)
    monkeypatch.setenv("AGENTOPS_RAW_TTL_DAYS", "3")
    world = World(3, streams=2, invocations=3)
    batches = world.deliveries()
    deliver(dynamodb, batches[: len(batches) // 2])
    (most, _), *_ = Counter(item["pk"]["S"] for item in scan(dynamodb, TABLES.monitoring)).most_common()
    workflow = most.removeprefix("WF#")

    def run(*arguments: str) -> dict[str, Any]:
        assert cli.main(["forget", "--workflow", workflow, "--json", *arguments]) == 0
        return dict(json.loads(capsys.readouterr().out))

    assert cli.main(["forget", "--workflow", workflow]) == 2, "nobody has confirmed it"
    capsys.readouterr()
    found = run("--dry-run")
    reader = LedgerReader(dynamodb, TABLES, shards=4)
    assert len(reader.workflow_events(workflow)) == found["events"] > 0
    assert run("--yes")["events"] == found["events"]
    deliver(dynamodb, batches[len(batches) // 2 :])
    assert reader.workflow_events(workflow) == []
    assert run("--yes")["events"] == 0
    keys = {body["id"] for body in recount(world.events).events.values() if body["workflow_id"] == workflow}
    assert_forgotten(dynamodb, workflow, keys)
    twin = FakeDynamoDB()
    deliver(twin, batches)
    assert counters(dynamodb).keys() == counters(twin).keys()


@pytest.mark.parametrize("workflow", ["schmiede-für-ß", "manager"])
def test_of_later_versions_it_takes_the_lines_of_the_workflow_alone(workflow: str) -> None:
    client = FakeDynamoDB()
    later = LaterLines(client, TABLES.ledger)
    now = int(time.time() * 1000)
    bodies = {
        "field": {"v": 2, "workflow_id": workflow},
        "elsewhere": {"v": 2, "of": [{"workflow": workflow}]},
        "another": {"v": 2, "workflow_id": "other", "agent": workflow},
        "mentioned": {"v": 2, "workflow_id": "other", "data": {"text": f'"{workflow}"'}},
        "unnamed": {"v": 2, "text": f"about {workflow}"},
    }
    lines = [
        Source(name, now, json.dumps({"agentops.event": body}, ensure_ascii=False))
        for name, body in bodies.items()
    ]
    later.put({"logGroup": "g"}, lines)
    (found,) = Forget(client, TABLES).sweep(workflow, dry_run=True)
    assert found.later == 2
    assert len(list(later.all(datetime.now(UTC)))) == len(bodies)
    assert sweep(client, workflow).later == 2
    assert {each.key[1] for each in later.all(datetime.now(UTC))} == {"another", "mentioned", "unnamed"}


def test_the_pieces_of_a_large_event_go_with_it() -> None:
    client = FakeDynamoDB()
    number = {"N": "1"}
    event = {"pk": {"S": "WF#w"}, "sk": {"S": "2026#n-1"}, "type": {"S": "custom"}, "expires_at": number}
    client.put_item(TableName=TABLES.monitoring, Item={**event, "data_parts": number})
    for owner in ("n-1", "n-2"):
        key = {"pk": {"S": f"DATA#{owner}"}, "sk": {"S": "000001"}}
        client.put_item(TableName=TABLES.ledger, Item={**key, "data": {"B": b"x"}})
    assert sweep(client, "w").pieces == 1
    assert [item["pk"]["S"] for item in scan(client, TABLES.ledger)] == ["DATA#n-2"]


def test_what_was_under_way_is_swept_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def swept(self: Forget, workflow_id: str, *, dry_run: bool = False) -> Iterator[Forgotten]:
        done.append(f"sweep {workflow_id}")
        yield Forgotten()

    monkeypatch.setattr(plane, "client", lambda *_: None)
    monkeypatch.setenv("LEDGER_TABLE_NAME", TABLES.ledger)
    monkeypatch.setattr(forget, "IN_FLIGHT_S", 0.0)
    monkeypatch.setattr(Forget, "mark", lambda self, workflow_id: done.append(f"mark {workflow_id}"))
    monkeypatch.setattr(Forget, "sweep", swept)
    assert cli.main(["forget", "--workflow", "w", "--yes"]) == 0
    assert done == ["mark w", "sweep w", "sweep w"]


def test_without_a_plane_nothing_is_said_to_be_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoParameters:
        def get_parameters(self, **_: Any) -> Any:
            return {"Parameters": []}

    monkeypatch.setattr(plane, "client", lambda *_: NoParameters())
    assert cli.main(["forget", "--workflow", "w", "--dry-run", "--environment", "nowhere"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "/agentops/nowhere/" in printed.err


def test_without_credentials_nothing_is_said_to_be_deleted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Any:
        raise NoCredentialsError

    monkeypatch.setattr(plane, "client", refuse)
    assert cli.main(["forget", "--workflow", "w", "--yes"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "nothing was deleted: Unable to locate credentials" in printed.err


def test_a_key_alone_is_not_exported() -> None:
    key = {"pk": {"S": "WF#w"}, "sk": {"S": "2026#n-1"}}
    records = [
        {"eventName": "INSERT", "dynamodb": {"SequenceNumber": str(n), "NewImage": {**key, **more}}}
        for n, more in enumerate(({"withdrawn": {"BOOL": True}}, {}))
    ]
    assert [each.sequence_number for each in inserted(records)] == ["1"]

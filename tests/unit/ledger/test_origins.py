"""The ledger knows which functions an agent's lines come from."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

from agentops_monitoring.functions import ingest
from agentops_monitoring.ledger.origins import Origins, function_name
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.streams import payload as delivered
from tests.unit.ledger.test_reports import printed


@pytest.mark.parametrize(
    ("group", "stream", "name"),
    [
        ("/aws/lambda/shop-manager", "2026/11/22/[$LATEST]0a1b", "shop-manager"),
        ("Stack-ManagerLogs-1X", "2026/11/22/shop-manager[$LATEST]0a1b", "shop-manager"),
        ("Stack-ManagerLogs-1X", "2026/11/22/shop-manager[7]0a1b", "shop-manager"),
        ("/aws/lambda/shop-manager", "2026/11/22/another[$LATEST]0a1b", "another"),
        ("Stack-ManagerLogs-1X", "2026/11/22/[$LATEST]0a1b", None),
        ("/aws/lambda/", "2026/11/22/[$LATEST]0a1b", None),
        ("group", "direct/0a1b", None),
        ("group", "", None),
    ],
)
def test_the_stream_or_its_group_names_the_function(group: str, stream: str, name: str | None) -> None:
    assert function_name({"logGroup": group, "logStream": stream}) == name


class Puts:
    """Counts what is put, and fails at first."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.made = 0

    def put_item(self, **arguments: Any) -> None:
        self.made += 1
        if self.made == 1:
            raise ConnectionError
        self.client.put_item(**arguments)


def test_each_pair_is_noted_once_in_a_process(dynamodb: Any) -> None:
    puts = Puts(dynamodb)
    origins = Origins(puts, TABLES.ledger, clock=lambda: 1_795_334_400.0)

    def payload(agent: str, function: str) -> dict[str, Any]:
        stream = f"2026/11/22/{function}[$LATEST]0a1b"
        return {"logStream": stream, "subscriptionFilters": [f"agentops|test|{agent}|arm64"]}

    with pytest.raises(ConnectionError):
        origins.note(payload("a#b", "one"))
    for _ in range(3):
        origins.note(payload("a#b", "one"))
        origins.note(payload("a#b", "two"))
        origins.note({**payload("a#b", "three"), "subscriptionFilters": ["somebody-else's"]})
    assert puts.made == 3
    found = dynamodb.query(
        TableName=TABLES.ledger,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": "FUNCTION#a%23b"}},
    )
    assert [item["sk"]["S"] for item in found["Items"]] == ["one", "two"]
    assert {int(item["expires_at"]["N"]) for item in found["Items"]} == {1_795_334_400 + 400 * 86_400}


def test_ingest_notes_where_lines_come_from(dynamodb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, table in zip(("MONITORING", "DECISIONS", "LEDGER"), TABLES, strict=True):
        monkeypatch.setenv(f"{name}_TABLE_NAME", table)
    ingest._ingest.cache_clear()
    body = json.dumps(delivered([printed("r", 1_795_334_400_000)]))
    ingest.handler({"awslogs": {"data": base64.b64encode(gzip.compress(body.encode())).decode()}}, None)
    ingest._ingest.cache_clear()
    found = dynamodb.query(
        TableName=TABLES.ledger,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": "FUNCTION#manager"}},
    )
    assert [item["sk"]["S"] for item in found["Items"]] == ["manager"]

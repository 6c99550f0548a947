"""The three tables on moto, under the names of the environment `demo`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from local.report.ledger import tables_of


@pytest.fixture
def dynamodb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        client = boto3.client("dynamodb", region_name="us-east-1")
        for table in tables_of("demo"):
            indexes = [] if table.startswith("agent-ledger") else ["gsi1", "gsi2"]
            names = [f"{index}{part}" for index in ["", *indexes] for part in ("pk", "sk")]
            described: dict[str, Any] = {}
            if indexes:
                described["GlobalSecondaryIndexes"] = [
                    {
                        "IndexName": index,
                        "KeySchema": _keys(index),
                        "Projection": {"ProjectionType": "ALL"},
                    }
                    for index in indexes
                ]
            client.create_table(
                TableName=table,
                KeySchema=_keys(""),  # type: ignore[arg-type]
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
                BillingMode="PAY_PER_REQUEST",
                **described,
            )
        yield client


def _keys(index: str) -> list[dict[str, str]]:
    return [
        {"AttributeName": f"{index}pk", "KeyType": "HASH"},
        {"AttributeName": f"{index}sk", "KeyType": "RANGE"},
    ]

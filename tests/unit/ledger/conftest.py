"""The three tables on moto."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from agentops_monitoring.ledger.schema import Tables

TABLES = Tables("agent-monitoring-test", "agent-decisions-test", "agent-ledger-test")


def create_tables(client: Any) -> None:
    text = [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")]
    keys = [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}]
    for name in TABLES:
        indexes = {}
        attributes = list(text)
        if name != TABLES.ledger:
            for index in ("gsi1", "gsi2"):
                attributes += [
                    {"AttributeName": f"{index}{part}", "AttributeType": "S"} for part in ("pk", "sk")
                ]
            indexes = {
                "GlobalSecondaryIndexes": [
                    {
                        "IndexName": index,
                        "KeySchema": [
                            {"AttributeName": f"{index}pk", "KeyType": "HASH"},
                            {"AttributeName": f"{index}sk", "KeyType": "RANGE"},
                        ],
                        "Projection": {"ProjectionType": "ALL"},
                    }
                    for index in ("gsi1", "gsi2")
                ]
            }
        client.create_table(
            TableName=name,
            KeySchema=keys,
            AttributeDefinitions=attributes,
            BillingMode="PAY_PER_REQUEST",
            **indexes,
        )


@pytest.fixture
def dynamodb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("dynamodb", region_name="us-east-1")
        create_tables(client)
        yield client

"""The three tables, on moto and on the embedded AWS: two opinions of what AWS does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from agentops_monitoring.ledger.schema import Tables
from tests.integration.conftest import ACCOUNT, REGION, running_aws
from tests.unit.ledger.fake_dynamodb import FakeDynamoDB

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


@pytest.fixture(scope="session")
def embedded_aws() -> Iterator[str]:
    """Start an embedded AWS and give its URL."""
    with running_aws() as (_, url):
        yield url


@pytest.fixture(
    params=["moto", pytest.param("embedded", marks=pytest.mark.xdist_group("embedded_aws"))],
)
def dynamodb(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a client of DynamoDB with the tables; any other client of AWS reaches the same place.

    On request it is a fake, which takes a fraction of the time and is no opinion on what AWS does.
    """
    if request.param == "fake":
        yield FakeDynamoDB()
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCOUNT)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    if request.param == "moto":
        with mock_aws():
            client = boto3.client("dynamodb")
            create_tables(client)
            yield client
        return
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("embedded_aws"))
    client = boto3.client("dynamodb")
    create_tables(client)
    yield client
    for name in TABLES:
        client.delete_table(TableName=name)

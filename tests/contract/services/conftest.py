"""Each probe runs in the embedded AWS (or the account of ``--against-aws``), and in moto as a second opinion.

Where one of them does otherwise than AWS, the corpus says so and the probe has to fail there: the day that it
passes, the entry in the corpus has to go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from tests.contract.cloud import Cloud
from tests.contract.services.probes import FOLDER, facts
from tests.integration.conftest import REGION

# The embedded AWS has to answer; moto may fail in its own ways.
FAILURES: dict[str, tuple[type[Exception], ...]] = {
    "local": (AssertionError, ClientError, KeyError),
    "moto": (Exception,),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each probe wherever it can run."""
    if "service" in metafunc.fixturenames:
        real = metafunc.config.getoption("--against-aws", default=None)
        metafunc.parametrize("service", ["aws"] if real else ["local", "moto"], indirect=True, scope="module")


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Expect the deviations that the corpus knows."""
    for item in items:
        if item.path.parent != FOLDER or not isinstance(item, pytest.Function):
            continue
        where = str(item.callspec.params.get("service", "")) if hasattr(item, "callspec") else ""
        fact = facts(item.path.stem).get(item.originalname) if where else None
        if fact and (why := fact.deviates.get(where)):
            item.add_marker(pytest.mark.xfail(reason=why, strict=True, raises=FAILURES[where]))


@pytest.fixture(scope="module")
def service(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """Give one of the clouds."""
    if request.param != "moto":
        yield request.getfixturevalue("cloud")
        return
    with mock_aws():
        yield Cloud("123456789012", REGION)


@pytest.fixture(scope="module")
def table(service: Cloud) -> str:
    """Give a table with a stream, and with an index by ``gsi1pk`` and ``gsi1sk``."""
    client, name = service.client("dynamodb"), service.name("table")

    def keys(prefix: str = "") -> list[dict[str, str]]:
        kinds = (("pk", "HASH"), ("sk", "RANGE"))
        return [{"AttributeName": f"{prefix}{key}", "KeyType": kind} for key, kind in kinds]

    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=keys(),
        AttributeDefinitions=[
            {"AttributeName": each, "AttributeType": "S"} for each in ("pk", "sk", "gsi1pk", "gsi1sk")
        ],
        GlobalSecondaryIndexes=[
            {"IndexName": "gsi1", "KeySchema": keys("gsi1"), "Projection": {"ProjectionType": "ALL"}}
        ],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    service.made(f"table {name}", lambda: client.delete_table(TableName=name))
    service.until(lambda: client.describe_table(TableName=name)["Table"]["TableStatus"] == "ACTIVE")
    return name

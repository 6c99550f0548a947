"""What `make deploy` and `make destroy` do to an account, and the way back from it, on the embedded AWS."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from .conftest import ACCOUNT, REGION, cli_variables, run_command, running_aws

pytestmark = pytest.mark.xdist_group("redeploy")

# One that MiniStack's Bedrock lists, so that the check of access to the model has something to find.
MODEL = "anthropic.claude-3-haiku-20240307-v1:0"
TABLES = {"agent-monitoring", "agent-decisions", "agent-ledger"}
Run = Callable[..., str]


@pytest.fixture(scope="module")
def account() -> Iterator[str]:
    """Start an account of its own and return its endpoint."""
    with running_aws() as (_, url):
        yield url


@pytest.fixture(scope="module")
def run(account: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that runs a command as the Makefile does, and returns what it printed."""
    variables = cli_variables(account, tmp_path_factory.mktemp("cdk"))

    def command(*words: str) -> str:
        return run_command(words, variables)

    return command


def deploy_tool(run: Run, command: str, *arguments: str) -> str:
    """Run `tools/deploy.py` for production."""
    context = ("-c", "environment=production", "-c", f"model_id={MODEL}")
    return run(sys.executable, "tools/deploy.py", command, *context, *arguments)


def tables(account: str) -> set[str]:
    """Return the account's tables."""
    return set(client(account, "dynamodb").list_tables()["TableNames"])


def client(account: str, service: str) -> Any:
    """Return a client of the account."""
    return boto3.client(service, endpoint_url=account, region_name=REGION)  # type: ignore[call-overload]


@pytest.mark.usefixtures("only_at_full_size")
def test_production_is_deployed_destroyed_and_deployed_again(account: str, run: Run) -> None:
    cdk = ("node", "node_modules/aws-cdk/bin/cdk")
    run(*cdk, "bootstrap", f"aws://{ACCOUNT}/{REGION}")

    bedrock = client(account, "bedrock")
    offer = bedrock.list_foundation_model_agreement_offers(modelId=MODEL)["offers"][0]
    bedrock.create_foundation_model_agreement(modelId=MODEL, offerToken=offer["offerToken"])

    said = deploy_tool(run, "deploy", "-c", "alert_email=ops@example.com")
    for dashboard in ("AgentOps-Monitoring", "AgentOps-Monitoring-Cost", "AgentOps-Monitoring-Collaboration"):
        assert f"#dashboards:name={dashboard}\n" in said
    assert re.search(r"production: monitoring costs at most \$\d+\.\d\d a month", said)
    assert "ops@example.com" in said
    assert tables(account) >= TABLES

    client(account, "dynamodb").put_item(
        TableName="agent-ledger", Item={"pk": {"S": "kept"}, "sk": {"S": "kept"}}
    )
    said = deploy_tool(run, "destroy", "--yes")
    assert tables(account) >= TABLES, "production keeps its data"
    assert all(table in said for table in TABLES)

    adopt = [line.strip() for line in said.splitlines() if line.strip().startswith("node ")]
    assert adopt, said
    for line in adopt:
        run(*line.split(), "--force")
    deploy_tool(run, "deploy")
    kept = client(account, "dynamodb").get_item(
        TableName="agent-ledger", Key={"pk": {"S": "kept"}, "sk": {"S": "kept"}}
    )
    assert "Item" in kept

"""The demo's deployment: what a person would type with the CDK CLI, against the embedded AWS."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = "demo"
REGION = "us-east-1"
ACCOUNT = "000000000000"
SECRET_NAME = "agentops/demo/api-key"
ALERT_EMAIL = "ops@example.com"


class DeployError(Exception):
    """The CDK CLI failed; the message is its reason and where its log is."""


@cache
def client(service: str) -> Any:
    """Return the boto3 client of a service, made once, on the endpoint that the environment names."""
    config = Config(retries={"max_attempts": 2}, read_timeout=70, max_pool_connections=20)
    return boto3.client(service, config=config)  # type: ignore[call-overload]


class Deployment:
    """The stacks of the environment ``demo``.

    Parameters
    ----------
    out
        The folder for the cloud assembly and the logs.
    daily_budget_usd
        What the cost alarm and the budget go by, USD per UTC day; the month's budget is twice that.
    """

    def __init__(self, out: Path, daily_budget_usd: str) -> None:
        self._out = out
        self._assembly = out / "cdk.out"
        self._context = {
            "environment": ENVIRONMENT,
            "alert_email": ALERT_EMAIL,
            "daily_budget_usd": daily_budget_usd,
            "monthly_budget_usd": str(2 * Decimal(daily_budget_usd)),
            # Enough for any number of workflows: that calls are held to it is what is shown.
            "agent_budget_usd": "100",
            "agentops_api_key_secret": SECRET_NAME,
            "sample_workload": "true",
            "bundle_for": "host",
        }

    def synthesize(self) -> None:
        """Write the cloud assembly; needs no endpoint.

        Raises
        ------
        DeployError
            The app does not synthesize.
        """
        context = [part for name, value in self._context.items() for part in ("-c", f"{name}={value}")]
        self._cdk("synth", "--quiet", "--output", str(self._assembly), *context)

    def deploy(self) -> None:
        """Bootstrap the embedded account and deploy every stack.

        Raises
        ------
        DeployError
            A stack is refused or fails.
        """
        # What a person does once by hand: AgentOps' API keys are UUIDs.
        client("secretsmanager").create_secret(Name=SECRET_NAME, SecretString=str(uuid.uuid4()))
        self._cdk("bootstrap", "--app", str(self._assembly), f"aws://{ACCOUNT}/{REGION}")
        self._cdk(
            "deploy", "--all", "--app", str(self._assembly), "--require-approval", "never",
            "--progress", "events", "--method", "direct", "--concurrency", "4",
            "--outputs-file", str(self._out / "outputs.json"),
        )  # fmt: skip

    def _cdk(self, verb: str, *arguments: str) -> None:
        log = self._out / "logs" / f"{verb}.log"
        cli = [str(ROOT / ".venv/bin/node"), str(ROOT / "node_modules/aws-cdk/bin/cdk")]
        with log.open("w") as output:
            done = subprocess.run(
                [*cli, "--no-version-reporting", "--no-notices", verb, *arguments],
                cwd=ROOT,
                env={**os.environ, **_cli_environment(self._out)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        if done.returncode:
            raise DeployError(f"cdk {verb} failed: {_reason(log)} (log: {log})")


def aws_environment(endpoint: str) -> Mapping[str, str]:
    """Return the variables with which any AWS tool talks to the embedded AWS."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ACCESS_KEY_ID": ACCOUNT,  # the account's root; functions have their roles
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
    }


def _cli_environment(out: Path) -> Mapping[str, str]:
    return {
        "PATH": f"{ROOT / '.venv/bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        "CDK_DEFAULT_ACCOUNT": ACCOUNT,
        "CDK_DEFAULT_REGION": REGION,
        # The CLI caches accounts by access key here: never in the user's own home.
        "CDK_HOME": str(out / "cdk-home"),
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
        "CI": "true",
        # `make test` runs CDK's validator over these stacks; here it would add three seconds to each run.
        "CDK_VALIDATION": "false",
    }


def _reason(log: Path) -> str:
    lines = [line.strip() for line in log.read_text().splitlines() if line.strip()]
    telling = [line for line in lines if "❌" in line or "rror" in line]
    return (telling or lines or ["no output"])[0][:300]

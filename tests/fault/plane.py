"""The deployed plane under faults: its functions, lines to feed it with, and what it was given."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from local.processes import Services
from tests.fault.conftest import FaultyAws
from tests.integration.conftest import ACCOUNT, PYTHON, REGION, cli_variables, run_command
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.streams import LogEvent

ENVIRONMENT = "test"  # TABLES has its tables, and the random streams its filters
INGEST, EXPORT = f"agentops-ingest-{ENVIRONMENT}", f"agentops-export-{ENVIRONMENT}"
MODEL_LOG, AGENTOPS_LOG = "model.jsonl", "agentops.jsonl"
SECRET = "agentops/test/api-key"  # its name


class Plane(FaultyAws):
    """The real stacks on an embedded AWS.

    Parameters
    ----------
    services
        What runs the processes.
    out
        A folder for the assembly and for what the model and AgentOps record.
    """

    def __init__(self, services: Services, out: Path) -> None:
        self.out = out
        command = [str(PYTHON), "-m", "local.aws", "--port", "0", "--retry-seconds", "0.05"]
        for name, module, record, wanted in (
            ("model", "local.model_server", MODEL_LOG, "--model-url {}"),
            (
                "agentops",
                "local.fake_agentops",
                AGENTOPS_LOG,
                "--function-env AGENTOPS_API_ENDPOINT={0} "
                "--function-env AGENTOPS_EXPORTER_ENDPOINT={0}/v1/traces",
            ),
        ):
            server = [sys.executable, "-m", module, "--port", "0", "--record", str(out / record)]
            url = services.start(name, server, ready="http://")
            command += wanted.format(url).split()
        super().__init__(services.start("aws", command, ready="ready"))
        self.client("secretsmanager").create_secret(
            Name=SECRET, SecretString="0b1bd5a6-1111-4222-8333-444455556666"
        )
        self._deploy()
        self.dead_letters = self.client("sqs").get_queue_url(
            QueueName=f"agentops-dead-letters-{ENVIRONMENT}"
        )["QueueUrl"]
        self._groups: dict[str, str] = {}

    def _deploy(self) -> None:
        context = {
            "environment": ENVIRONMENT,
            "alert_email": "ops@example.com",
            "agentops_api_key_secret": SECRET,
            "sample_workload": "true",
            "bundle_for": "host",
        }
        variables = {
            **cli_variables(self.url, self.out / "cdk-home"),
            "AWS_ACCESS_KEY_ID": ACCOUNT,
            "AWS_SECRET_ACCESS_KEY": "local",
        }
        cdk = ("node", "node_modules/aws-cdk/bin/cdk")
        assembly = str(self.out / "cdk.out")
        run_command(
            [*cdk, "synth", "--quiet", "--output", assembly]
            + [part for name, value in context.items() for part in ("-c", f"{name}={value}")],
            variables,
        )
        run_command([*cdk, "bootstrap", "--app", assembly, f"aws://{ACCOUNT}/{REGION}"], variables)
        began = time.monotonic()
        run_command(
            [*cdk, "deploy", "--all", "--app", assembly, "--method", "direct", "--concurrency", "4"],
            variables,
        )
        self.deploy_seconds = time.monotonic() - began

    def feed(self, events: Iterable[LogEvent], *, chunks: int = 4) -> None:
        """Write lines into log groups that ingest subscribes to, each stream in so many deliveries."""
        logs = self.client("logs")
        streams: dict[tuple[str, str], list[LogEvent]] = {}
        for event in events:
            streams.setdefault((event.filter_name, event.stream), []).append(event)
        for filter_name, stream in streams:
            if filter_name not in self._groups:
                self._groups[filter_name] = group = f"/fed/{self.name('group')}"
                logs.create_log_group(logGroupName=group)
                logs.put_subscription_filter(
                    logGroupName=group,
                    filterName=filter_name,
                    filterPattern="",
                    destinationArn=self.arn(INGEST),
                )
            with suppress(logs.exceptions.ResourceAlreadyExistsException):
                logs.create_log_stream(logGroupName=self._groups[filter_name], logStreamName=stream)
        for chunk in range(chunks):
            for (filter_name, stream), found in streams.items():
                some = found[len(found) * chunk // chunks : len(found) * (chunk + 1) // chunks]
                if some:
                    logs.put_log_events(
                        logGroupName=self._groups[filter_name],
                        logStreamName=stream,
                        logEvents=[{"timestamp": one.timestamp, "message": one.message} for one in some],
                    )
            time.sleep(0.15)  # longer than lines gather for one delivery

    def groups(self) -> list[str]:
        """Return those log groups."""
        return list(self._groups.values())

    def fed(self) -> list[LogEvent]:
        """Return every line that is in those groups."""
        pages = self.client("logs").get_paginator("filter_log_events")
        return [
            LogEvent(one["logStreamName"], filter_name, one["eventId"], one["timestamp"], one["message"])
            for filter_name, group in self._groups.items()
            for one in pages.paginate(logGroupName=group).build_full_result()["events"]
        ]

    def letters(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Take the dead letters: events that Lambda gave up on, and lines that ingest could not take."""
        bodies = self.bodies(self.dead_letters)
        self.client("sqs").purge_queue(QueueUrl=self.dead_letters)  # what is taken comes back otherwise
        given_up = [body["requestPayload"] for body in bodies if "requestPayload" in body]
        return given_up, [line for body in bodies for line in body.get("logEvents", ())]

    def empty(self) -> None:
        """Forget everything that was written."""
        self.order()
        self.settle(60)
        for group in self._groups.values():
            self.client("logs").delete_log_group(logGroupName=group)
        self._groups.clear()
        self.letters()
        dynamodb = self.client("dynamodb")
        for table in TABLES:
            for page in dynamodb.get_paginator("scan").paginate(TableName=table):
                for item in page["Items"]:
                    dynamodb.delete_item(TableName=table, Key={name: item[name] for name in ("pk", "sk")})

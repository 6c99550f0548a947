"""Where the parts of a plane are: by its SSM parameters, or by the environment variables of a process."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

from agentops_monitoring import settings
from agentops_monitoring.ledger import schema


class NoPlane(RuntimeError):
    """A part of the plane was not found; the text says which, and where it was looked for."""


class Plane:
    """The plane of one environment, in the account and region of the caller's credentials.

    Parameters
    ----------
    environment
        Its name; `ENVIRONMENT`, else `production`, when left out.
    """

    def __init__(self, environment: str | None = None) -> None:
        self.environment = environment or settings.load().environment
        self._named = environment is not None
        self._found: dict[str, str] = {}

    def parameter(self, name: str) -> str:
        """Return the value of `/agentops/<environment>/<name>`.

        Raises
        ------
        NoPlane
            There is no such parameter.
        """
        if name not in self._found:
            path = f"/agentops/{self.environment}/{name}"
            answer = client("ssm").get_parameters(Names=[path])
            if not answer["Parameters"]:
                raise NoPlane(
                    f"there is no parameter {path} in this account and region: "
                    "name the plane's environment with --environment"
                )
            self._found[name] = answer["Parameters"][0]["Value"]
        return self._found[name]

    @cached_property
    def tables(self) -> schema.Tables:
        """The three tables: as the environment variables name them, unless an environment was asked for."""
        if not self._named and os.environ.get("LEDGER_TABLE_NAME"):
            return schema.Tables.from_environment()
        return schema.Tables(
            *(self.parameter(f"{each}-table-name") for each in ("monitoring", "decisions", "ledger"))
        )

    @property
    def ingest(self) -> str:
        """The ARN of the function that writes to the ledger."""
        return self.parameter("ingest-function-arn")

    def queue_url(self, name: str = "") -> str:
        """Return the URL of a queue; the plane's dead letters when no name is given.

        Raises
        ------
        NoPlane
            There is no such queue.
        """
        name = name or self.parameter("dead-letter-queue-name")
        if name.startswith("https://") or name.startswith("http://"):
            return name
        sqs = client("sqs")
        try:
            return str(sqs.get_queue_url(QueueName=name.rpartition(":")[2])["QueueUrl"])
        except sqs.exceptions.QueueDoesNotExist:
            raise NoPlane(f"there is no queue {name} in this account and region") from None


def client(service: str, **config: Any) -> Any:
    """Return a client that gives a busy service time."""
    import boto3
    from botocore.config import Config

    retries: Any = {"mode": "standard", "total_max_attempts": 6}
    return boto3.client(service, config=Config(retries=retries, connect_timeout=5, **config))  # type: ignore[call-overload]

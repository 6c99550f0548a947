"""One way to reach AWS for the probes of the contract: the embedded AWS, or a real account."""

from __future__ import annotations

import io
import itertools
import json
import secrets
import time
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from local.report.recount import messages

PREFIX = "agentops-contract-"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "lambda.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}
# What AWS answers while a new role is not yet known everywhere (IAM is eventually consistent).
NOT_YET = ("cannot be assumed", "Role is not authorized", "does not have permissions to call")
# What it answers while something is in use, or changing, or it is asked too often.
IN_USE = ("InUse", "Conflict", "Aborted", "Throttl", "TooManyRequests", "LimitExceeded")
GONE = ("NotFound", "NoSuch", "NonExistent")


class Cloud:
    """Makes what a probe needs, under names that nobody else has, and removes it in the end.

    Parameters
    ----------
    account
        The 12 digits of the account; the caller's identity has to be of it.
    region
        Where everything is made; of the partition ``aws``.
    endpoint
        The URL of an embedded AWS. Without one, clients reach AWS, and any other endpoint is refused.
    credentials
        Keyword arguments of a boto3 client; none take those of the environment.
    real
        Whether delays are those of AWS (roles that spread, logs that arrive later, retries after minutes).
    say
        Is told what is made and what is removed.

    Raises
    ------
    RuntimeError
        When the credentials are another account's, or a client would not reach AWS.
    """

    def __init__(
        self,
        account: str,
        region: str,
        *,
        endpoint: str | None = None,
        credentials: Mapping[str, str] | None = None,
        real: bool = False,
        say: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.account, self.region, self.real = account, region, real
        self._say = say
        self._endpoint, self._credentials = endpoint, dict(credentials or {})
        self._run = f"{PREFIX}{secrets.token_hex(4)}"
        self._serial = itertools.count()
        self._made: list[tuple[str, Callable[[], object]]] = []
        found = self.client("sts").get_caller_identity()["Account"]
        if found != account:
            raise RuntimeError(f"the credentials are of account {found}, not of {account}")

    @cache  # noqa: B019 - one object a session
    def client(self, service: str, attempts: int = 1) -> Any:
        """Return a client that does not retry, so that probes see every answer."""
        settings = Config(
            retries={"total_max_attempts": attempts, "mode": "standard"}, max_pool_connections=32
        )
        found: Any = boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self._endpoint,
            region_name=self.region,
            config=settings,
            **self._credentials,
        )
        scheme, _, rest = found.meta.endpoint_url.partition("://")
        host = rest.partition("/")[0]
        if self._endpoint is None and not (scheme == "https" and host.endswith(".amazonaws.com")):
            raise RuntimeError(f"{service}: {found.meta.endpoint_url} is not an endpoint of AWS")
        return found

    def name(self, prefix: str) -> str:
        """Return a name that nothing else has; it holds lower-case letters, digits and hyphens."""
        return f"{self._run}-{prefix}-{next(self._serial)}"

    def made(self, what: str, undo: Callable[[], object]) -> None:
        """Note what is made, best before it is, and how it is removed; the last is the first removed."""
        self._made.append((what, undo))
        self._say(f"made {what}")

    def clean_up(self) -> list[str]:
        """Remove everything that was made, and return what could not be."""
        left = []
        while self._made:
            what, undo = self._made[-1]
            try:
                self.until(lambda undo=undo: _gone(undo), 60)  # type: ignore[misc]
                self._say(f"removed {what}")
            except Exception as error:  # noqa: BLE001 - the rest is removed all the same
                left.append(f"{what}: {error}")
            self._made.pop()  # not before: an interruption leaves it to the next call
        return left

    def until(self, test: Callable[[], Any], seconds: float = 20.0) -> Any:
        """Wait for something to become true, and return it; on AWS ten times as long."""
        end = time.monotonic() + seconds * (10 if self.real else 1)
        while not (found := test()):
            assert time.monotonic() < end, f"not within {seconds} s"
            time.sleep(1 if self.real else 0.02)
        return found

    def log_group(self, name: str = "") -> str:
        """Create a log group that keeps a day, and return its name."""
        logs, name = self._client("logs"), name or self.name("log")
        self.made(f"log group {name}", lambda: logs.delete_log_group(logGroupName=name))
        logs.create_log_group(logGroupName=name)
        logs.put_retention_policy(logGroupName=name, retentionInDays=1)
        return name

    @cache  # noqa: B019 - one object a session
    def role(self, *statements: str) -> str:
        """Create a role for functions and return its ARN.

        It may write the logs of all functions made here, and what the statements, JSON, allow besides.
        """
        # Not CreateLogGroup: lines that come late do not make the group anew behind the clean-up.
        groups = f"arn:aws:logs:{self.region}:{self.account}:log-group:/aws/lambda/{self._run}-*"
        writing = ["logs:CreateLogStream", "logs:PutLogEvents"]
        allowed = [{"Effect": "Allow", "Action": writing, "Resource": groups}, *map(json.loads, statements)]
        iam, name = self._client("iam"), self.name("role")
        self.made(f"role {name}", lambda: iam.delete_role(RoleName=name))
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
        policy = {"RoleName": name, "PolicyName": "contract"}
        self.made(f"policy of {name}", lambda: iam.delete_role_policy(**policy))
        document = json.dumps({"Version": "2012-10-17", "Statement": allowed})
        iam.put_role_policy(**policy, PolicyDocument=document)
        return str(arn)

    def function(self, source: str, *statements: Mapping[str, Any], **settings: Any) -> str:
        """Create a function from the source of its module ``app``, with its log group and role.

        Parameters
        ----------
        source
            The text of ``app.py``; its ``handler`` is invoked.
        statements
            What its role may do besides writing its log.
        settings
            Of ``CreateFunction``.

        Returns
        -------
        str
            The function's name.
        """
        client, name = self._client("lambda"), self.name("fn")
        self.log_group(f"/aws/lambda/{name}")
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as content:
            entry = zipfile.ZipInfo("app.py")
            entry.external_attr = 0o644 << 16  # AWS keeps the mode: without one the module can't be read
            content.writestr(entry, source)
        request = {
            "FunctionName": name,
            "Runtime": "python3.12",
            "Handler": "app.handler",
            "Code": {"ZipFile": archive.getvalue()},
            "Role": self.role(*map(json.dumps, statements)),
            **{"Timeout": 5, "MemorySize": 256, **settings},
        }
        self.made(f"function {name}", lambda: client.delete_function(FunctionName=name))
        self.until(lambda: _created(lambda: client.create_function(**request)))
        self.until(lambda: client.get_function(FunctionName=name)["Configuration"]["State"] == "Active")
        return name

    def invoke(self, function: str, event: Any = None, kind: str = "RequestResponse") -> dict[str, Any]:
        """Invoke a function and return the answer, its payload read as JSON."""
        answer: dict[str, Any] = self.client("lambda").invoke(
            FunctionName=function, InvocationType=kind, Payload=json.dumps(event), LogType="None"
        )
        return answer | {"Payload": json.loads(answer["Payload"].read() or b"null")}

    def log(self, group: str) -> list[tuple[str, str]]:
        """Return what a log group holds, (stream, message) in the order of each stream."""
        return [(one.stream, one.message) for one in messages(self._client("logs"), group)]

    def table(self, **settings: Any) -> str:
        """Create an on-demand table with the keys ``pk`` and ``sk``, both text, and return its name."""
        client, name = self._client("dynamodb"), self.name("table")
        self.made(f"table {name}", lambda: client.delete_table(TableName=name))
        client.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in ("pk", "sk")],
            **settings,
        )
        self.until(lambda: client.describe_table(TableName=name)["Table"]["TableStatus"] == "ACTIVE")
        return name

    def queue(self, **attributes: str) -> str:
        """Create a queue and return its URL."""
        client, name = self._client("sqs"), self.name("queue")

        def delete() -> None:
            client.delete_queue(QueueUrl=client.get_queue_url(QueueName=name)["QueueUrl"])

        self.made(f"queue {name}", delete)
        return str(client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"])

    def _client(self, service: str) -> Any:
        """Return a client for what is no probe: it retries what AWS refuses for the moment."""
        return self.client(service, 8)


def _created(create: Callable[[], object]) -> bool:
    try:
        create()
    except ClientError as error:
        if any(text in str(error) for text in NOT_YET):
            return False
        raise
    return True


def _gone(undo: Callable[[], object]) -> bool:
    """Remove something; what is in use yet is tried again, what is gone already is fine."""
    try:
        undo()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if any(word in code for word in IN_USE):
            return False
        if not any(word in code for word in GONE):
            raise
    return True

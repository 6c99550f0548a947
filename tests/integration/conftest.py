"""The embedded AWS, started once a session, for the tests that run against it."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from local.report.recount import messages

if TYPE_CHECKING:
    from aws_cdk import App, Stack

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-local" / "bin" / "python"
ACCOUNT = "000000000000"
REGION = "us-east-1"
RELAY = """
import boto3, json, os
def handler(event, context):
    if event.get("fail") or os.environ.get("FAIL"): raise RuntimeError("told to")
    boto3.client("sqs").send_message(QueueUrl=os.environ["QUEUE"], MessageBody=json.dumps(event))
"""
_names = itertools.count()


def start_embedded_aws(
    *arguments: str, errors: IO[str] | None = None, **variables: str
) -> tuple[subprocess.Popen[str], str]:
    """Start a process of its own, with a file for its errors, and return it with its URL once it is ready."""
    command = [str(PYTHON), "-m", "local.aws", "--port", "0", *arguments]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("ready "), f"the embedded AWS did not start: {line!r}"
    return process, line.split()[1]


@contextmanager
def running_aws(
    *arguments: str, errors: IO[str] | None = None, **variables: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a process of its own, give it with its URL, and see that it ends clean."""
    process, url = start_embedded_aws(*arguments, errors=errors, **variables)
    try:
        yield process, url
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def cli_variables(url: str, home: Path) -> dict[str, str]:
    """Return the variables under which the CDK CLI takes the embedded AWS for an account of its own."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_REGION": REGION,
        "CDK_HOME": str(home),
        "CDK_DEFAULT_ACCOUNT": ACCOUNT,
        "CDK_DEFAULT_REGION": REGION,
        "CDK_REQUIRE_APPROVAL": "never",
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "CI": "true",
    }


def run_command(words: Sequence[str], variables: Mapping[str, str]) -> str:
    """Run a command in the repository under more variables, and return what it printed; it has to succeed."""
    done = subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


class EmbeddedAws:
    """A running embedded AWS, and the few things that most tests do with it."""

    def __init__(self, url: str) -> None:
        self.url = url

    @cache  # noqa: B019 - one object a session
    def client(self, service: str) -> Any:
        """Return a client that does not retry, so that tests see every answer."""
        return self.connect(service, Config(retries={"total_max_attempts": 1}, max_pool_connections=64))

    def connect(self, service: str, config: Config) -> Any:
        """Return a client of the account's root with a configuration of its own."""
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ACCOUNT,
            aws_secret_access_key="local",
            config=config,
        )

    def name(self, prefix: str) -> str:
        """Return a name that no other test has."""
        return f"{prefix}-{os.getpid()}-{next(_names)}"

    def function(self, source: str, **settings: Any) -> str:
        """Create a function from the source of its module, and return its name."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as content:
            content.writestr("app.py", source)
        name = self.name("function")
        self.client("lambda").create_function(
            FunctionName=name,
            Runtime="python3.12",
            Handler="app.handler",
            Code={"ZipFile": archive.getvalue()},
            **{"Timeout": 5, "MemorySize": 256, "Role": self.role(), **settings},
        )
        for service in ("events", "logs", "sns"):
            self.client("lambda").add_permission(
                FunctionName=name,
                StatementId=service,
                Action="lambda:InvokeFunction",
                Principal=f"{service}.amazonaws.com",
            )
        return name

    @cache  # noqa: B019 - one object a session
    def role(self, *statements: str) -> str:
        """Create a function role of JSON statements and return its ARN; without any it may do anything."""
        iam, name = self.client("iam"), self.name("role")
        trust = {
            "Effect": "Allow",
            "Principal": {"Service": "lambda.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
        allowed = [json.loads(one) for one in statements] or [
            {"Effect": "Allow", "Action": "*", "Resource": "*"}
        ]
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps({"Statement": allowed}))
        return f"arn:aws:iam::{ACCOUNT}:role/{name}"

    def arn(self, function: str) -> str:
        """Return a function's ARN."""
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{function}"

    def invoke(self, function: str, event: Any = None, kind: str = "RequestResponse") -> tuple[Any, bool]:
        """Invoke and return the answer, and whether it is an error."""
        answer = self.client("lambda").invoke(
            FunctionName=function, InvocationType=kind, Payload=json.dumps(event)
        )
        body = answer["Payload"].read()
        return json.loads(body or b"null"), "FunctionError" in answer

    def stream_table(self, view: str = "NEW_IMAGE") -> tuple[str, str]:
        """Create a table whose stream shows items so; return its name and the stream's ARN."""
        name = self.name("table")
        made = self.client("dynamodb").create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": view},
        )
        return name, made["TableDescription"]["LatestStreamArn"]

    def queue(self) -> tuple[str, str]:
        """Create a queue that takes EventBridge's messages; return its URL and ARN."""
        name = self.name("queue")
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"
        events = {
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": arn,
        }
        policy = json.dumps({"Statement": [{"Effect": "Allow", **events}]})
        return self.client("sqs").create_queue(QueueName=name, Attributes={"Policy": policy})["QueueUrl"], arn

    def relay(self, source: str = RELAY, **settings: Any) -> tuple[str, str]:
        """Create a function that passes its events to a queue; return its name and the queue's URL."""
        url, _ = self.queue()
        variables = {"QUEUE": url, **settings.pop("variables", {})}
        return self.function(source, Environment={"Variables": variables}, **settings), url

    def bodies(self, url: str) -> list[Any]:
        """Take what a queue holds, each body read as JSON."""
        return [json.loads(message["Body"]) for message in self.messages(url)]

    def messages(self, url: str) -> list[dict[str, Any]]:
        """Take the messages that a queue holds."""
        found: list[dict[str, Any]] = []
        while True:
            taken = self.client("sqs").receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
            )
            found += taken.get("Messages", [])
            if not taken.get("Messages"):
                return found

    def log(self, function: str) -> list[tuple[str, str]]:
        """Return a function's log, (stream, message) in the order of each stream."""
        lines = messages(self.client("logs"), f"/aws/lambda/{function}")
        return [(one.stream, one.message) for one in lines]

    def local(self, path: str, body: Any = None) -> Any:
        """Ask one of the pages under /_local."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.url}/_local/{path}", data=data) as answer:
            return json.load(answer)

    def settle(self, seconds: float = 20.0) -> None:
        """Wait until nothing is under way."""
        self.until(lambda: self.local("idle")["pending"] == 0, seconds)

    def until(self, test: Callable[[], object], seconds: float = 10.0) -> Any:
        """Wait for something to become true, and return it."""
        end = time.monotonic() + seconds
        while not (found := test()):
            assert time.monotonic() < end, f"not within {seconds} s"
            time.sleep(0.02)
        return found


@contextmanager
def deployed(
    build: Callable[[App, Path], Stack], source: str, folder: Path
) -> Iterator[tuple[str, dict[str, str]]]:
    """Deploy a stack to an embedded AWS of its own by the CDK's CLI; give its URL and the CLI's variables.

    Parameters
    ----------
    build
        Makes the stack in an app, of the folder with the code of its functions.
    source
        The code: a module `index`.
    folder
        For all files.
    """
    from aws_cdk import App

    (folder / "code").mkdir()
    (folder / "code" / "index.py").write_text(source)
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    app = App(outdir=str(folder / "cdk.out"), context=context, analytics_reporting=False)
    stack = build(app, folder / "code").stack_name
    app.synth()
    keys = {"AWS_ACCESS_KEY_ID": ACCOUNT, "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": REGION}
    cdk = [str(ROOT / ".venv/bin/node"), "node_modules/aws-cdk/bin/cdk", "--app", app.outdir]
    with running_aws("--retry-seconds", "0.05") as (_, url):
        variables = cli_variables(url, folder / "home") | keys
        run_command([*cdk, "bootstrap", f"aws://{ACCOUNT}/{REGION}"], variables)
        run_command([*cdk, "deploy", stack, "--method", "direct"], variables)
        yield url, variables


@pytest.fixture(scope="session")
def aws() -> Iterator[EmbeddedAws]:
    """Give the session's embedded AWS."""
    with running_aws("--retry-seconds", "0.05", "--function-env", "GIVEN=by the driver") as (_, url):
        yield EmbeddedAws(url)

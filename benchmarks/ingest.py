"""The ingest function's CPU against an endpoint that answers at once, beside a writer that is naive.

Both run in one process, over the same deliveries, on botocore as Lambda has it, signatures included; only
the network is left out. CPU is that of the process, so what else the machine does costs nothing.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from benchmarks.workload import deliveries

EVENTS_A_SECOND, CALLS_A_THOUSAND = 5_000, 20
"""What we promise: at least, and at most."""
_ROUNDS = 3
"""At least: other processes disturb each other's CPU, too."""


class Figure(NamedTuple):
    """What a writer needs."""

    who: str
    events_a_second: float
    """A second of CPU of one core."""
    calls_a_thousand: float
    """API calls for 1,000 events."""
    note: str


class Endpoint:
    """Stands in for DynamoDB behind botocore: takes every request, and has no items."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.bodies: list[tuple[str, bytes]] | None = None
        """Operations and bodies of the requests; kept when it is a list."""

    def attach(self) -> None:
        """Answer the requests of all clients that boto3 makes from here on."""
        import boto3

        session = boto3.Session("bench", "bench", region_name="us-east-1")
        # https://docs.aws.amazon.com/boto3/latest/guide/events.html
        session.events.register("before-send", self._answer)
        boto3.DEFAULT_SESSION = session

    def _answer(self, request: Any, **_: Any) -> Any:
        from botocore.awsrequest import AWSResponse
        from botocore.compat import HTTPHeaders

        operation = request.headers["X-Amz-Target"]
        operation = (operation.decode() if isinstance(operation, bytes) else operation).partition(".")[2]
        self.calls[operation] += 1
        if self.bodies is not None:
            body = request.body
            self.bodies.append((operation, body if isinstance(body, bytes) else body.encode()))
        answer = _ANSWERS.get(operation, b"{}")
        headers = HTTPHeaders.from_dict({"content-type": "application/x-amz-json-1.0"})
        return AWSResponse(request.url, 200, headers, _Body(answer))


_ANSWERS = {"BatchGetItem": b'{"Responses":{}}', "Query": b'{"Items":[],"Count":0,"ScannedCount":0}'}


class _Body(io.BytesIO):
    def stream(self, **_: Any) -> Any:
        yield self.read()


Writer = Callable[[Mapping[str, Any]], object]
"""Takes what Lambda hands to the function."""


def ours() -> Writer:
    """Return the function itself."""
    from agentops_monitoring.functions import ingest

    os.environ["AWS_LAMBDA_FUNCTION_NAME"] = "agentops-ingest-production"
    ingest._ingest.cache_clear()
    return lambda event: ingest.handler(event, None)


def naive() -> Writer:
    """Return a writer of one PutItem and one UpdateItem an event: nothing is exact, nothing idempotent."""
    import boto3

    client = boto3.client("dynamodb")

    def write(invocation: Mapping[str, Any]) -> None:
        payload = json.loads(gzip.decompress(base64.b64decode(invocation["awslogs"]["data"])))
        for log_event in payload["logEvents"]:
            event = json.loads(log_event["message"]).get("agentops.event")
            if event is None:
                continue
            client.put_item(
                TableName="agent-monitoring",
                Item={
                    "pk": {"S": event["workflow_id"]},
                    "sk": {"S": f"{event['at']}#{event['id']}"},
                    "type": {"S": event["type"]},
                    "agent": {"S": event["agent"]},
                    "data": {"S": json.dumps(event["data"])},
                },
            )
            client.update_item(
                TableName="agent-ledger",
                Key={"pk": {"S": f"H#{event['at'][:13]}"}, "sk": {"S": f"AGENT#{event['agent']}"}},
                UpdateExpression="ADD #n :one, tokens :tokens",
                ExpressionAttributeNames={"#n": event["type"]},
                ExpressionAttributeValues={
                    ":one": {"N": "1"},
                    ":tokens": {"N": str(event["data"].get("gen_ai.usage.input_tokens", 0))},
                },
            )

    return write


def measure(seconds: float, *, streams: int = 4) -> list[Figure]:
    """Measure both writers over the same deliveries, in rounds that take turns; the best round counts."""
    batches = deliveries(streams)
    events, invocations = sum(each.events for each in batches), [each.event for each in batches]
    ready = []
    for figure in (
        ("agentops_monitoring", ours, "the whole function"),
        ("naive", naive, "PutItem + UpdateItem"),
    ):
        who, prepare, note = figure
        endpoint = Endpoint()
        endpoint.attach()
        write = prepare()
        _cpu(write, invocations[:1])  # loads what is loaded once
        ready.append((who, endpoint, write, note))
    best: dict[str, Figure] = {}
    rounds = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end or rounds < _ROUNDS:
        rounds += 1
        for who, endpoint, write, note in ready:
            endpoint.calls.clear()
            rate = events / _cpu(write, invocations)
            if who not in best or rate > best[who].events_a_second:
                best[who] = Figure(who, rate, endpoint.calls.total() / events * 1000, note)
    return list(best.values())


def _cpu(write: Writer, invocations: Iterable[Mapping[str, Any]]) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        before = time.process_time()
        for each in invocations:
            write(each)
        return time.process_time() - before


def main() -> None:
    """Print the figures as JSON; runs in an interpreter of its own."""
    import sys

    print(json.dumps([each._asdict() for each in measure(float(sys.argv[1]))]))


if __name__ == "__main__":
    main()

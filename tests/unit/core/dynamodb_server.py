"""DynamoDB on loopback, and a parameter store beside it: boto3 talks to them, and they fail to order."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import botocore.session
from botocore import xform_name
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

from tests.unit.ledger.fake_dynamodb import FakeDynamoDB

_SERVICES = {"DynamoDB_20120810": "dynamodb", "AmazonSSM": "ssm"}
HANG = "hang"
"""The fault of a server that takes a request and never answers."""

Fault = tuple[int, str] | str | None
"""Status and error code, `HANG`, or none."""


class DynamoDbServer:
    """Tables in memory, behind HTTP."""

    def __init__(self) -> None:
        self.tables = FakeDynamoDB()
        self.parameters: dict[str, str] = {}
        self.url = ""
        self.fault: Callable[[str], Fault] = lambda operation: None
        self.requests: list[str] = []
        """Operations asked for, failed ones included."""
        self.wrong: list[str] = []
        """What no client of DynamoDB may send."""
        self.closing = threading.Event()

    def answer(self, headers: Any, raw: bytes) -> tuple[int, Any] | None:
        target, _, operation = str(headers.get("X-Amz-Target", "")).partition(".")
        body = json.loads(raw)
        self.requests.append(operation)
        if not headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256 "):
            self.wrong.append(f"{operation} is not signed")
        report = ParamValidator().validate(_from_wire(body), _input_shape(_SERVICES[target], operation))
        if report.has_errors():
            self.wrong.append(report.generate_report())
        fault = self.fault(operation)
        if fault == HANG:
            self.closing.wait()
            return None
        if isinstance(fault, tuple):
            status, code = fault
            return status, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "to order"}
        if target == "AmazonSSM":
            return 200, {"Parameter": {"Name": body["Name"], "Value": self.parameters[body["Name"]]}}
        try:
            found = getattr(self.tables, xform_name(operation))(**_from_wire(body))
        except ClientError as error:
            told = error.response
            return 400, {
                "__type": f"com.amazonaws.dynamodb.v20120810#{told['Error']['Code']}",
                "message": told["Error"]["Message"],
                "CancellationReasons": told.get("CancellationReasons", []),
            }
        return 200, _to_wire(found)


@lru_cache
def _input_shape(service: str, operation: str) -> Any:
    return botocore.session.Session().get_service_model(service).operation_model(operation).input_shape


def _from_wire(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: base64.b64decode(each) if name == "B" and isinstance(each, str) else _from_wire(each)
            for name, each in value.items()
        }
    return [_from_wire(each) for each in value] if isinstance(value, list) else value


def _to_wire(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _to_wire(each) for name, each in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return [_to_wire(each) for each in value] if isinstance(value, list) else value


@contextmanager
def dynamodb_server() -> Iterator[DynamoDbServer]:
    """Serve on a port of the system's choice; fails at the end if a request was none that AWS takes."""
    dynamodb = DynamoDbServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Answers of two writes would wait for the client's delayed acknowledgement.
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            answer = dynamodb.answer(self.headers, self.rfile.read(int(self.headers["Content-Length"])))
            if answer is None:
                self.close_connection = True
                return
            status, body = answer
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("x-amzn-RequestId", "req-1")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)
            self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # a client that was killed

    server = Server(("127.0.0.1", 0), Handler)
    dynamodb.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield dynamodb
    finally:
        dynamodb.closing.set()
        server.shutdown()
        server.server_close()
    assert dynamodb.wrong == []

"""Lambda: how a call is refused, and what the answer of a failed one looks like."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.contract.cloud import Cloud
from tests.contract.services.probes import refused

pytestmark = pytest.mark.xdist_group("embedded_aws")

# The first is documented, the second is what callers saw: https://github.com/ASFHyP3/hyp3/issues/2241
TOO_LARGE = ("RequestTooLargeException", "RequestEntityTooLargeException")
ANY = """
def handler(event, context):
    if event.get("raise"): raise ValueError("told to")
    return {"size": len(event.get("text", "")), "text": "x" * event.get("answer", 0)}
"""


@pytest.fixture(scope="module")
def function(service: Cloud) -> str:
    """Give a function."""
    return service.function(ANY)


def test_a_function_that_is_not_there_is_told_as_such(service: Cloud) -> None:
    invoke, name = service.client("lambda").invoke, service.name("missing")
    refused(invoke, "ResourceNotFoundException", FunctionName=name)
    answer = refused(invoke, "ResourceNotFoundException", FunctionName=name, InvocationType="Event")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_no_concurrency_is_a_throttle_with_a_reason(service: Cloud) -> None:
    client, function = service.client("lambda"), service.function(ANY)
    client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=0)

    def throttled() -> dict[str, Any] | None:  # AWS spreads the setting in a while
        try:
            client.invoke(FunctionName=function, Payload=b"{}")
        except ClientError as error:
            return dict(error.response)
        return None

    answer = service.until(throttled)
    assert answer["Error"]["Code"] == "TooManyRequestsException"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert answer["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    # Asynchronous events are accepted all the same.
    accepted = client.invoke(FunctionName=function, InvocationType="Event", Payload=b"{}")
    assert accepted["StatusCode"] == 202


def test_events_for_no_concurrency_are_recorded_at_once(service: Cloud) -> None:
    client, url = service.client("lambda"), service.queue()
    arn = f"arn:aws:sqs:{service.region}:{service.account}:{url.rpartition('/')[2]}"
    function = service.function(ANY, {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": arn})
    client.put_function_event_invoke_config(
        FunctionName=function, DestinationConfig={"OnFailure": {"Destination": arn}}
    )
    client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=0)
    client.invoke(FunctionName=function, InvocationType="Event", Payload=b'{"n": 1}')

    def received() -> list[Any]:
        return list(service.client("sqs").receive_message(QueueUrl=url).get("Messages", []))

    (message,) = service.until(received)
    record = json.loads(message["Body"])
    context = record["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == ("ZeroReservedConcurrency", 0)
    assert context["functionArn"].endswith(f":function:{function}:$LATEST")
    assert record["requestPayload"] == {"n": 1}
    assert "responseContext" not in record


def test_an_account_keeps_concurrency_unreserved(service: Cloud) -> None:
    client, function = service.client("lambda"), service.function(ANY)
    limit = client.get_account_settings()["AccountLimit"]
    refused(
        client.put_function_concurrency, "InvalidParameterValueException", FunctionName=function,
        ReservedConcurrentExecutions=limit["UnreservedConcurrentExecutions"] - 99,
    )  # fmt: skip


def test_a_function_without_a_reservation_tells_none(service: Cloud) -> None:
    client, function = service.client("lambda"), service.function(ANY)
    assert "ReservedConcurrentExecutions" not in client.get_function_concurrency(FunctionName=function)
    client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=0)
    assert client.get_function_concurrency(FunctionName=function)["ReservedConcurrentExecutions"] == 0
    client.delete_function_concurrency(FunctionName=function)
    assert "ReservedConcurrentExecutions" not in client.get_function_concurrency(FunctionName=function)


def test_what_is_kept_ready_is_listed_by_version(service: Cloud) -> None:
    client, function = service.client("lambda"), service.function(ANY)
    listed = client.list_provisioned_concurrency_configs
    assert listed(FunctionName=function)["ProvisionedConcurrencyConfigs"] == []
    version = client.publish_version(FunctionName=function)["Version"]
    client.put_provisioned_concurrency_config(
        FunctionName=function, Qualifier=version, ProvisionedConcurrentExecutions=1
    )
    (found,) = listed(FunctionName=function)["ProvisionedConcurrencyConfigs"]
    client.delete_provisioned_concurrency_config(FunctionName=function, Qualifier=version)
    assert found["FunctionArn"].endswith(f":{function}:{version}")
    assert found["RequestedProvisionedConcurrentExecutions"] == 1
    assert found["Status"] in ("IN_PROGRESS", "READY")
    assert datetime.fromisoformat(found["LastModified"]).tzinfo is not None
    refused(listed, "ResourceNotFoundException", FunctionName="there-is-none")


def test_an_accepted_event_has_no_answer(service: Cloud, function: str) -> None:
    answer = service.client("lambda").invoke(
        FunctionName=function, InvocationType="Event", Payload=b'{"raise": true}'
    )
    assert answer["StatusCode"] == 202
    assert answer["Payload"].read() == b""
    assert "FunctionError" not in answer


def test_a_function_that_raises_answers_with_an_error_document(service: Cloud, function: str) -> None:
    answer = service.invoke(function, {"raise": True})
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    error = answer["Payload"]
    assert (error["errorType"], error["errorMessage"]) == ("ValueError", "told to")
    assert any("told to" in line for line in error["stackTrace"])


def test_the_request_id_of_a_call_is_that_of_its_invocation(service: Cloud, function: str) -> None:
    answer = service.invoke(function, {"raise": True})
    assert answer["Payload"]["requestId"] == answer["ResponseMetadata"]["RequestId"]


def test_a_payload_has_six_megabytes(service: Cloud, function: str) -> None:
    text = "x" * 6_000_000
    assert service.invoke(function, {"text": text})["Payload"]["size"] == len(text)
    large = json.dumps({"text": "x" * 6_400_000})
    answer = refused(service.client("lambda").invoke, *TOO_LARGE, FunctionName=function, Payload=large)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_an_asynchronous_payload_has_a_megabyte(service: Cloud, function: str) -> None:
    invoke = service.client("lambda").invoke
    invoke(FunctionName=function, InvocationType="Event", Payload=json.dumps({"text": "x" * 900_000}))
    large = json.dumps({"text": "x" * 1_100_000})
    refused(invoke, *TOO_LARGE, FunctionName=function, InvocationType="Event", Payload=large)


def test_an_answer_has_six_megabytes(service: Cloud, function: str) -> None:
    assert len(service.invoke(function, {"answer": 6_000_000})["Payload"]["text"]) == 6_000_000
    assert service.invoke(function, {"answer": 6_400_000})["FunctionError"] == "Unhandled"


def test_a_policy_has_20_kilobytes(service: Cloud) -> None:
    client, function = service.client("lambda"), service.function(ANY)
    accepted = 0
    for number in range(120):  # each statement is about 300 bytes
        permission: dict[str, Any] = {
            "FunctionName": function,
            "StatementId": f"subscription-{number:03d}",
            "Action": "lambda:InvokeFunction",
            "Principal": "logs.amazonaws.com",
            "SourceArn": f"arn:aws:logs:{service.region}:{service.account}:log-group:agent-{number:03d}:*",
            "SourceAccount": service.account,
        }
        try:
            client.add_permission(**permission)
        except client.exceptions.PolicyLengthExceededException:
            break
        accepted += 1
    statements = json.loads(client.get_policy(FunctionName=function)["Policy"])["Statement"]
    assert len(statements) == accepted
    assert 30 < accepted < 80
    refused(client.add_permission, "PolicyLengthExceededException", **permission)


def test_a_statement_is_added_once(service: Cloud, function: str) -> None:
    client = service.client("lambda")
    permission = {
        "FunctionName": function,
        "StatementId": "logs",
        "Action": "lambda:InvokeFunction",
        "Principal": "logs.amazonaws.com",
    }
    client.add_permission(**permission)
    refused(client.add_permission, "ResourceConflictException", **permission)
    statement = json.loads(client.get_policy(FunctionName=function)["Policy"])["Statement"][0]
    assert statement["Principal"] == {"Service": "logs.amazonaws.com"}

"""Messages as payloads of functions and inputs of executions: sent by boto3, received as Lambda has them."""

from __future__ import annotations

import base64
import io
import json
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError
from hypothesis import given
from hypothesis import strategies as st

from agentops_monitoring import instrument, monitored
from agentops_monitoring.instrument import payloads

from .aws_server import Aws, frame
from .deliveries import sqs_event
from .handovers import BODY, attribute, check_one_trace, client, context, hooked, in_invocation, of, receive


def invoked(aws: Aws) -> tuple[bytes, Any]:
    """The payload of the last call, and its client context."""
    path, body, headers = aws.raw[-1]
    assert path.startswith("/2015-03-31/functions/")
    given = headers.get("X-Amz-Client-Context")
    assert given is None or len(given) <= 3_583
    return body, json.loads(base64.b64decode(given)) if given else None


@pytest.fixture
def functions(aws: Aws, in_lambda: None, recorded: Any) -> Any:
    instrument.install()
    aws.answer({})
    return client("lambda")


@pytest.mark.parametrize("more", [{}, {"InvocationType": "RequestResponse"}])
@pytest.mark.parametrize(
    "name",
    ["qa", "qa:live", "123456789012:function:qa", "arn:aws:lambda:us-east-1:123456789012:function:qa:7"],
)
def test_a_synchronous_call_carries_it_beside_the_payload(
    aws: Aws, functions: Any, recorded: Any, more: dict[str, Any], name: str
) -> None:
    own = base64.b64encode(b'{"custom": {"mine": "1"}, "env": {"locale": "de"}}').decode()
    in_invocation(lambda: functions.invoke(FunctionName=name, Payload=BODY, ClientContext=own, **more))
    payload, client_context = invoked(aws)
    assert payload == BODY.encode()
    assert client_context["env"] == {"locale": "de"}
    assert client_context["custom"]["mine"] == "1"
    # As the runtimes of typed languages want it; Go's calls fail with anything else.
    assert all(type(value) is str for value in client_context["custom"].values())
    # As Lambda's runtime client makes it of the header.
    receive(json.loads(payload), client_context=SimpleNamespace(**client_context))
    check_one_trace(recorded(), "lambda")
    assert of(recorded(), "message_sent")[0]["data"]["destination"] == "qa"


@pytest.mark.parametrize("as_given", [str, str.encode, lambda text: bytearray(text.encode())])
def test_an_asynchronous_call_carries_it_in_the_payload(
    aws: Aws, functions: Any, recorded: Any, as_given: Any
) -> None:
    text = '{"issue": 7, "ratio": 0.10, "to": "qa"}'
    in_invocation(lambda: functions.invoke(FunctionName="qa", InvocationType="Event", Payload=as_given(text)))
    payload, client_context = invoked(aws)
    assert client_context is None, "Lambda drops it"
    assert payload.startswith(b'{"issue": 7, "ratio": 0.10, "to": "qa",')
    receive(json.loads(payload))
    check_one_trace(recorded(), "lambda")
    assert of(recorded(), "message_sent")[0]["data"]["to"] == "qa"


@pytest.mark.parametrize("kind", ["RequestResponse", "Event"])
@pytest.mark.parametrize("shape", ["detail", "records", "payload"])
def test_an_event_that_is_handed_on_whole_is_a_message_of_its_own(
    aws: Aws, functions: Any, recorded: Any, kind: str, shape: str
) -> None:
    """It has the context of the message that brought it, which is not the one that the next agent gets."""
    fields = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "message_id": "m1", "from": "manager", "hop": 4}
    attributes = {"agentops": attribute(json.dumps(fields))}
    event: Any = {
        "detail": {"detail-type": "t", "detail": {"agentops": fields}},
        "records": sqs_event([{"MessageId": "1", "Body": "x", "MessageAttributes": attributes}]),
        "payload": {"agentops": fields},
    }[shape]

    @monitored
    def forward(event: Any, context: Any) -> None:
        functions.invoke(FunctionName="qa", InvocationType=kind, Payload=json.dumps(event))

    forward(event, context(1))
    payload, client_context = invoked(aws)
    receive(json.loads(payload), client_context=client_context and SimpleNamespace(**client_context))
    (sent,) = of(recorded(), "message_sent")
    first, second = of(recorded(), "message_received")
    assert (first["data"]["message_id"], first["data"]["hop"]) == ("m1", 4)
    assert (second["data"]["message_id"], second["data"]["hop"]) == (sent["data"]["message_id"], 5)
    assert {event["trace_id"] for event in recorded()} == {"a" * 32}


@pytest.mark.parametrize("payload", ["[1]", "7", '"text"', "", "no json", io.BytesIO(b'{"a": 1}')])
def test_what_is_no_object_goes_as_it_is(aws: Aws, functions: Any, recorded: Any, payload: Any) -> None:
    functions.invoke(FunctionName="qa", InvocationType="Event", Payload=payload)
    assert invoked(aws)[0] == (payload.encode() if isinstance(payload, str) else b'{"a": 1}')
    (sent,) = recorded()
    assert "JSON object" in sent["problems"][0]


def test_a_payload_at_the_limit_goes_as_it_is(aws: Aws, functions: Any, recorded: Any) -> None:
    text = json.dumps({"x": "y" * (payloads.MAX_EVENT_BYTES - 100)})
    functions.invoke(FunctionName="qa", InvocationType="Event", Payload=text)
    assert invoked(aws)[0] == text.encode()
    assert "too large" in recorded()[0]["problems"][0]


def test_a_client_context_without_room_goes_as_it_is(aws: Aws, functions: Any, recorded: Any) -> None:
    own = base64.b64encode(json.dumps({"custom": {"mine": "x" * 2_600}}).encode()).decode()
    functions.invoke(FunctionName="qa", ClientContext=own)
    assert invoked(aws)[1] == {"custom": {"mine": "x" * 2_600}}
    assert "too large" in recorded()[0]["problems"][0]


def test_a_dry_run_and_a_refusal_are_no_messages(aws: Aws, functions: Any, recorded: Any) -> None:
    functions.invoke(FunctionName="qa", InvocationType="DryRun", Payload="{}")
    assert invoked(aws) == (b"{}", None)
    aws.answer(
        {"Message": "Rate exceeded"}, status=429, headers={"x-amzn-ErrorType": "TooManyRequestsException"}
    )
    with pytest.raises(ClientError):
        functions.invoke(FunctionName="qa", Payload="{}")
    with pytest.raises(ParamValidationError):
        functions.invoke(FunctionName=7)
    assert recorded() == []


@pytest.mark.parametrize("payload", [b'{"to": "qa"}', b"\xff\x00 no text", io.BytesIO(b"{}")])
def test_a_synchronous_call_is_carried_whatever_its_payload_is(
    aws: Aws, functions: Any, recorded: Any, payload: Any
) -> None:
    functions.invoke(FunctionName="qa", Payload=payload)
    assert "agentops" in invoked(aws)[1]["custom"]
    assert [event["type"] for event in recorded()] == ["message_sent"]


def test_a_call_with_a_streamed_answer_carries_it_too(aws: Aws, functions: Any, recorded: Any) -> None:
    aws.answers.clear()
    aws.answer(frame("InvokeComplete", b"{}"))
    answer = functions.invoke_with_response_stream(FunctionName="qa", Payload=b"{}")
    assert [list(each) for each in answer["EventStream"]] == [["InvokeComplete"]]
    (sent,) = recorded()
    custom = json.loads(base64.b64decode(aws.raw[-1][2]["X-Amz-Client-Context"]))["custom"]
    assert json.loads(custom["agentops"])["message_id"] == sent["data"]["message_id"]


def test_a_named_durable_execution_keeps_its_payload(aws: Aws, functions: Any, recorded: Any) -> None:
    """The same name and payload start it once; another payload under that name would be an error."""
    functions.invoke(
        FunctionName="qa", InvocationType="Event", DurableExecutionName="case-7", Payload='{"issue": 7}'
    )
    assert invoked(aws) == (b'{"issue": 7}', None)
    (sent,) = recorded()
    assert "named" in sent["problems"][0]


def test_a_function_that_failed_had_the_message(aws: Aws, functions: Any, recorded: Any) -> None:
    aws.answers.clear()
    aws.answer({"errorMessage": "no"}, headers={"X-Amz-Function-Error": "Unhandled"})
    assert functions.invoke(FunctionName="qa", Payload="{}")["FunctionError"] == "Unhandled"
    assert [event["type"] for event in recorded()] == ["message_sent"]


def test_a_broken_client_context_is_lambdas_business(aws: Aws, functions: Any, recorded: Any) -> None:
    functions.invoke(FunctionName="qa", ClientContext="no base64")
    assert aws.raw[-1][2]["X-Amz-Client-Context"] == "no base64"
    assert recorded() == []


MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:triage"


@pytest.fixture
def states(moto: None) -> Any:
    found = client("stepfunctions")
    found.create_state_machine(
        name="triage",
        definition='{"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}',
        roleArn="arn:aws:iam::123456789012:role/r",
    )
    return found


@pytest.mark.parametrize("given", [{}, {"input": "{}"}, {"input": '{"issue": 7}'}])
def test_an_execution_carries_it_to_its_tasks(states: Any, recorded: Any, given: dict[str, str]) -> None:
    started = in_invocation(lambda: states.start_execution(stateMachineArn=MACHINE, **given))
    task_input = json.loads(states.describe_execution(executionArn=started["executionArn"])["input"])
    assert {name: value for name, value in task_input.items() if name != "agentops"} == json.loads(
        given.get("input", "{}")
    )
    receive(task_input)
    check_one_trace(recorded(), "stepfunctions")
    assert of(recorded(), "message_sent")[0]["data"]["destination"] == "triage"
    # The next state gets the same input, and that is no redelivery.
    receive(task_input, number=3)
    assert not any("redelivered" in event["data"] for event in recorded())


def test_a_named_execution_keeps_its_input(states: Any, recorded: Any) -> None:
    """The same name and input start it once; another input under that name would be an error."""
    started = states.start_execution(stateMachineArn=MACHINE, name="case-7", input='{"issue": 7}')
    assert states.describe_execution(executionArn=started["executionArn"])["input"] == '{"issue": 7}'
    (sent,) = recorded()
    assert "named" in sent["problems"][0]


def test_an_execution_that_is_waited_for_carries_it_whatever_its_name(
    aws: Aws, in_lambda: None, recorded: Any
) -> None:
    """An express execution is never the one of before: its name is no key."""
    instrument.install()
    aws.answer({"executionArn": f"{MACHINE}:1", "startDate": 1, "stopDate": 2, "status": "SUCCEEDED"})
    states = hooked().client("stepfunctions", config=Config(inject_host_prefix=False))
    in_invocation(
        lambda: states.start_sync_execution(stateMachineArn=MACHINE, name="case-7", input='{"issue": 7}')
    )
    receive(json.loads(aws.requests[-1][1]["input"]))
    check_one_trace(recorded(), "stepfunctions")


def test_the_answer_of_a_task_that_was_waited_for(aws: Aws, in_lambda: None, recorded: Any) -> None:
    instrument.install()
    aws.answer({})
    states = client("stepfunctions")
    in_invocation(lambda: states.send_task_success(taskToken="t", output='{"verdict": "accept"}'))
    output = json.loads(aws.requests[-1][1]["output"])
    assert output["verdict"] == "accept"
    receive(output)
    check_one_trace(recorded(), "stepfunctions")


def test_an_output_that_is_no_object_or_too_large_goes_as_it_is(
    aws: Aws, in_lambda: None, recorded: Any
) -> None:
    instrument.install()
    states = client("stepfunctions")
    for output in ("7", json.dumps({"x": "y" * (payloads.MAX_STATE_BYTES - 50)})):
        aws.answer({})
        states.send_task_success(taskToken="t", output=output)
        assert aws.requests[-1][1]["output"] == output
    assert len(of(recorded(), "message_sent")) == 2
    assert all(event["problems"] for event in recorded())


@given(
    st.dictionaries(
        st.text(max_size=5), st.integers() | st.text(max_size=5) | st.floats(allow_nan=False), max_size=3
    )
)
def test_what_the_agent_wrote_stays_as_it_is(fields: dict[str, Any]) -> None:
    from agentops_monitoring.instrument.outgoing import json_object, spliced

    text = json.dumps(fields)
    changed = spliced(text, json_object(text) or {}, {"agentops": {"hop": 1}})
    assert json.loads(changed) == {**fields, "agentops": {"hop": 1}}
    if "agentops" not in fields:
        assert changed.startswith(text[:-1])

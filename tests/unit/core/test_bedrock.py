from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.eventstream import ChecksumMismatch
from botocore.exceptions import EndpointConnectionError, IncompleteReadError
from botocore.response import StreamingBody

from agentops_monitoring import AgentOpsMonitor, instrument
from agentops_monitoring.instrument.clients import attach_to_session

from .aws_server import Aws, frame

MODEL = "us.anthropic.claude-sonnet-4-20250514-v1:0"
CONVERSE: dict[str, Any] = {
    "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}},
    "stopReason": "end_turn",
    "usage": {
        "inputTokens": 11, "outputTokens": 12, "totalTokens": 63,
        "cacheReadInputTokens": 20, "cacheWriteInputTokens": 20,
    },
    "metrics": {"latencyMs": 5},
}  # fmt: skip
MESSAGES: list[Any] = [{"role": "user", "content": [{"text": "hello"}]}]


@pytest.fixture
def bedrock(aws: Aws, in_lambda: None) -> Any:
    instrument.install()
    return boto3.session.Session().client("bedrock-runtime")


def calls(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == "llm_usage"]


def tokens(event: dict[str, Any]) -> tuple[Any, ...]:
    data = event["data"]
    return (
        data["gen_ai.usage.input_tokens"],
        data["gen_ai.usage.output_tokens"],
        data["gen_ai.usage.cache_read.input_tokens"],
        data["gen_ai.usage.cache_creation.input_tokens"],
    )


def test_converse(aws: Aws, bedrock: Any, recorded: Any) -> None:
    aws.answer(CONVERSE)
    answer = bedrock.converse(modelId=MODEL, messages=MESSAGES)
    assert answer["output"] == CONVERSE["output"]
    (event,) = recorded()
    assert event["agent"] == "engineer"
    assert event["data"]["gen_ai.request.model"] == MODEL
    assert event["data"]["gen_ai.provider.name"] == "aws.bedrock"
    assert event["data"]["gen_ai.response.id"] == answer["ResponseMetadata"]["RequestId"]
    assert event["data"]["source"] == "auto"
    assert event["data"]["region"] == "us-east-1"
    assert event["data"]["duration_ms"] > 0
    assert tokens(event) == (11, 12, 20, 20)
    assert float(event["data"]["cost_usd"]) > 0


def test_an_hours_cache_and_a_tier(aws: Aws, bedrock: Any, recorded: Any) -> None:
    usage = {
        **CONVERSE["usage"],
        "cacheDetails": [{"inputTokens": 15, "ttl": "1h"}, {"inputTokens": 5, "ttl": "5m"}],
    }
    aws.answer({**CONVERSE, "usage": usage, "serviceTier": {"type": "priority"}})
    bedrock.converse(modelId=MODEL, messages=MESSAGES)
    (event,) = recorded()
    assert tokens(event) == (11, 12, 20, 5)
    assert event["data"]["cache_creation_1h.input_tokens"] == 15
    assert event["data"]["tier"] == "priority"


def test_a_call_that_fails_is_no_usage(aws: Aws, bedrock: Any, recorded: Any) -> None:
    aws.answer({"message": "slow down"}, status=429, headers={"x-amzn-ErrorType": "ThrottlingException"})
    with pytest.raises(bedrock.exceptions.ThrottlingException):
        bedrock.converse(modelId=MODEL, messages=MESSAGES)
    (span,) = recorded()
    assert span["type"] == "span"
    assert span["data"]["gen_ai.request.model"] == MODEL
    assert span["data"]["error"] == {"type": "ThrottlingException", "status_code": 429}


def test_a_call_without_an_answer_is_no_usage(bedrock: Any, recorded: Any) -> None:
    client = boto3.session.Session().client("bedrock-runtime", endpoint_url="http://127.0.0.1:9")
    with pytest.raises(EndpointConnectionError):
        client.converse(modelId=MODEL, messages=MESSAGES)
    (span,) = recorded()
    assert span["type"] == "span"
    assert span["data"]["error"] == {"type": "botocore.EndpointConnectionError"}


def test_what_is_also_reported_by_hand_counts_once(aws: Aws, bedrock: Any, recorded: Any) -> None:
    monitor = AgentOpsMonitor()
    for _ in range(2):
        aws.answer(CONVERSE)
        answer = bedrock.converse(modelId=MODEL, messages=MESSAGES)
    by_response = monitor.track_llm_usage(model="claude-sonnet-4", response=answer)
    by_tokens = monitor.track_llm_usage(
        model=MODEL, input_tokens=11, output_tokens=12, cache_read_tokens=20, cache_write_tokens=20
    )
    assert by_response is not None
    assert by_tokens is not None
    assert len(recorded()) == 2
    monitor.track_llm_usage(
        model=MODEL, input_tokens=11, output_tokens=12, cache_read_tokens=20, cache_write_tokens=20
    )
    assert len(recorded()) == 3


CONVERSE_STREAM = b"".join(
    frame(name, json.dumps(payload).encode())
    for name, payload in (
        ("messageStart", {"role": "assistant"}),
        ("contentBlockDelta", {"delta": {"text": "hi"}, "contentBlockIndex": 0}),
        ("messageStop", {"stopReason": "end_turn"}),
        ("metadata", {"usage": CONVERSE["usage"], "metrics": {"latencyMs": 5}}),
    )
)


def test_converse_stream(aws: Aws, bedrock: Any, recorded: Any) -> None:
    aws.answer(CONVERSE_STREAM)
    answer = bedrock.converse_stream(modelId=MODEL, messages=MESSAGES)
    assert recorded() == []
    events = list(answer["stream"])
    assert [next(iter(event)) for event in events] == [
        "messageStart", "contentBlockDelta", "messageStop", "metadata",
    ]  # fmt: skip
    answer["stream"].close()
    (event,) = recorded()
    assert tokens(event) == (11, 12, 20, 20)


@pytest.mark.parametrize("how", ["close", "drop", "break"])
def test_a_stream_that_is_not_read_to_its_end_is_unpriced(
    how: str, aws: Aws, bedrock: Any, recorded: Any
) -> None:
    aws.answer(CONVERSE_STREAM)
    answer = bedrock.converse_stream(modelId=MODEL, messages=MESSAGES)
    if how == "break":
        for _ in answer["stream"]:
            break
    if how != "drop":
        answer["stream"].close()
    del answer
    (event,) = recorded()
    assert tokens(event) == (None, None, None, None)
    assert event["data"]["cost_usd"] is None
    assert event["problems"]


BODIES: list[tuple[str, Any, dict[str, str], tuple[int, ...]]] = [
    (
        "anthropic.claude-3-haiku-20240307-v1:0",
        {
            "id": "msg_1",
            "usage": {
                "input_tokens": 1, "output_tokens": 2,
                "cache_read_input_tokens": 3, "cache_creation_input_tokens": 4,
            },
        },
        {},
        (1, 2, 3, 4),
    ),
    (
        "amazon.nova-lite-v1:0",
        {
            "usage": {
                "inputTokens": 1, "outputTokens": 2,
                "cacheReadInputTokenCount": 3, "cacheWriteInputTokenCount": 4,
            },
        },
        {},
        (1, 2, 3, 4),
    ),
    (
        "openai.gpt-oss-120b-1:0",
        {
            "usage": {
                "prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3},
            },
        },
        {},
        (7, 2, 3, 0),
    ),
    (
        "meta.llama3-8b-instruct-v1:0",
        {"generation": "x"},
        {"X-Amzn-Bedrock-Input-Token-Count": "5", "X-Amzn-Bedrock-Output-Token-Count": "6"},
        (5, 6, 0, 0),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("model", "body", "headers", "expected"), BODIES, ids=[each[0] for each in BODIES])
def test_invoke_model(
    model: str,
    body: Any,
    headers: dict[str, str],
    expected: tuple[int, ...],
    aws: Aws,
    bedrock: Any,
    recorded: Any,
) -> None:
    aws.answer(body, headers=headers)
    answer = bedrock.invoke_model(modelId=model, body="{}")
    assert json.loads(answer["body"].read()) == body
    (event,) = recorded()
    assert tokens(event) == expected


@pytest.mark.parametrize("by", ["the client's answer", "its body"])
def test_invoke_model_that_is_also_reported_counts_once(
    by: str, aws: Aws, bedrock: Any, recorded: Any
) -> None:
    """Claude's body has an id of its own; the answer of boto3 has that of the request alone."""
    model, body, _, _ = BODIES[0]
    aws.answer(
        body,
        headers={"X-Amzn-Bedrock-Input-Token-Count": "1", "X-Amzn-Bedrock-Output-Token-Count": "2"},
    )
    answer = bedrock.invoke_model(modelId=model, body="{}")
    reported = json.loads(answer["body"].read()) if by == "its body" else answer
    AgentOpsMonitor().track_llm_usage(model=model, response=reported)
    assert [event["data"].get("gen_ai.response.id") for event in calls(recorded())] == ["msg_1"]


@pytest.mark.parametrize("body", [{}, [], "x", {"usage": None}, {"usage": {"input_tokens": "many"}}])
def test_bodies_of_unknown_shape_reach_the_agent(body: Any, aws: Aws, bedrock: Any, recorded: Any) -> None:
    aws.answer(body)
    assert json.loads(bedrock.invoke_model(modelId="x.y", body="{}")["body"].read()) == body
    assert [event["data"]["cost_usd"] for event in recorded()] == [None]


def test_invoke_model_with_a_response_stream(aws: Aws, bedrock: Any, recorded: Any) -> None:
    from base64 import b64encode

    pieces: list[Any] = [
        {"type": "message_start", "message": {"id": "msg_7", "usage": {
            "input_tokens": 9, "output_tokens": 1,
            "cache_read_input_tokens": 4, "cache_creation_input_tokens": 0}}},
        {"type": "content_block_delta", "delta": {"text": "the word \"usage\""}},
        {"type": "message_delta", "usage": {"output_tokens": 33}},
        {"type": "message_stop",
         "amazon-bedrock-invocationMetrics": {"inputTokenCount": 9, "outputTokenCount": 33}},
    ]  # fmt: skip
    aws.answer(
        b"".join(
            frame("chunk", json.dumps({"bytes": b64encode(json.dumps(piece).encode()).decode()}).encode())
            for piece in pieces
        )
    )
    answer = bedrock.invoke_model_with_response_stream(modelId=MODEL, body="{}")
    assert [json.loads(event["chunk"]["bytes"]) for event in answer["body"]] == pieces
    (event,) = recorded()
    assert tokens(event) == (9, 33, 4, 0)
    assert event["data"]["gen_ai.response.id"] == "msg_7"


def test_hooks_come_off(aws: Aws, bedrock: Any, recorded: Any) -> None:
    instrument.uninstall()
    for client in (bedrock, boto3.session.Session().client("bedrock-runtime")):
        aws.answer(CONVERSE)
        client.converse(modelId=MODEL, messages=MESSAGES)
    assert recorded() == []


@pytest.mark.parametrize("when", ["before", "after", "twice"])
def test_each_order_of_imports_counts_once(when: str, aws: Aws) -> None:
    install = "from agentops_monitoring import instrument; instrument.install()\n"
    code = {
        "before": "{}import boto3\n",
        "after": "import boto3; boto3.client('bedrock-runtime')\n{}",
        "twice": "{0}import boto3\n{0}instrument.uninstall(); {0}",
    }[when].format(install)
    code += (
        f"client = boto3.client('bedrock-runtime')\n"
        f"client.converse(modelId={MODEL!r}, messages={MESSAGES!r})\n"
    )
    aws.answer(CONVERSE)
    runtime = Path(__file__).parents[3] / "runtime"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(runtime), "AGENTOPS_TRANSPORT": "stdout"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert answer.stdout.count("agentops.event") == 1


def test_a_call_that_is_reported_while_its_stream_is_read_counts_once(
    aws: Aws, bedrock: Any, recorded: Any
) -> None:
    aws.answer(CONVERSE_STREAM)
    for event in bedrock.converse_stream(modelId=MODEL, messages=MESSAGES)["stream"]:
        if "metadata" in event:
            AgentOpsMonitor().track_llm_usage(model=MODEL, response=event["metadata"])
    (usage,) = recorded()
    assert tokens(usage) == (11, 12, 20, 20)


def test_a_stream_may_be_read_in_two_goes(aws: Aws, bedrock: Any, recorded: Any) -> None:
    aws.answer(CONVERSE_STREAM)
    stream = bedrock.converse_stream(modelId=MODEL, messages=MESSAGES)["stream"]
    for _ in stream:
        break
    assert len(list(stream)) == 3
    (event,) = recorded()
    assert tokens(event) == (11, 12, 20, 20)


def test_a_stream_that_breaks_is_unpriced_and_the_agent_hears_of_it(
    aws: Aws, bedrock: Any, recorded: Any
) -> None:
    broken = bytearray(CONVERSE_STREAM)
    broken[-1] ^= 1
    aws.answer(bytes(broken))
    stream = bedrock.converse_stream(modelId=MODEL, messages=MESSAGES)["stream"]
    with pytest.raises(ChecksumMismatch):
        list(stream)
    assert [event["data"]["cost_usd"] for event in recorded()] == [None]


def test_a_call_in_a_workflow_within_counts_once_when_it_is_reported_outside(
    aws: Aws, bedrock: Any, recorded: Any
) -> None:
    monitor = AgentOpsMonitor()
    aws.answer(CONVERSE)
    with monitor.workflow("order-17"):
        answer = bedrock.converse(modelId=MODEL, messages=MESSAGES)
    monitor.track_llm_usage(model=MODEL, response=answer)
    (event,) = recorded()
    assert event["workflow_id"] == "order-17"


def test_the_tier_of_a_response_that_is_reported_by_hand(recorded: Any) -> None:
    AgentOpsMonitor("a").track_llm_usage(
        model=MODEL, response={**CONVERSE, "serviceTier": {"type": "priority"}}
    )
    assert recorded()[0]["data"]["tier"] == "priority"


class _Session:
    """Takes hooks as botocore's session does, and calls them as aiobotocore's client does."""

    def __init__(self) -> None:
        self.hooks: dict[str, Any] = {}

    def register(self, name: str, handler: Any, unique_id: str) -> None:
        self.hooks[name] = handler

    def call(self, operation: str, parsed: dict[str, Any]) -> dict[str, Any]:
        context: dict[str, Any] = {"client_region": "us-east-1"}
        model, answer = SimpleNamespace(name=operation), SimpleNamespace(status_code=200)
        self.hooks[f"before-parameter-build.bedrock-runtime.{operation}"](
            params={"modelId": MODEL}, context=context
        )
        self.hooks[f"after-call.bedrock-runtime.{operation}"](
            http_response=answer, parsed=parsed, model=model, context=context
        )
        return parsed


def test_asynchronous_clients_get_their_answers(in_lambda: None, recorded: Any) -> None:
    class Body(StreamingBody):  # as aiobotocore's is
        async def read(self) -> bytes:  # type: ignore[override]
            return b"{}"

    async def stream() -> AsyncIterator[Any]:
        yield {"contentBlockDelta": {}}
        yield {"metadata": {"usage": CONVERSE["usage"]}}

    instrument.install()
    session = _Session()
    attach_to_session(session)

    async def agent() -> tuple[bytes, list[Any]]:
        headers = {"x-amzn-bedrock-input-token-count": "5", "x-amzn-bedrock-output-token-count": "6"}
        answer = session.call(
            "InvokeModel",
            {"body": Body(io.BytesIO(), 0), "ResponseMetadata": {"HTTPHeaders": headers, "RequestId": "r"}},
        )
        streamed = session.call("ConverseStream", {"stream": stream()})
        return await answer["body"].read(), [event async for event in streamed["stream"]]

    body, events = asyncio.run(agent())
    assert body == b"{}"
    assert len(events) == 2
    assert [tokens(event) for event in recorded()] == [(5, 6, 0, 0), (11, 12, 20, 20)]


def test_an_answer_that_breaks_off_is_a_call_without_a_price(in_lambda: None, recorded: Any) -> None:
    instrument.install()
    session = _Session()
    attach_to_session(session)
    body = StreamingBody(io.BytesIO(b'{"usage": {'), 500)
    with pytest.raises(IncompleteReadError):
        session.call("InvokeModel", {"body": body, "ResponseMetadata": {"RequestId": "r"}})
    (event,) = calls(recorded())
    assert event["data"]["gen_ai.response.id"] == "r"
    assert event["data"]["cost_usd"] is None
    assert event["problems"]

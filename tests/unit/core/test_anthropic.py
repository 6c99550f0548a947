"""Calls through Anthropic's own SDK, held against what a server on loopback says it served."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from hypothesis import given, settings
from hypothesis import strategies as st

from agentops_monitoring import AgentOpsMonitor, instrument
from agentops_monitoring.testing import capture_events
from tests.fakes.anthropic_api import AnthropicApi
from tests.fakes.oracle import agree, read

from .conftest import read_events

MODEL = "claude-haiku-4-5-20251001"
ASKED: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "Weather in Paris?"}],
}
CACHED: dict[str, Any] = {
    **ASKED,
    "messages": [
        {
            "role": "user",
            "content": [{"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}],
        }
    ],
}
TOOL: Any = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


recent = pytest.mark.skipif(
    not hasattr(Anthropic(api_key="key").messages, "batches"), reason="a version before 0.41"
)


@pytest.fixture
def api() -> Iterator[AnthropicApi]:
    instrument.install()
    with AnthropicApi() as server:
        yield server


def client_of(api: AnthropicApi, **options: Any) -> Anthropic:
    return Anthropic(api_key="key", base_url=api.url, **options)


def async_client_of(api: AnthropicApi, **options: Any) -> AsyncAnthropic:
    return AsyncAnthropic(api_key="key", base_url=api.url, **options)


def tool_loop(client: Anthropic) -> None:
    messages: list[Any] = [*ASKED["messages"]]
    while True:
        answer = client.messages.create(**{**ASKED, "messages": messages}, tools=[TOOL])
        uses = [block for block in answer.content if block.type == "tool_use"]
        if not uses:
            return
        messages.append(
            {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in uses]}
        )
        results = [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"} for use in uses]
        messages.append({"role": "user", "content": results})


def helper(client: Anthropic) -> None:
    with client.messages.stream(**ASKED) as stream:
        assert "".join(stream.text_stream) == "Hello there!"
        assert stream.get_final_message().stop_reason == "end_turn"


def streamed_body(client: Anthropic, read_body: Callable[[Any], object], **more: Any) -> None:
    with client.messages.with_streaming_response.create(**ASKED, **more) as response:
        assert read_body(response)


WAYS: dict[str, Callable[[Anthropic], object]] = {
    "create": lambda client: client.messages.create(**ASKED).content[0].text,
    "caching": lambda client: client.messages.create(**CACHED),
    "priority tier": lambda client: client.messages.create(**ASKED, extra_body={"service_tier": "auto"}),
    "tools": tool_loop,
    "stream": lambda client: list(client.messages.create(**CACHED, stream=True)),
    "stream with tools": lambda client: list(client.messages.create(**ASKED, stream=True, tools=[TOOL])),
    "stream by steps": lambda client: [
        next(stream) for stream in [client.messages.create(**ASKED, stream=True)] for _ in range(8)
    ],
    "helper": helper,
    "raw": lambda client: client.messages.with_raw_response.create(**ASKED).parse(),
    "raw, not parsed": lambda client: client.messages.with_raw_response.create(**ASKED).headers,
    "raw stream": lambda client: list(client.messages.with_raw_response.create(**ASKED, stream=True).parse()),
    "streamed body": lambda client: streamed_body(client, lambda response: response.parse()),
    "streamed bytes": lambda client: streamed_body(client, lambda response: list(response.iter_bytes(3))),
    "streamed text": lambda client: streamed_body(client, lambda response: list(response.iter_text())),
    "streamed lines": lambda client: streamed_body(
        client, lambda response: list(response.iter_lines()), stream=True
    ),
    "streamed events": lambda client: streamed_body(
        client, lambda response: list(response.parse()), stream=True
    ),
    "read at once": lambda client: streamed_body(client, lambda response: response.read(), stream=True),
    "beta": lambda client: client.beta.messages.create(**ASKED),
    "copied client": lambda client: client.with_options(timeout=9).messages.create(**ASKED),
    "a path by hand": lambda client: client.post("/v1/messages", cast_to=object, body=ASKED),
    "two at once": lambda client: [
        list(pair)
        for pair in [
            zip(
                client.messages.create(**ASKED, stream=True),
                client.messages.create(**CACHED, stream=True),
                strict=True,
            )
        ]
    ],
}


@pytest.mark.parametrize("way", WAYS)
def test_each_answer_is_one_event(way: str, api: AnthropicApi, recorded: Any) -> None:
    WAYS[way](client_of(api))
    agree(recorded(), api)
    assert {event["data"]["gen_ai.provider.name"] for event in recorded()} == {"anthropic"}


async def streamed(client: AsyncAnthropic) -> None:
    async for _ in await client.messages.create(**CACHED, stream=True):
        pass


async def async_helper(client: AsyncAnthropic) -> None:
    async with client.messages.stream(**ASKED) as stream:
        assert [text async for text in stream.text_stream] == ["Hello", " there", "!"]


async def async_raw(client: AsyncAnthropic) -> None:
    response = await client.messages.with_raw_response.create(**ASKED, stream=True)
    parsed: Any = response.parse()
    if hasattr(parsed, "__await__"):  # since version 1.0
        parsed = await parsed
    async for _ in parsed:
        pass


async def async_streamed_body(client: AsyncAnthropic) -> None:
    async with client.messages.with_streaming_response.create(**ASKED) as response:
        assert [line async for line in response.iter_lines()]


async def at_once(client: AsyncAnthropic) -> None:
    await asyncio.gather(*(streamed(client) for _ in range(5)), client.messages.create(**ASKED))


ASYNC_WAYS: dict[str, Callable[[AsyncAnthropic], Awaitable[object]]] = {
    "create": lambda client: client.messages.create(**CACHED),
    "stream": streamed,
    "helper": async_helper,
    "raw stream": async_raw,
    "streamed body": async_streamed_body,
    "at once": at_once,
}


@pytest.mark.parametrize("way", ASYNC_WAYS)
def test_each_answer_to_an_async_client_is_one_event(way: str, api: AnthropicApi, recorded: Any) -> None:
    async def run() -> None:
        async with async_client_of(api) as client:
            await ASYNC_WAYS[way](client)

    asyncio.run(run())
    agree(recorded(), api)


def batch_of(client: Anthropic) -> str:
    asked = [{"custom_id": f"r-{number}", "params": CACHED} for number in range(3)]
    batch = client.messages.batches.create(requests=asked)  # type: ignore[arg-type]
    return batch.id


@recent
def test_the_results_of_a_batch_count_once_at_its_price(api: AnthropicApi, recorded: Any) -> None:
    client = client_of(api)
    identifier = batch_of(client)
    assert recorded() == []
    for _ in range(2):
        assert len(list(client.messages.batches.results(identifier))) == 4
    agree(recorded(), api)
    # Half the price of the same tokens in a plain call.
    usage = read(recorded()[0])
    plain = AgentOpsMonitor().track_llm_usage(
        model=MODEL,
        input_tokens=usage.input,
        output_tokens=usage.output,
        cache_read_tokens=usage.read,
        cache_write_tokens=usage.write,
        cache_write_1h_tokens=usage.write_1h,
    )
    assert plain is not None
    assert float(recorded()[0]["data"]["cost_usd"]) == pytest.approx(float(plain) / 2)


@recent
def test_the_results_of_a_batch_in_an_async_client(api: AnthropicApi, recorded: Any) -> None:
    async def run() -> None:
        async with async_client_of(api) as client:
            results = await client.messages.batches.results(batch_of(client_of(api)))
            assert len([result async for result in results]) == 4

    asyncio.run(run())
    agree(recorded(), api)


@pytest.mark.parametrize("stream", [False, True])
def test_bedrock_by_anthropics_client(stream: bool, api: AnthropicApi, recorded: Any) -> None:
    client = anthropic.AnthropicBedrock(
        aws_access_key="a", aws_secret_key="b", aws_region="eu-west-1", base_url=api.url
    )
    model = "eu.anthropic.claude-haiku-4-5-20251001-v1:0"
    answer: Any = client.messages.create(**{**CACHED, "model": model}, stream=stream)
    if stream:
        assert list(answer)[-1].type == "message_stop"
    agree(recorded(), api)
    (event,) = recorded()
    assert event["data"]["gen_ai.provider.name"] == "aws.bedrock"
    assert event["data"]["region"] == "eu-west-1"


def test_vertex_by_anthropics_client(api: AnthropicApi, recorded: Any) -> None:
    client = anthropic.AnthropicVertex(
        region="us-east5", project_id="p", access_token="token", base_url=api.url
    )
    list(client.messages.create(**{**ASKED, "model": "claude-haiku-4-5@20251001"}, stream=True))
    (event,) = recorded()
    assert not api.broken
    assert read(event) == api.served[0]
    assert event["data"]["gen_ai.provider.name"] == "gcp.vertex_ai"
    assert event["data"]["region"] == "us-east5"


def test_a_stream_in_any_pieces_of_any_text_is_one_event(api: AnthropicApi, full_size: bool) -> None:
    @given(
        texts=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=6)
        | st.just(['{"usage": {"output_tokens": 9}}', '"message_stop"', "\n\ndata: x", "\r"]),
        piece_bytes=st.integers(1, 400),
        zipped=st.booleans(),
        seed=st.integers(0, 1 << 32),
    )
    @settings(deadline=None, max_examples=500 if full_size else 15)
    def check(texts: list[str], piece_bytes: int, zipped: bool, seed: int) -> None:
        api.forget()
        api.random.seed(seed)
        api.texts, api.piece_bytes, api.gzip = texts, piece_bytes, zipped
        with capture_events() as events:
            with client.messages.stream(**CACHED) as stream:
                message = stream.get_final_message()
            assert message.content[0].text == "".join(texts)  # type: ignore[union-attr]
        agree(read_events("".join(events.lines)), api)

    client = client_of(api)
    check()


def test_a_stream_of_which_less_than_all_was_read(api: AnthropicApi, recorded: Any) -> None:
    api.pause_after = 4
    with client_of(api).messages.create(**CACHED, stream=True) as stream:
        for _ in zip(stream, range(2), strict=False):
            pass
    api.go_on.set()
    (event,) = recorded()
    (served,) = api.served
    # What is known is said; what was generated meanwhile is not, and nothing pretends to know its price.
    assert read(event) == served._replace(output=None)  # type: ignore[arg-type]
    assert event["data"]["cost_usd"] is None
    assert "not read to its end" in event["problems"][0]


def test_a_stream_that_is_left_when_it_says_why_it_stops_is_priced(api: AnthropicApi, recorded: Any) -> None:
    api.pause_after = 8  # all but the last of its events
    with client_of(api).messages.create(**ASKED, stream=True) as stream:
        for event in stream:
            if event.type == "message_delta":
                break
    api.go_on.set()
    agree(recorded(), api)


def test_an_error_amid_a_stream(api: AnthropicApi, recorded: Any) -> None:
    broken = api.overloaded()._replace(
        status=200,
        content_type="text/event-stream",
        body=[b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"no"}}\n\n'],
    )
    api.failures.append(broken)
    with pytest.raises(anthropic.APIStatusError):
        list(client_of(api, max_retries=0).messages.create(**ASKED, stream=True))
    (event,) = recorded()
    assert event["type"] == "llm_usage"
    assert event["data"]["cost_usd"] is None
    assert event["problems"]


@recent
def test_counting_tokens_is_no_model_call(api: AnthropicApi, recorded: Any) -> None:
    api.failures.append(api.overloaded()._replace(status=200, body=b'{"input_tokens": 9}'))
    asked = {"model": MODEL, "messages": ASKED["messages"]}
    assert client_of(api).messages.count_tokens(**asked).input_tokens == 9
    assert recorded() == []


with_middleware = pytest.mark.skipif(
    "middleware" not in (Anthropic.__init__.__kwdefaults__ or {}), reason="a version before 1.0"
)


@with_middleware
def test_a_call_within_a_call(api: AnthropicApi, recorded: Any) -> None:
    def guard(request: Any, call_next: Any) -> Any:
        client_of(api).messages.create(**CACHED)
        return call_next(request)

    client_of(api, middleware=[guard]).messages.create(**ASKED)
    assert len(api.served) == 2
    agree(recorded(), api)


@with_middleware
def test_a_cache_in_between_costs_nothing(api: AnthropicApi, recorded: Any) -> None:
    kept: list[Any] = []

    def cache(request: Any, call_next: Any) -> Any:
        if not kept:
            kept.append(call_next(request).parse())
        return kept[0]

    client = client_of(api, middleware=[cache])
    for _ in range(3):
        assert client.messages.create(**ASKED).usage.input_tokens == api.served[0].input
    agree(recorded(), api)


def test_an_answer_that_a_helper_cannot_read_was_paid_for(api: AnthropicApi, recorded: Any) -> None:
    # The text is no JSON of the wanted form.
    if not hasattr(Anthropic(api_key="key").messages, "parse"):
        pytest.skip("this version has no parse()")
    from pydantic import BaseModel, ValidationError

    class City(BaseModel):
        city: str

    client = client_of(api, max_retries=0)
    with pytest.raises((ValidationError, json.JSONDecodeError, anthropic.AnthropicError, ValueError)):
        client.messages.parse(**ASKED, output_format=City)
    assert len(api.served) == 1
    agree(recorded(), api)

"""Calls through OpenAI's own SDK, held against what a server on loopback says it served."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI, OpenAI

from agentops_monitoring import AgentOpsMonitor, instrument
from agentops_monitoring.instrument.openai import NO_USAGE
from agentops_monitoring.testing import capture_events
from tests.fakes.openai_api import OpenaiApi
from tests.fakes.oracle import agree, read

from .conftest import read_events

ASKED: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Weather?"}]}
COUNTED: dict[str, Any] = {**ASKED, "stream": True, "stream_options": {"include_usage": True}}
RESPOND: dict[str, Any] = {"model": "gpt-4o-mini", "input": "Weather in Paris?"}
EMBED: dict[str, Any] = {"model": "text-embedding-3-small", "input": ["Paris", "Rome"]}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
responses_api = pytest.mark.skipif(not hasattr(OpenAI, "responses"), reason="an older version")


@pytest.fixture
def api() -> Iterator[OpenaiApi]:
    instrument.install()
    with OpenaiApi() as server:
        yield server


def client_of(api: OpenaiApi, **options: Any) -> OpenAI:
    return OpenAI(api_key="key", base_url=f"{api.url}/v1", **options)


def async_client_of(api: OpenaiApi, **options: Any) -> AsyncOpenAI:
    return AsyncOpenAI(api_key="key", base_url=f"{api.url}/v1", **options)


def city() -> Any:
    from pydantic import BaseModel

    class City(BaseModel):
        city: str

    return City


def chat_parse(client: OpenAI) -> Any:
    completions: Any = client.chat.completions
    if not hasattr(completions, "parse"):
        completions = client.beta.chat.completions
    return completions.parse(**ASKED, response_format=city()).choices[0].message.parsed.city


def chat_helper(client: OpenAI) -> None:
    completions: Any = client.chat.completions
    if not hasattr(completions, "stream"):
        completions = client.beta.chat.completions
    with completions.stream(**ASKED, stream_options={"include_usage": True}) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().usage.total_tokens > 0


def streamed_body(client: OpenAI, read_body: Callable[[Any], object], **asked: Any) -> None:
    with client.chat.completions.with_streaming_response.create(**asked) as response:
        assert read_body(response)


WAYS: dict[str, Callable[[OpenAI], object]] = {
    "chat": lambda client: client.chat.completions.create(**ASKED),
    "chat with tools": lambda client: client.chat.completions.create(**ASKED, tools=[TOOL]),
    "chat at another tier": lambda client: client.chat.completions.create(
        **{**ASKED, "model": "gpt-5-mini"}, service_tier="flex"
    ),
    "chat stream": lambda client: list(client.chat.completions.create(**COUNTED)),
    "chat stream with tools": lambda client: list(client.chat.completions.create(**COUNTED, tools=[TOOL])),
    "chat helper": chat_helper,
    "chat parse": chat_parse,
    "chat raw": lambda client: client.chat.completions.with_raw_response.create(**ASKED).parse(),
    "chat raw, not parsed": lambda client: client.chat.completions.with_raw_response.create(**ASKED).text,
    "chat raw stream": lambda client: list(
        client.chat.completions.with_raw_response.create(**COUNTED).parse()
    ),
    "chat streamed body": lambda client: streamed_body(client, lambda got: got.parse(), **ASKED),
    "chat streamed lines": lambda client: streamed_body(
        client, lambda got: list(got.iter_lines()), **COUNTED
    ),
    "chat streamed events": lambda client: streamed_body(client, lambda got: list(got.parse()), **COUNTED),
    "chat read at once": lambda client: streamed_body(client, lambda got: got.read(), **COUNTED),
    "embeddings": lambda client: client.embeddings.create(**EMBED).data[0].embedding,
    "embeddings raw": lambda client: client.embeddings.with_raw_response.create(**EMBED).parse(),
    "copied client": lambda client: client.with_options(timeout=9).chat.completions.create(**ASKED),
    "a path by hand": lambda client: client.post("/chat/completions", cast_to=object, body=ASKED),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_answer_is_one_event(way: str, api: OpenaiApi, recorded: Any) -> None:
    WAYS[way](client_of(api))
    agree(recorded(), api)
    assert {event["data"]["gen_ai.provider.name"] for event in recorded()} == {"openai"}


def respond_helper(client: OpenAI) -> None:
    with client.responses.stream(**RESPOND) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == "Hello there!"


RESPONSES: dict[str, Callable[[OpenAI], object]] = {
    "create": lambda client: client.responses.create(**RESPOND).output_text,
    "stream": lambda client: list(client.responses.create(**RESPOND, stream=True)),
    "helper": respond_helper,
    "parse": lambda client: client.responses.parse(**RESPOND, text_format=city()).output_parsed,
    "raw": lambda client: client.responses.with_raw_response.create(**RESPOND).parse(),
    "raw stream": lambda client: list(
        client.responses.with_raw_response.create(**RESPOND, stream=True).parse()
    ),
    "kept": lambda client: client.responses.retrieve(client.responses.create(**RESPOND).id),
    "background": lambda client: [
        client.responses.retrieve(made.id)
        for made in [client.responses.create(**RESPOND, background=True)]
        for _ in range(3)
    ],
    "background stream": lambda client: [
        client.responses.retrieve(event.response.id)
        for event in client.responses.create(**RESPOND, background=True, stream=True)
        if event.type == "response.completed"
    ],
}


@responses_api
@pytest.mark.parametrize("way", RESPONSES)
def test_each_response_is_one_event(way: str, api: OpenaiApi, recorded: Any) -> None:
    RESPONSES[way](client_of(api))
    agree(recorded(), api)


async def chat_streamed(client: AsyncOpenAI) -> None:
    async for _ in await client.chat.completions.create(**COUNTED):
        pass


async def raw_streamed(client: AsyncOpenAI) -> None:
    response = await client.chat.completions.with_raw_response.create(**COUNTED)
    async for _ in response.parse():
        pass


async def body_streamed(client: AsyncOpenAI) -> None:
    async with client.chat.completions.with_streaming_response.create(**COUNTED) as response:
        assert [line async for line in response.iter_lines()]


async def at_once(client: AsyncOpenAI) -> None:
    await asyncio.gather(*(chat_streamed(client) for _ in range(5)), client.embeddings.create(**EMBED))


ASYNC_WAYS: dict[str, Callable[[AsyncOpenAI], Awaitable[object]]] = {
    "chat": lambda client: client.chat.completions.create(**ASKED),
    "chat stream": chat_streamed,
    "raw stream": raw_streamed,
    "streamed body": body_streamed,
    "embeddings": lambda client: client.embeddings.create(**EMBED),
    "at once": at_once,
}


@pytest.mark.parametrize("way", ASYNC_WAYS)
def test_each_answer_to_an_async_client_is_one_event(way: str, api: OpenaiApi, recorded: Any) -> None:
    async def run() -> None:
        async with async_client_of(api) as client:
            await ASYNC_WAYS[way](client)

    asyncio.run(run())
    agree(recorded(), api)


@pytest.mark.parametrize("streamed", [False, True])
def test_the_results_of_a_batch_count_once(streamed: bool, api: OpenaiApi, recorded: Any) -> None:
    client = client_of(api)
    file_id = api.batch_output(
        [("/v1/chat/completions", ASKED), ("/v1/embeddings", EMBED), ("/v1/chat/completions", ASKED)]
    )
    for _ in range(2):
        if streamed:
            with client.files.with_streaming_response.content(file_id) as response:
                assert len(list(response.iter_lines())) == 3
        else:
            assert client.files.content(file_id).text.count("\n") == 3
    agree(recorded(), api)


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff\n" * 1000, b'{"custom_id": "a", "usage": {}}\n', b'[{"usage":1}]']
)
def test_other_files_are_no_model_calls(content: bytes, api: OpenaiApi, recorded: Any) -> None:
    api.files["file-9"] = content
    assert client_of(api).files.content("file-9").read() == content
    assert recorded() == []


def test_azure_bills_the_model_behind_the_deployment(api: OpenaiApi, recorded: Any) -> None:
    api.answers_as = "gpt-4o-mini-2024-07-18"
    client = openai.AzureOpenAI(api_key="key", azure_endpoint=api.url, api_version="2024-10-21")
    client.chat.completions.create(**{**ASKED, "model": "our-own-name"})
    list(client.chat.completions.create(**{**COUNTED, "model": "gpt-4o"}))
    agree(recorded(), api)
    assert {event["data"]["gen_ai.provider.name"] for event in recorded()} == {"azure.ai.openai"}


def test_a_name_without_a_price_is_billed_as_what_answered(api: OpenaiApi, recorded: Any) -> None:
    api.answers_as = "gpt-4o-mini-2024-07-18"
    client_of(api).chat.completions.create(**{**ASKED, "model": "router-of-ours"})
    agree(recorded(), api)


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.deepseek.com", "deepseek"),
        ("https://api.x.ai/v1", "x_ai"),
        ("https://ours.openai.azure.com/openai/v1", "azure.ai.openai"),
        ("http://localhost:11434/v1", "openai"),
    ],
)
def test_who_else_speaks_openais_protocol(url: str, provider: str, api: OpenaiApi, recorded: Any) -> None:
    import openai._base_client as base  # its HTTP client goes by another name in older versions

    http = getattr(base, "httpx2", None) or base.httpx  # type: ignore[attr-defined]
    body = {"id": "x", "model": "m", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    transport = http.MockTransport(lambda request: http.Response(200, json=body, request=request))
    client = OpenAI(api_key="key", base_url=url, http_client=http.Client(transport=transport))
    client.chat.completions.create(**ASKED)
    (event,) = recorded()
    assert event["data"]["gen_ai.provider.name"] == provider


def test_a_stream_that_names_no_tokens_is_unpriced_and_says_why(api: OpenaiApi, recorded: Any) -> None:
    assert len(list(client_of(api).chat.completions.create(**ASKED, stream=True))) == 5
    (event,) = recorded()
    assert event["data"]["cost_usd"] is None
    assert event["data"]["gen_ai.response.id"] == api.served[0].id
    assert event["problems"] == [NO_USAGE]
    # The agent's request went out as it made it: with the option it would have got one more chunk.
    assert "stream_options" not in api.requests[0].body


def test_a_stream_that_is_left_at_its_finish_reason(api: OpenaiApi, recorded: Any) -> None:
    api.pause_after = 5  # the last chunk, which has the tokens, is not out yet
    with client_of(api).chat.completions.create(**COUNTED) as stream:
        for chunk in stream:
            if chunk.choices[0].finish_reason:
                break
    api.go_on.set()
    (event,) = recorded()
    assert event["data"]["cost_usd"] is None
    assert "not read to its end" in event["problems"][0]


@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", b"data:[DONE]\r\n\r\n"])
def test_figures_in_each_chunk_are_totals(end: bytes, api: OpenaiApi, recorded: Any) -> None:
    chunk = (
        'data: {"id":"c-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o-mini","choices":'
        '[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":7,"completion_tokens":%d}}\n\n'
    )
    body = [(chunk % number).encode() for number in (1, 2, 3)] + [end]
    api.failures.append(api.overloaded()._replace(status=200, content_type="text/event-stream", body=body))
    assert len(list(client_of(api).chat.completions.create(**ASKED, stream=True))) == 3
    (event,) = recorded()
    assert (read(event).input, read(event).output) == (7, 3)


def test_an_answer_cut_off_that_a_helper_refuses_was_paid_for(api: OpenaiApi, recorded: Any) -> None:
    completions: Any = client_of(api).chat.completions
    if not hasattr(completions, "parse"):
        completions = client_of(api).beta.chat.completions
    asked = {**ASKED, "messages": [{"role": "user", "content": "x"}]}
    cut = {
        "id": "chatcmpl-9", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "{"}, "finish_reason": "length"},
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11},
    }  # fmt: skip
    api.failures.append(api.overloaded()._replace(status=200, body=json.dumps(cut).encode()))
    with pytest.raises(openai.LengthFinishReasonError):
        completions.parse(**asked, response_format=city())
    (event,) = recorded()
    assert event["type"] == "llm_usage"
    assert (read(event).input, read(event).output) == (5, 6)


def test_reported_by_hand_as_well_counts_once(api: OpenaiApi, recorded: Any) -> None:
    monitor = AgentOpsMonitor("agent")
    client = client_of(api)
    cost = monitor.track_llm_usage(response=client.chat.completions.create(**ASKED))
    for chunk in client.chat.completions.create(**COUNTED):
        if chunk.usage:
            monitor.track_llm_usage(response=chunk)
    agree([event for event in recorded() if event["type"] == "llm_usage"], api)
    assert str(cost) == recorded()[0]["data"]["cost_usd"]


def test_a_stream_in_any_pieces_of_any_text_is_one_event(api: OpenaiApi, full_size: bool) -> None:
    @given(
        texts=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=6)
        | st.just(['"usage":{"prompt_tokens":1}', "\n\ndata: [DONE]\n\n", "\r"]),
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
            chunks = list(client.chat.completions.create(**COUNTED))
            said = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
            assert "".join(said) == "".join(texts)
        agree(read_events("".join(events.lines)), api)

    client = client_of(api)
    check()


def test_a_stream_that_a_transport_has_read_already(api: OpenaiApi, recorded: Any) -> None:
    import openai._base_client as base

    http = getattr(base, "httpx2", None) or base.httpx  # type: ignore[attr-defined]
    chunk = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}
    usage = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
    last = json.dumps({**chunk, "choices": [], "usage": usage})
    headers = {"content-type": "text/event-stream"}
    transport = http.MockTransport(
        lambda _: http.Response(200, headers=headers, text=f"data: {last}\n\ndata: [DONE]\n\n")
    )
    client = OpenAI(api_key="key", http_client=http.Client(transport=transport))
    assert len(list(client.chat.completions.create(**COUNTED))) == 1
    (event,) = recorded()
    assert (read(event).input, read(event).output) == (5, 6)


@responses_api
def test_a_response_that_failed_names_no_tokens(api: OpenaiApi, recorded: Any) -> None:
    failed = {"id": "resp_1", "object": "response", "status": "failed", "model": "gpt-4o-mini", "usage": None}
    line = f"event: response.failed\ndata: {json.dumps({'type': 'response.failed', 'response': failed})}\n\n"
    api.failures.append(
        api.overloaded()._replace(status=200, content_type="text/event-stream", body=[line.encode()])
    )
    assert len(list(client_of(api).responses.create(**RESPOND, stream=True))) == 1
    (event,) = recorded()
    assert event["data"]["cost_usd"] is None
    assert event["problems"] == ["the response names no tokens"]

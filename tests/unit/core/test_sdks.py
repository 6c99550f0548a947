"""What holds for both SDKs of models: whose a call is, and what is left of one that fails."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import anthropic
import anthropic._base_client
import openai
import openai._base_client
import pytest

from agentops_monitoring import AgentOpsMonitor, instrument, monitored
from agentops_monitoring.instrument import body
from agentops_monitoring.testing import capture_events
from tests.fakes.anthropic_api import AnthropicApi
from tests.fakes.openai_api import OpenaiApi
from tests.fakes.oracle import agree
from tests.fakes.server import ModelServer

from .conftest import read_events

MODULES = {"anthropic": anthropic._base_client, "openai": openai._base_client}


class Sdk:
    """One SDK, and a server for it."""

    def __init__(self, name: str, api: Any) -> None:
        self.name = name
        self.api: ModelServer = api
        self.overloaded = api.overloaded
        self._options: dict[str, Any] = {"api_key": "key", "base_url": api.url}
        if name == "openai":
            self._options["base_url"] += "/v1"

    def client(self, *, retries: int = 0, asynchronous: bool = False) -> Any:
        module = sys.modules[self.name]
        kind = {
            ("anthropic", False): "Anthropic",
            ("anthropic", True): "AsyncAnthropic",
            ("openai", False): "OpenAI",
            ("openai", True): "AsyncOpenAI",
        }[self.name, asynchronous]
        return getattr(module, kind)(**self._options, max_retries=retries)

    def ask(self, client: Any, *, stream: bool = False) -> Any:
        """Make a call, or the coroutine of one."""
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": "Weather?"}]}
        if self.name == "anthropic":
            return client.messages.create(
                model="claude-haiku-4-5-20251001", max_tokens=64, stream=stream, **asked
            )
        if stream:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        return client.chat.completions.create(model="gpt-4o-mini", **asked)


@pytest.fixture(params=["anthropic", "openai"])
def sdk(request: pytest.FixtureRequest) -> Iterator[Sdk]:
    instrument.install()
    with AnthropicApi() if request.param == "anthropic" else OpenaiApi() as server:
        yield Sdk(request.param, server)


def test_what_others_put_on_top_stays_and_ours_sleeps(
    sdk: Sdk, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = MODULES[sdk.name].SyncAPIClient
    ours = kind.request
    monkeypatch.setattr(kind, "request", lambda *given, **named: ours(*given, **named))
    theirs = kind.request
    sdk.ask(sdk.client())
    agree(recorded(), sdk.api)
    instrument.uninstall()
    assert kind.request is theirs
    sdk.ask(sdk.client())
    assert len(recorded()) == 1
    monkeypatch.undo()
    kind.request = getattr(ours, "__wrapped__")  # noqa: B009 - what it was before this test


def test_a_stream_that_outlives_the_patches_records_nothing(sdk: Sdk, recorded: Any) -> None:
    stream = sdk.ask(sdk.client(), stream=True)
    instrument.uninstall()
    assert list(stream)
    assert recorded() == []


@pytest.mark.parametrize("stream", [False, True])
def test_retries_are_one_call(stream: bool, sdk: Sdk, recorded: Any) -> None:
    sdk.api.failures.extend([sdk.overloaded(), sdk.overloaded(429)])
    answer = sdk.ask(sdk.client(retries=2), stream=stream)
    if stream:
        list(answer)
    assert len(sdk.api.requests) == 3
    agree(recorded(), sdk.api)


def test_a_refusal_is_no_usage_but_a_span_with_its_error(sdk: Sdk, recorded: Any) -> None:
    sdk.api.failures.append(sdk.overloaded(429))
    with pytest.raises(sys.modules[sdk.name].RateLimitError) as raised:
        sdk.ask(sdk.client())
    assert raised.value.status_code == 429
    (span,) = recorded()
    assert span["type"] == "span"
    assert span["data"]["error"] == {"type": f"{sdk.name}.RateLimitError", "status_code": 429}
    assert span["data"]["duration_ms"] > 0


def test_a_server_out_of_reach_is_a_span_with_its_error(sdk: Sdk, recorded: Any) -> None:
    client = sdk.client().with_options(base_url="http://127.0.0.1:9")
    with pytest.raises(sys.modules[sdk.name].APIConnectionError):
        sdk.ask(client)
    (span,) = recorded()
    assert span["data"]["error"] == {"type": f"{sdk.name}.APIConnectionError"}


def half_read(event: dict[str, Any]) -> None:
    assert event["type"] == "llm_usage"
    assert event["data"]["cost_usd"] is None
    assert event["data"]["gen_ai.usage.output_tokens"] is None
    assert event["problems"]


@pytest.mark.parametrize("how", ["not read", "left", "closed", "left and closed"])
def test_a_stream_that_is_not_read_to_its_end_is_said_at_once(how: str, sdk: Sdk, recorded: Any) -> None:
    sdk.api.pause_after = 3
    stream = sdk.ask(sdk.client(), stream=True)
    if "left" in how:
        for _ in stream:
            break
    if "closed" in how:
        stream.close()
    else:
        del stream
        gc.collect()  # OpenAI's own stream is part of a cycle
    half_read(*recorded())
    sdk.api.go_on.set()


def test_what_is_watched_is_dropped_at_once() -> None:
    class Response:
        def iter_bytes(self, chunk_size: int | None) -> Iterator[bytes]:
            yield b"a"

        def close(self) -> None: ...

        aiter_bytes, aclose = iter_bytes, close

    class Reader:
        def feed(self, chunk: bytes) -> None: ...

        def end(self, *, complete: bool) -> None:
            ends.append(complete)

    ends: list[bool] = []
    gc.disable()
    try:
        for started in (False, True):
            response = Response()
            body.watch(response, Reader())
            dropped = weakref.ref(response)
            chunks = response.iter_bytes(None)
            if started:
                next(chunks)
            del response, chunks
            assert dropped() is None
    finally:
        gc.enable()
    assert ends == [False, False]


def test_a_response_that_the_collector_takes_is_closed() -> None:
    """What reads one, in a cycle as OpenAI's stream is, closes it when weak references to it are gone."""
    closed: list[Any] = []

    class Response:
        def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
            yield from (b"a", b"b")

        def close(self) -> None:
            closed.append(self.__class__)

        aiter_bytes, aclose = iter_bytes, close

    class Reader:
        def feed(self, chunk: bytes) -> None: ...

        def end(self, *, complete: bool) -> None: ...

    def read(response: Any) -> Iterator[bytes]:
        try:
            chunks = response.iter_bytes()
            for chunk in chunks:  # noqa: UP028 - what is read lives on when the reader ends
                yield chunk
        finally:
            response.close()

    response = Response()
    body.watch(response, Reader())
    stream = SimpleNamespace(chunks=read(response))
    stream.itself = stream
    next(stream.chunks)
    del stream, response
    gc.collect()
    assert closed == [Response]


def test_in_strict_mode_as_well(sdk: Sdk) -> None:
    sdk.api.pause_after = 3
    with capture_events(strict=True, offline=False) as events:
        sdk.ask(sdk.client(), stream=True).close()
    half_read(*read_events("".join(events.lines)))
    sdk.api.go_on.set()


def test_a_connection_that_breaks_amid_a_stream(sdk: Sdk, recorded: Any) -> None:
    sdk.api.cut_after = 3
    with pytest.raises(Exception, match=r"peer closed|incomplete|Connection"):
        list(sdk.ask(sdk.client(), stream=True))
    half_read(*recorded())


def test_a_cancelled_call_is_unpriced(sdk: Sdk, recorded: Any) -> None:
    sdk.api.hold_answers = True

    async def agent() -> None:
        client = sdk.client(asynchronous=True)
        call = asyncio.ensure_future(sdk.ask(client))
        await asyncio.to_thread(sdk.api.arrived.wait, 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        sdk.api.go_on.set()
        await client.close()

    asyncio.run(agent())
    half_read(*recorded())
    assert "cancelled" in recorded()[0]["problems"][0]


def test_a_cancelled_stream_is_unpriced(sdk: Sdk, recorded: Any) -> None:
    sdk.api.pause_after = 3

    async def agent() -> None:
        client = sdk.client(asynchronous=True)
        seen = asyncio.Event()

        async def read() -> None:
            async for _ in await sdk.ask(client, stream=True):
                seen.set()

        reading = asyncio.ensure_future(read())
        await asyncio.wait_for(seen.wait(), 10)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        sdk.api.go_on.set()
        await client.close()

    asyncio.run(agent())
    half_read(*recorded())


def test_calls_belong_to_the_code_that_makes_them(sdk: Sdk, recorded: Any) -> None:
    monitor = AgentOpsMonitor("agent")
    client = sdk.client()

    def work(number: int) -> None:
        with monitor.workflow(f"order-{number}"):
            if number % 2:
                sdk.ask(client)
            else:
                stream = sdk.ask(client, stream=True)
                # Read by another thread, which knows of no workflow.
                reader = threading.Thread(target=lambda: list(stream))
                reader.start()
                reader.join()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))
    agree(recorded(), sdk.api)
    assert sorted(event["workflow_id"] for event in recorded()) == sorted(
        f"order-{number}" for number in range(16)
    )


def test_tasks_do_not_mix(sdk: Sdk, recorded: Any) -> None:
    monitor = AgentOpsMonitor("agent")

    async def work(client: Any, number: int) -> None:
        with monitor.workflow(f"order-{number}"):
            stream = await sdk.ask(client, stream=True)

        async def read() -> None:
            async for _ in stream:
                await asyncio.sleep(0)

        await asyncio.create_task(read())

    async def agent() -> None:
        async with sdk.client(asynchronous=True) as client:
            await asyncio.gather(*(work(client, number) for number in range(8)))

    asyncio.run(agent())
    agree(recorded(), sdk.api)
    assert {event["workflow_id"] for event in recorded()} == {f"order-{number}" for number in range(8)}


def test_a_handler_with_a_thread_of_its_own(sdk: Sdk, in_lambda: None, recorded: Any) -> None:
    client = sdk.client()

    @monitored
    def handler(event: Any, context: Any) -> None:
        worker = threading.Thread(target=sdk.ask, args=(client,))
        worker.start()
        worker.join()

    handler({}, SimpleNamespace(aws_request_id="9a6b3c52-8e0f-4d5a-9a53-52a9a1b0c7de"))
    events = recorded()
    usage = [event for event in events if event["type"] == "llm_usage"]
    agree(usage, sdk.api)
    assert {event["request_id"] for event in events} == {"9a6b3c52-8e0f-4d5a-9a53-52a9a1b0c7de"}
    assert len({event["workflow_id"] for event in events}) == 1

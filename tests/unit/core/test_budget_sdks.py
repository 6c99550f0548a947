"""Calls of Anthropic's and OpenAI's SDKs held to a budget; the oracle is what their servers billed."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import anthropic
import openai
import pytest
from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI

from agentops_monitoring import BudgetExceeded, instrument, pricing
from agentops_monitoring.enforcement import sdks
from agentops_monitoring.instrument import model_calls
from tests.fakes.anthropic_api import AnthropicApi
from tests.fakes.openai_api import OpenaiApi
from tests.fakes.server import Served

from .budgets import Enforced, cost_of

CLAUDE: dict[str, Any] = {
    "model": "claude-haiku-4-5-20251001",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "Weather in Paris?"}],
}
GPT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": CLAUDE["messages"], "max_completion_tokens": 64}
COUNTED: dict[str, Any] = {**GPT, "stream": True, "stream_options": {"include_usage": True}}
RESPONSE: dict[str, Any] = {"model": "gpt-4o-mini", "input": "Weather?", "max_output_tokens": 64}


class HonestClaude(AnthropicApi):
    """Takes no more tokens than the request allows and has bytes, as a model does."""

    def _generate(self, body: dict[str, Any], model: str) -> tuple[dict[str, Any], Served]:
        message, served = super()._generate(body, model)
        count = self.random.randrange
        prompt = len("".join(each["content"] for each in body["messages"])) + 30
        served = Served(served.id, model, count(1, prompt), count(1, body["max_tokens"] + 1))
        usage = {"input_tokens": served.input, "output_tokens": served.output}
        return {**message, "usage": {**message["usage"], **usage}}, served


class HonestGpt(OpenaiApi):
    """The same for OpenAI."""

    def _count(self, model: str, tier: object, prefix: str) -> Served:
        count = self.random.randrange
        return Served(f"{prefix}{self.identifier()}", model, count(1, 60), count(1, 65))


@pytest.fixture
def claude(in_lambda: None) -> Iterator[AnthropicApi]:
    with HonestClaude() as server:
        yield server


@pytest.fixture
def gpt(in_lambda: None) -> Iterator[OpenaiApi]:
    with HonestGpt() as server:
        yield server


def billed(api: Any) -> Decimal:
    """Return what a provider bills for what it served, in USD."""
    total = Decimal(0)
    for each in list(api.served):
        usage = pricing.TokenUsage(each.input, each.output, each.read, each.write, each.write_1h, each.tier)
        cost = pricing.llm_cost(each.model, usage)
        assert cost is not None
        total += cost
    return total


def claude_client(api: Any, kind: Any = Anthropic, **options: Any) -> Any:
    return kind(api_key="key", **{"base_url": api.url, "max_retries": 0, **options})


def gpt_client(api: Any, kind: Any = OpenAI, **options: Any) -> Any:
    return kind(api_key="key", base_url=f"{api.url}/v1", **{"max_retries": 0, **options})


def helper(client: Any) -> None:
    with client.messages.stream(**CLAUDE) as stream:
        stream.until_done()


async def create_async(client: Any) -> None:
    await client.messages.create(**CLAUDE)


async def stream_async(client: Any) -> None:
    async for _ in await client.messages.create(**CLAUDE, stream=True):
        pass


async def chat_async(client: Any) -> None:
    await client.chat.completions.create(**GPT)


async def chat_stream_async(client: Any) -> None:
    async for _ in await client.chat.completions.create(**COUNTED):
        pass


WAYS: dict[str, Callable[[Any], object]] = {
    "claude": lambda api: claude_client(api).messages.create(**CLAUDE),
    "claude stream": lambda api: list(claude_client(api).messages.create(**CLAUDE, stream=True)),
    "claude helper": lambda api: helper(claude_client(api)),
    "claude raw": lambda api: claude_client(api).messages.with_raw_response.create(**CLAUDE).parse(),
    "claude async": lambda api: asyncio.run(create_async(claude_client(api, AsyncAnthropic))),
    "claude async stream": lambda api: asyncio.run(stream_async(claude_client(api, AsyncAnthropic))),
    "gpt": lambda api: gpt_client(api).chat.completions.create(**GPT),
    "gpt stream": lambda api: list(gpt_client(api).chat.completions.create(**COUNTED)),
    "gpt response": lambda api: gpt_client(api).responses.create(**RESPONSE),
    "gpt response stream": lambda api: list(gpt_client(api).responses.create(**RESPONSE, stream=True)),
    "gpt embedding": lambda api: gpt_client(api).embeddings.create(
        model="text-embedding-3-small", input=["a text", "another"]
    ),
    "gpt async": lambda api: asyncio.run(chat_async(gpt_client(api, AsyncOpenAI))),
    "gpt async stream": lambda api: asyncio.run(chat_stream_async(gpt_client(api, AsyncOpenAI))),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_call_is_booked_at_what_it_cost_and_refused_without_room(
    way: str, request: pytest.FixtureRequest, recorded: Any
) -> None:
    api = request.getfixturevalue(way.partition(" ")[0])
    budget = Enforced("1")
    WAYS[way](api)
    assert budget.held == 0
    assert budget.booked == billed(api) == cost_of(recorded()) > 0
    assert budget.table.calls == 2
    small = Enforced("0.000001")
    with pytest.raises(BudgetExceeded):
        WAYS[way](api)
    assert len(api.requests) == 1
    assert small.held == small.booked == 0


def test_threads_racing_through_a_client_never_exceed_the_budget(
    claude: AnthropicApi, recorded: Any, full_size: bool
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    claude.random.seed(seed)
    client = claude_client(claude, timeout=30)
    threads = 64 if full_size else 16
    for _ in range(200 if full_size else 1):
        claude.forget()
        budget = Enforced("0.005")

        def call(number: int) -> bool:
            asked = {**CLAUDE, "max_tokens": 100 + 10 * number}
            try:
                client.messages.create(**asked)
            except BudgetExceeded:
                return False
            return True

        with ThreadPoolExecutor(threads) as pool:
            made = list(pool.map(call, range(threads)))
        assert sum(made) == len(claude.served)
        assert 0 < sum(made) < threads
        assert billed(claude) <= Decimal("0.005")
        assert budget.held == 0
        assert budget.booked == billed(claude)


@pytest.mark.parametrize("status", [400, 429, 500])
def test_an_error_of_the_provider_costs_nothing(status: int, claude: AnthropicApi, recorded: Any) -> None:
    budget = Enforced("1")
    claude.failures.append(claude.overloaded(status))
    with pytest.raises(anthropic.APIStatusError):
        claude_client(claude).messages.create(**CLAUDE)
    assert budget.held == budget.booked == 0
    assert budget.item


def test_a_time_out_on_the_way_keeps_the_worst_case(claude: AnthropicApi, recorded: Any) -> None:
    budget = Enforced("1")
    claude.failures.append(claude.overloaded(504))
    with pytest.raises(anthropic.APIStatusError):
        claude_client(claude).messages.create(**CLAUDE)
    assert budget.held == 0
    assert budget.booked > Decimal("0.0003")


def test_retries_are_one_call(claude: AnthropicApi, recorded: Any) -> None:
    budget = Enforced("1")
    claude.failures += [claude.overloaded(), claude.overloaded()]
    claude_client(claude, max_retries=2).messages.create(**CLAUDE)
    assert budget.table.calls == 2
    assert budget.booked == billed(claude)


def test_what_a_cache_in_between_answers_costs_nothing(claude: AnthropicApi, recorded: Any) -> None:
    if "middleware" not in (Anthropic.__init__.__kwdefaults__ or {}):
        pytest.skip("a version before 1.0")
    kept: list[Any] = []

    def cache(request: Any, call_next: Any) -> Any:
        if not kept:
            kept.append(call_next(request).parse())
        return kept[0]

    budget = Enforced("1")
    client = claude_client(claude, middleware=[cache])
    for _ in range(3):
        client.messages.create(**CLAUDE)
    assert budget.held == 0
    assert budget.booked == billed(claude) > 0
    assert budget.table.calls == 6


def test_no_answer_in_time_keeps_the_worst_case_and_no_connection_does_not(
    claude: AnthropicApi, recorded: Any
) -> None:
    budget = Enforced("1")
    with pytest.raises(anthropic.APIConnectionError):
        claude_client(claude, base_url="http://127.0.0.1:9").messages.create(**CLAUDE)
    assert budget.held == budget.booked == 0
    claude.hold_answers = True
    with pytest.raises(anthropic.APITimeoutError):
        claude_client(claude, timeout=0.2).messages.create(**CLAUDE)
    claude.go_on.set()
    assert budget.held == 0
    assert budget.booked > Decimal("0.0003")


def test_a_cancelled_call_keeps_the_worst_case(claude: AnthropicApi, recorded: Any) -> None:
    budget = Enforced("1")
    claude.hold_answers = True

    async def cancelled() -> None:
        task = asyncio.create_task(create_async(claude_client(claude, AsyncAnthropic)))
        await asyncio.to_thread(claude.arrived.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    claude.go_on.set()
    assert budget.held == 0
    assert budget.booked > Decimal("0.0003")


def test_a_call_that_is_given_up_before_it_is_made_holds_nothing(claude: AnthropicApi, recorded: Any) -> None:
    budget = Enforced("1")
    asked, go_on = threading.Event(), threading.Event()

    def slow(when: str) -> None:
        asked.set()
        assert go_on.wait(10)

    budget.table.fault = slow

    async def given_up() -> None:
        task = asyncio.create_task(create_async(claude_client(claude, AsyncAnthropic)))
        await asyncio.to_thread(asked.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()

    asyncio.run(given_up())
    assert budget.table.calls == 2
    assert budget.held == budget.booked == 0
    assert claude.requests == []


def test_a_loop_of_another_make_waits_itself(claude: AnthropicApi, recorded: Any) -> None:
    budget = Enforced("1")
    answer: Any = SimpleNamespace(
        request=("anthropic", "/v1/messages"), call=model_calls.begin("claude-haiku-4-5", "anthropic")
    )
    assert instrument.guard is not None
    admitted = sdks.admit_async(instrument.guard, answer, SimpleNamespace(json_data=CLAUDE))
    with pytest.raises(StopIteration):  # it came to its end with no loop of asyncio's
        admitted.send(None)
    assert budget.held > 0


@pytest.mark.parametrize("way", ["claude", "gpt"])
def test_a_model_in_the_extra_body_is_the_one_that_is_billed(
    way: str, request: pytest.FixtureRequest, recorded: Any
) -> None:
    api = request.getfixturevalue(way)

    def call(**more: Any) -> None:
        if way == "claude":
            claude_client(api).messages.create(**CLAUDE, **more)
        else:
            gpt_client(api).chat.completions.create(**GPT, **more)

    other = {"model": {"claude": "claude-opus-4-1", "gpt": "gpt-4o"}[way]}
    budget = Enforced("1")
    call(extra_body=other)
    assert recorded()[0]["data"]["gen_ai.request.model"] == other["model"]
    assert budget.booked == billed(api)
    Enforced("0.0000001")
    with pytest.raises(BudgetExceeded) as cheap:
        call()
    with pytest.raises(BudgetExceeded) as dear:
        call(extra_body=other)
    assert (cheap.value.asked_usd or 0) * 3 < (dear.value.asked_usd or 0)


@pytest.mark.parametrize("where", ["call", "client"])
def test_a_beta_of_the_headers_is_seen(where: str, claude: AnthropicApi, recorded: Any) -> None:
    beta = {"anthropic-beta": "context-1m-2025-08-07"}
    Enforced("1")
    client = claude_client(claude, default_headers=beta if where == "client" else {})
    picture = {"type": "image", "source": {"type": "url", "url": "https://x"}}
    asked = {**CLAUDE, "messages": [{"role": "user", "content": [picture]}]}
    with pytest.raises(BudgetExceeded) as refused:
        client.messages.create(**asked, extra_headers=beta if where == "call" else {})
    assert refused.value.asked_usd is not None
    assert refused.value.asked_usd > 1  # a million tokens at $1 a million


def test_calls_of_one_loop_wait_for_the_table_at_once(claude: AnthropicApi, recorded: Any) -> None:
    budget = Enforced("1")
    together = threading.Barrier(4)
    waited: list[int] = []

    def meet(when: str) -> None:
        if when == "before" and len(waited) < 4:
            waited.append(together.wait(10))  # breaks if the loop made one call wait for another

    budget.table.fault = meet

    async def calls() -> None:
        client = claude_client(claude, AsyncAnthropic)
        await asyncio.gather(*(client.messages.create(**CLAUDE) for _ in range(4)))

    asyncio.run(calls())
    assert len(waited) == 4
    assert budget.held == 0
    assert budget.booked == billed(claude)


UNBOUNDED: dict[str, tuple[str, Callable[[Any], object]]] = {
    "claude searches": (
        "runs web_search",
        lambda api: claude_client(api).messages.create(
            **CLAUDE, tools=[{"type": "web_search_20250305", "name": "web_search"}]
        ),
    ),
    "gpt searches": (
        "runs web_search",
        lambda api: gpt_client(api).responses.create(**RESPONSE, tools=[{"type": "web_search"}]),
    ),
    "gpt makes an image": (
        "images/generations",
        lambda api: gpt_client(api).images.generate(model="gpt-image-1", prompt="a cat"),
    ),
    "gpt batch": (
        "/batches",
        lambda api: gpt_client(api).batches.create(
            input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h"
        ),
    ),
    "gpt deployment": (
        "no price",
        lambda api: gpt_client(api).chat.completions.create(**{**GPT, "model": "our-deployment"}),
    ),
}


@pytest.mark.parametrize("way", UNBOUNDED)
def test_what_nothing_bounds_is_refused(way: str, request: pytest.FixtureRequest, recorded: Any) -> None:
    api = request.getfixturevalue(way.partition(" ")[0])
    Enforced("1000000")
    why, call = UNBOUNDED[way]
    with pytest.raises(BudgetExceeded, match=why):
        call(api)
    assert api.requests == []


def test_a_batch_is_booked_when_it_is_made_and_not_again(claude: AnthropicApi, recorded: Any) -> None:
    budget = Enforced("1")
    client = claude_client(claude)
    batch = client.messages.batches.create(
        requests=[{"custom_id": str(each), "params": CLAUDE} for each in range(3)]
    )
    booked = budget.booked
    assert budget.held == 0
    assert booked > 3 * Decimal("0.0003")
    assert len(list(client.messages.batches.results(batch.id))) == 4
    assert budget.booked == booked
    assert cost_of(recorded()) < booked


def test_a_response_in_the_background_is_booked_when_it_is_made(gpt: OpenaiApi, recorded: Any) -> None:
    budget = Enforced("1")
    client = gpt_client(gpt)
    made = client.responses.create(**RESPONSE, background=True)
    booked = budget.booked
    assert budget.held == 0
    assert booked > Decimal("0.00003")
    client.responses.retrieve(made.id)
    assert budget.booked == booked
    assert cost_of(recorded()) > 0


def test_several_answers_count_as_many(gpt: OpenaiApi, recorded: Any) -> None:
    with pytest.raises(BudgetExceeded) as one:
        Enforced("0.0000001") and gpt_client(gpt).chat.completions.create(**GPT)
    with pytest.raises(BudgetExceeded) as three:
        Enforced("0.0000001") and gpt_client(gpt).chat.completions.create(**GPT, n=3)
    assert one.value.asked_usd is not None
    assert three.value.asked_usd is not None
    # Two times 64 tokens more, at the priority tier that the project may have: $1.20 a million or less.
    more = three.value.asked_usd - one.value.asked_usd
    assert Decimal("0.0000768") <= more <= Decimal("0.0001600")


def test_the_exceptions_of_the_sdk_itself_are_as_without_a_budget(gpt: OpenaiApi, recorded: Any) -> None:
    Enforced("1")
    gpt.failures.append(gpt.overloaded(429))
    with pytest.raises(openai.RateLimitError):
        gpt_client(gpt).chat.completions.create(**GPT)
    assert json.loads(json.dumps(recorded()[0]["data"]["error"]))["status_code"] == 429

"""Calls of boto3's Bedrock client that are held to a budget."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ParamValidationError,
    ReadTimeoutError,
)

from agentops_monitoring import BudgetExceeded, instrument, monitored
from agentops_monitoring.budget import BudgetUnreachable
from agentops_monitoring.enforcement import guard

from .aws_server import Aws
from .budgets import Enforced, cost_of
from .invoked import REQUEST
from .test_bedrock import CONVERSE, CONVERSE_STREAM, MESSAGES, MODEL

LIMITED: dict[str, Any] = {"modelId": MODEL, "messages": MESSAGES, "inferenceConfig": {"maxTokens": 1000}}
WORST = Decimal("0.0165")
"""Nearly what it may cost: 1,000 tokens out at $15 a million, and what is around the messages at $3."""
USED = {**CONVERSE, "usage": {"inputTokens": 11, "outputTokens": 12, "totalTokens": 23}}


@pytest.fixture
def enforce(aws: Aws, in_lambda: None) -> Callable[..., Enforced]:
    return Enforced


def client(**config: Any) -> Any:
    options: Any = {"retries": {"total_max_attempts": 1}, **config}
    return boto3.session.Session().client("bedrock-runtime", config=Config(**options))


def test_a_call_that_fits_is_booked_at_what_it_cost(enforce: Any, aws: Aws, recorded: Any) -> None:
    budget = enforce("1")
    aws.answer(USED)
    bedrock = client()
    assert bedrock.converse(**LIMITED)["usage"]["outputTokens"] == 12
    assert budget.booked == cost_of(recorded()) > 0
    assert budget.held == 0
    assert budget.table.calls == 2
    (event,) = recorded()
    assert "problems" not in event


def test_a_call_that_does_not_fit_is_not_made(enforce: Any, aws: Aws, recorded: Any) -> None:
    budget = enforce("0.02")
    aws.answer(USED)
    bedrock = client()
    bedrock.converse(**LIMITED)
    with pytest.raises(BudgetExceeded) as refused:
        bedrock.converse(**{**LIMITED, "inferenceConfig": {"maxTokens": 1300}})
    assert len(aws.requests) == 1
    call, event = recorded()
    error = refused.value
    assert (error.agent, error.limit_usd, error.model) == ("engineer", Decimal("0.02"), MODEL)
    assert error.spent_usd == cost_of([call])
    assert error.reserved_usd == 0
    assert error.asked_usd is not None
    assert error.asked_usd > Decimal("0.0195")
    for part in ("engineer", "$0.02", f"${error.spent_usd:f}", f"${error.asked_usd:f}"):
        assert part in str(error)
    assert event["type"] == "budget_exceeded"
    assert event["data"]["refused"] is True
    assert event["data"]["spent_usd"] == f"{error.spent_usd:f}"
    assert event["data"]["reason"] == str(error)
    # One that needs less is made.
    aws.answer(USED)
    bedrock.converse(**{**LIMITED, "inferenceConfig": {"maxTokens": 10}})
    assert budget.booked == cost_of(recorded())


def test_under_warn_it_is_made_and_booked(enforce: Any, aws: Aws, recorded: Any) -> None:
    budget = enforce("0.001", on_exceed="warn")
    aws.answer(USED)
    client().converse(**LIMITED)
    assert [event["type"] for event in recorded()] == ["budget_exceeded", "llm_usage"]
    assert recorded()[0]["data"]["refused"] is False
    assert budget.booked == cost_of(recorded())
    assert budget.held == 0


def test_a_stream_is_settled_with_its_tokens(enforce: Any, aws: Aws, recorded: Any) -> None:
    budget = enforce("1")
    aws.answer(CONVERSE_STREAM)
    answer = client().converse_stream(**LIMITED)
    assert budget.held > WORST
    list(answer["stream"])
    assert budget.held == 0
    assert budget.booked == cost_of(recorded())


@pytest.mark.parametrize("how", ["close", "drop", "break"])
def test_a_stream_that_is_not_read_to_its_end_keeps_the_worst_case(
    how: str, enforce: Any, aws: Aws, recorded: Any
) -> None:
    budget = enforce("1")
    aws.answer(CONVERSE_STREAM)
    answer = client().converse_stream(**LIMITED)
    if how == "break":
        for _ in answer["stream"]:
            break
    if how != "drop":
        answer["stream"].close()
    del answer
    assert budget.held == 0
    assert budget.booked > WORST


def test_what_nobody_bills_is_given_back(enforce: Any, aws: Aws, recorded: Any) -> None:
    budget = enforce("1")
    bedrock = client()
    aws.answer({"message": "slow"}, status=429, headers={"x-amzn-ErrorType": "ThrottlingException"})
    with pytest.raises(ClientError):
        bedrock.converse(**LIMITED)
    away = boto3.session.Session().client("bedrock-runtime", endpoint_url="http://127.0.0.1:9")
    with pytest.raises(EndpointConnectionError):
        away.converse(**LIMITED)
    assert budget.item  # it was reserved
    asked = budget.table.calls
    with pytest.raises(ParamValidationError):
        bedrock.converse(**{**LIMITED, "messages": "none"})
    assert budget.table.calls == asked
    assert budget.held == budget.booked == 0


def test_a_call_that_is_not_answered_in_time_keeps_the_worst_case(
    enforce: Any, aws: Aws, recorded: Any
) -> None:
    budget = enforce("1")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the request, and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        config = Config(read_timeout=0.1, retries={"total_max_attempts": 1})
        hanging = boto3.session.Session().client("bedrock-runtime", endpoint_url=url, config=config)
        with pytest.raises(ReadTimeoutError):
            hanging.converse(**LIMITED)
    assert budget.held == 0
    assert budget.booked > WORST


def test_a_model_without_a_price_is_refused_under_block_alone(enforce: Any, aws: Aws, recorded: Any) -> None:
    unpriced = {**LIMITED, "modelId": "acme.unheard-of-v1:0"}
    enforce("1")
    with pytest.raises(BudgetExceeded, match="no price") as refused:
        client().converse(**unpriced)
    assert refused.value.asked_usd is None
    assert aws.requests == []
    instrument.uninstall()
    enforce("1", on_exceed="warn")
    aws.answer(USED)
    client().converse(**unpriced)
    assert [event["type"] for event in recorded()] == ["budget_exceeded", "budget_exceeded", "llm_usage"]


def test_under_warn_what_nothing_bounds_is_booked_when_its_cost_is_known(
    enforce: Any, aws: Aws, recorded: Any
) -> None:
    budget = enforce("0.00001", on_exceed="warn")
    aws.answer(USED)
    grounded = {"tools": [{"systemTool": {"name": "nova_grounding"}}]}
    client().converse(**LIMITED, toolConfig=grounded)
    assert [event["type"] for event in recorded()] == ["budget_exceeded", "llm_usage"]
    assert budget.booked == cost_of(recorded())
    assert budget.held == 0


def test_a_stream_that_is_collected_while_the_table_is_asked_waits_for_its_turn(
    enforce: Any, aws: Aws, recorded: Any
) -> None:
    budget = enforce("1")
    bedrock = client()
    aws.answer(CONVERSE_STREAM)
    unread = [bedrock.converse_stream(**LIMITED)]
    depth: list[int] = []

    def collect(when: str) -> None:
        depth.append(len(depth))
        unread.clear()  # as the garbage collector may, anywhere
        if when == "after":
            depth.clear()
        assert len(depth) < 2, "asked in the midst of asking, which a connection pool's lock would never end"

    budget.table.fault = collect
    aws.answer(USED)
    bedrock.converse(**LIMITED)
    assert budget.held == 0
    assert budget.booked > WORST


def test_without_a_limit_to_the_answer_its_context_window_counts(
    enforce: Any, aws: Aws, recorded: Any
) -> None:
    budget = enforce("5")
    aws.answer(CONVERSE_STREAM)
    answer = client().converse_stream(modelId=MODEL, messages=MESSAGES)
    assert budget.held > 3  # 200,000 tokens at $15 a million
    list(answer["stream"])
    assert budget.booked == cost_of(recorded())
    instrument.uninstall()
    enforce("2.5")
    with pytest.raises(BudgetExceeded):
        client().converse(modelId=MODEL, messages=MESSAGES)


def test_a_body_of_a_models_own(enforce: Any, aws: Aws, recorded: Any) -> None:
    budget = enforce("1")
    aws.answer({"id": "msg_1", "usage": {"input_tokens": 5, "output_tokens": 7}})
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50, "messages": []}
    bedrock = client()
    bedrock.invoke_model(modelId="anthropic.claude-3-haiku-20240307-v1:0", body=json.dumps(body))
    assert budget.booked == cost_of(recorded()) > 0
    with pytest.raises(BudgetExceeded, match="cannot be read"):
        bedrock.invoke_model(modelId="anthropic.claude-3-haiku-20240307-v1:0", body=b"no JSON")


def test_a_tier_of_a_models_own_body_stands_in_its_headers(enforce: Any, aws: Aws, recorded: Any) -> None:
    enforce("1")
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50, "messages": []}
    asked = {"modelId": "anthropic.claude-3-haiku-20240307-v1:0", "body": json.dumps(body)}
    for dearer in ({"serviceTier": "priority"}, {"performanceConfigLatency": "optimized"}):
        with pytest.raises(BudgetExceeded, match="no price"):
            client().invoke_model(**asked, **dearer)
    assert aws.requests == []


# --- a table that cannot be reached


def unreachable(when: str) -> None:
    raise ConnectTimeoutError(endpoint_url="https://dynamodb")


def test_open_makes_the_call_says_so_and_books_it_later(
    enforce: Any, aws: Aws, recorded: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [time.time()]
    budget = enforce("1", now=lambda: now[0])
    asked: list[str] = []

    def fail(when: str) -> None:
        asked.append(when)
        unreachable(when)

    budget.table.fault = fail
    bedrock = client()
    for _ in range(3):
        aws.answer(USED)
        bedrock.converse(**LIMITED)
    assert len(asked) == 1  # the next ones do not wait again
    for event in recorded():
        assert event["type"] == "llm_usage"
        assert "budget could not be asked" in event["problems"][0]
    assert capsys.readouterr().err.count("cannot be reached") == 1
    budget.table.fault = lambda when: None
    now[0] += 11
    aws.answer(USED)
    bedrock.converse(**LIMITED)
    assert budget.booked == cost_of(recorded())
    assert "problems" not in recorded()[-1]


def test_what_an_outage_owes_is_booked_at_once_and_once(enforce: Any, aws: Aws, recorded: Any) -> None:
    now = [time.time()]
    budget = enforce("1", now=lambda: now[0])
    budget.table.fault = unreachable
    bedrock = client()

    def call() -> None:
        aws.answer(USED)
        bedrock.converse(**LIMITED)

    for _ in range(20):
        call()
    now[0] += 11
    asked = budget.table.calls

    def lose(when: str) -> None:
        if when == "after" and budget.table.calls == asked + 2:
            unreachable(when)  # the answer that the mark of what is owed is settled

    budget.table.fault = lose
    call()
    now[0] += 11
    call()
    assert budget.booked == cost_of(recorded())
    assert len(recorded()) == 22
    # Two updates for twenty calls, and one that is repeated; then what each call takes.
    assert budget.table.calls - asked <= 9


def test_closed_refuses_the_call(enforce: Any, aws: Aws, recorded: Any) -> None:
    budget = enforce("1", when_unreachable="closed", on_exceed="warn")
    budget.table.fault = unreachable
    with pytest.raises(BudgetUnreachable, match="cannot be reached"):
        client().converse(**LIMITED)
    assert aws.requests == []
    (event,) = recorded()
    assert event["type"] == "budget_exceeded"
    assert event["data"]["refused"] is True


def test_what_could_not_be_settled_is_settled_before_the_next_call(
    enforce: Any, aws: Aws, recorded: Any
) -> None:
    now = [time.time()]
    budget = enforce("1", now=lambda: now[0])
    aws.answer(CONVERSE_STREAM)
    bedrock = client()
    answer = bedrock.converse_stream(**LIMITED)
    budget.table.fault = unreachable
    list(answer["stream"])
    assert budget.held > WORST
    budget.table.fault = lambda when: None
    now[0] += 11
    aws.answer(USED)
    bedrock.converse(**LIMITED)
    assert budget.held == 0
    assert budget.booked == cost_of(recorded())


# --- when reservations end


def test_a_reservation_outlives_its_invocation_by_a_minute(enforce: Any, aws: Aws, recorded: Any) -> None:
    now = [1_795_334_400.0]
    budget = enforce("0.03", now=lambda: now[0])
    context = SimpleNamespace(aws_request_id=REQUEST, get_remaining_time_in_millis=lambda: 30_000)

    @monitored(agent_name="engineer")
    def handler(event: Any, context: Any) -> Any:
        return client().converse_stream(**LIMITED)

    # `monitored` finds the hooks installed; the answer is kept and never read, as by a process that died.
    for _ in range(2):
        aws.answer(CONVERSE_STREAM)
    dead = handler({}, context)
    with pytest.raises(BudgetExceeded):
        handler({}, context)
    now[0] += 89
    with pytest.raises(BudgetExceeded):
        handler({}, context)
    now[0] += 2
    alive = handler({}, context)
    assert Decimal(budget.item["released"]["N"]) > WORST
    del dead, alive


def test_a_day_that_ends_during_a_call_books_it_in_the_day_it_began(
    enforce: Any, aws: Aws, recorded: Any
) -> None:
    now = [1_795_391_999.0]  # 2026-11-22T23:59:59Z
    budget = enforce("1", now=lambda: now[0])
    aws.answer(CONVERSE_STREAM)
    answer = client().converse_stream(**LIMITED)
    now[0] += 60
    list(answer["stream"])
    assert budget.item == {}
    now[0] -= 60
    assert budget.booked == cost_of(recorded())


def test_the_exception_goes_from_process_to_process(enforce: Any, aws: Aws, recorded: Any) -> None:
    enforce("0.001")
    with pytest.raises(BudgetExceeded) as refused:
        client().converse(**LIMITED)
    enforce("0.001", when_unreachable="closed").table.fault = unreachable
    with pytest.raises(BudgetUnreachable) as away:
        client().converse(**LIMITED)
    for error in (refused.value, away.value):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


# --- how it is turned on


def test_an_agent_without_a_budget_loads_nothing_of_it(root: Path) -> None:
    code = (
        "import sys, agentops_monitoring.wrapper, boto3\n"
        "boto3.session.Session(region_name='us-east-1').client('bedrock-runtime')\n"
        "print([name for name in sys.modules if 'budget' in name or 'enforcement' in name])"
    )
    environment = {**os.environ, "PYTHONPATH": str(root / "runtime")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("value", ["much", "{}", '{"daily_usd":"1","when":"now"}', '{"daily_usd":"-1"}'])
def test_a_budget_that_makes_no_sense_keeps_the_agent_from_starting(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOPS_BUDGET", value)
    with pytest.raises(ValueError, match="budget"):
        instrument.install()


def test_a_number_alone_is_a_budget_that_blocks(monkeypatch: pytest.MonkeyPatch, in_lambda: None) -> None:
    monkeypatch.setenv("AGENTOPS_BUDGET", "0.10")
    instrument.install()
    assert instrument.guard is not None
    assert instrument.guard.budget.daily_usd == Decimal("0.10")
    assert instrument.guard.budget.blocks
    assert instrument.guard.agent == "engineer"


def test_the_table_is_asked_in_bounded_time_and_anew_after_a_fork(
    monkeypatch: pytest.MonkeyPatch, in_lambda: None
) -> None:
    monkeypatch.setenv("AGENTOPS_BUDGET", "1")
    given = guard.from_environment()
    connected = given._connected()
    config = connected._client.meta.config
    assert (config.connect_timeout, config.read_timeout) == (1, 1)
    assert config.retries["total_max_attempts"] == 2
    child = os.fork()
    if child == 0:
        os._exit(0 if given._connected() is not connected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert given._connected() is connected


def test_what_is_settled_while_a_call_is_refused_makes_room_for_it(
    enforce: Any, aws: Aws, recorded: Any
) -> None:
    budget = enforce("0.03")
    bedrock = client()
    aws.answer(CONVERSE_STREAM)
    unread = [bedrock.converse_stream(**LIMITED)["stream"]]
    asked = budget.table.calls

    def end(when: str) -> None:
        if when == "before" and budget.table.calls == asked and unread:
            list(unread.pop())  # in the midst of asking, so that it waits for its turn

    budget.table.fault = end
    aws.answer(USED)
    bedrock.converse(**LIMITED)
    assert budget.held == 0
    assert budget.booked == cost_of(recorded())
    assert [event["type"] for event in recorded()] == ["llm_usage", "llm_usage"]


def test_a_child_process_settles_what_is_its_own(enforce: Any, aws: Aws, recorded: Any) -> None:
    budget = enforce("1")
    aws.answer(CONVERSE_STREAM)
    answer = client().converse_stream(**LIMITED)
    child = os.fork()
    if child == 0:
        try:
            answer["stream"].close()  # the parent's call: nothing of it is this process's
            assert budget.held > WORST
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    list(answer["stream"])
    assert budget.held == 0
    assert budget.booked == cost_of(recorded())


def test_a_process_that_ends_settles_what_its_loop_left(enforce: Any, aws: Aws, recorded: Any) -> None:
    budget = enforce("1")
    aws.answer(USED)

    async def call() -> None:
        client().converse(**LIMITED)  # whose settlement the loop must not wait for

    asyncio.run(call())
    assert budget.held == 0
    assert budget.booked == cost_of(recorded())

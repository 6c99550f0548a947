"""Handlers that answer in pieces."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from agentops_monitoring import AgentOpsMonitor, monitored, trace

from .invoked import CONTEXT, ONE, inside


def stream(event: Any, context: Any) -> Any:
    """Answer in pieces, as frameworks for streamed responses have it."""
    monitor = AgentOpsMonitor()
    with monitor.span("writing"):
        for number in range(event["pieces"]):
            got = yield number
            monitor.record_event("test_passed", {"got": got})
    return "the end"


def test_a_generator_is_one_invocation_up_to_its_end(in_lambda: None, recorded: Any) -> None:
    pieces = monitored(stream)({"pieces": 2}, CONTEXT)
    assert recorded() == [], "nothing runs before the first piece is asked for"
    with AgentOpsMonitor().workflow("of-the-reader") as outside:
        assert next(pieces) == 0
        assert trace.current() is outside
        assert pieces.send("a") == 1
        assert trace.current() is outside
        with pytest.raises(StopIteration) as end:
            pieces.send("b")
        assert trace.current() is outside
    assert end.value.value == "the end"
    events = recorded()
    assert inside(events) == [ONE[0], "test_passed", "test_passed", "span", ONE[2]]
    assert [event["data"]["got"] for event in events[1:3]] == ["a", "b"]
    assert {event["parent_id"] for event in events[1:3]} == {events[3]["span_id"]}


def test_generators_that_take_turns_do_not_mix(in_lambda: None, recorded: Any) -> None:
    handler = monitored(stream)
    several = [handler({"pieces": 3}, SimpleNamespace(aws_request_id=f"request-{n}")) for n in range(4)]
    with AgentOpsMonitor().workflow("of-the-reader"):
        for _ in range(3):
            for pieces in several:
                next(pieces)
                AgentOpsMonitor().record_event("issue_detected")
        for pieces in several:
            assert list(pieces) == []
    by_request: dict[Any, set[str]] = {}
    for event in recorded():
        by_request.setdefault(event["request_id"], set()).add(event["workflow_id"])
    assert by_request.pop(None) == {"of-the-reader"}
    assert len(by_request) == 4
    assert all(len(each) == 1 for each in by_request.values())
    assert [event["type"] for event in recorded()].count("invocation_completed") == 4


def test_a_reader_that_leaves_early_is_no_failure(in_lambda: None, recorded: Any) -> None:
    pieces = monitored(stream)({"pieces": 5}, CONTEXT)
    next(pieces)
    pieces.close()
    completed = recorded()[-1]
    assert completed["type"] == "invocation_completed"
    assert completed["data"]["closed_early"] is True
    pieces = monitored(stream)({"pieces": 5}, CONTEXT)
    next(pieces)
    del pieces
    assert recorded()[-1]["data"]["closed_early"] is True


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_generator_whose_end_fails_has_failed(asynchronous: bool, in_lambda: None, recorded: Any) -> None:
    @monitored
    def pieces(event: Any, context: Any) -> Any:
        try:
            yield 1
        finally:
            raise OSError("the upload could not be finished")

    @monitored
    async def later(event: Any, context: Any) -> Any:
        try:
            yield 1
        finally:
            raise OSError("the upload could not be finished")

    async def leave_later() -> None:
        answer = later({}, CONTEXT)
        await anext(answer)
        await answer.aclose()

    def leave() -> None:
        answer = pieces({}, CONTEXT)
        next(answer)
        answer.close()

    with pytest.raises(OSError, match="upload"):
        asyncio.run(leave_later()) if asynchronous else leave()
    assert [event["type"] for event in recorded()] == ["invocation_started", "invocation_failed"]


def test_what_the_reader_throws_into_a_generator_arrives(in_lambda: None, recorded: Any) -> None:
    @monitored
    def handler(event: Any, context: Any) -> Any:
        try:
            yield 1
        except KeyError:
            yield 2
        raise ValueError("in the end")

    pieces = handler({}, CONTEXT)
    assert next(pieces) == 1
    assert pieces.throw(KeyError()) == 2
    with pytest.raises(ValueError, match="in the end"):
        next(pieces)
    assert recorded()[-1]["data"]["error"]["type"] == "ValueError"


@pytest.mark.parametrize("leaves_early", [True, False])
def test_asynchronous_generators(leaves_early: bool, in_lambda: None, recorded: Any) -> None:
    @monitored
    async def handler(event: Any, context: Any) -> Any:
        for number in range(3):
            await asyncio.sleep(0)
            AgentOpsMonitor().record_event("test_passed", {"request": context.aws_request_id})
            yield number

    async def read(n: int) -> list[int]:
        found = []
        pieces = handler({}, SimpleNamespace(aws_request_id=f"request-{n}"))
        async for piece in pieces:
            found.append(piece)
            await asyncio.sleep(0)
            if leaves_early:
                await pieces.aclose()
                break
        return found

    async def read_all() -> list[list[int]]:
        return await asyncio.gather(*(read(n) for n in range(5)))

    assert asyncio.run(read_all()) == [[0] if leaves_early else [0, 1, 2]] * 5
    events = recorded()
    assert all(e["request_id"] == e["data"]["request"] for e in events if e["type"] == "test_passed")
    ends = [event for event in events if event["type"] == "invocation_completed"]
    assert len(ends) == 5
    assert all(event["data"].get("closed_early", False) is leaves_early for event in ends)

"""Holds what was recorded against what a server says it served."""

from __future__ import annotations

from typing import Any

from tests.fakes.server import ModelServer, Served


def read(event: dict[str, Any]) -> Served:
    """Return what an event says of a model call."""
    data = event["data"]
    return Served(
        data.get("gen_ai.response.id"),
        data["gen_ai.request.model"],
        data["gen_ai.usage.input_tokens"],
        data["gen_ai.usage.output_tokens"],
        data["gen_ai.usage.cache_read.input_tokens"],
        data["gen_ai.usage.cache_creation.input_tokens"],
        data["cache_creation_1h.input_tokens"],
        data["tier"],
    )


_WITHOUT_A_PRICE = {("text-embedding-3-small", "batch")}
"""Nor do our sources have one."""


def agree(events: list[dict[str, Any]], server: ModelServer) -> None:
    """Fail unless each answer that was served is one event, with its price, and nothing else was recorded."""
    assert not server.broken
    assert server.served
    assert [event["type"] for event in events] == ["llm_usage"] * len(server.served)
    assert sorted(map(read, events), key=str) == sorted(server.served, key=str)
    for event in events:
        assert event["data"]["source"] == "auto"
        assert "problems" not in event
        # A priority tier is bought in advance: not all of them have a price a token.
        tier = event["data"]["tier"]
        if tier != "priority" and (event["data"]["gen_ai.request.model"], tier) not in _WITHOUT_A_PRICE:
            assert float(event["data"]["cost_usd"]) > 0

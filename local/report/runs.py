"""What each workflow did, from the raw lines: what the same seed must give again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

_TOKENS = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cache_read_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
}
_ENDS = {"workflow_completed": "completed", "workflow_failed": "failed"}


def runs(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tell of each workflow what does not follow the clock: events by type, tokens, LLM cost and outcome.

    Returns
    -------
    list
        One entry a workflow, in an order that does not depend on ids or time; costs as decimal strings, USD.
    """
    by_workflow: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        by_workflow.setdefault(str(event["workflow_id"]), []).append(event)
    told = [_run(group) for group in by_workflow.values()]
    return sorted(told, key=lambda run: (run["function"], run["llm_usd"], run["outcome"]))


def _run(events: list[Mapping[str, Any]]) -> dict[str, Any]:
    data = [(str(event["type"]), event.get("data") or {}) for event in events]
    calls = [fields for kind, fields in data if kind == "llm_usage"]
    types = Counter(kind for kind, _ in data)
    functions = [str(fields["function"]) for kind, fields in data if kind == "issue_detected"]
    return {
        "function": functions[0] if functions else "",
        "outcome": "+".join(sorted(end for kind, end in _ENDS.items() if types[kind])),
        "attempts": types["code_generated"],
        "events": dict(sorted(types.items())),
        **{name: sum(int(call.get(field) or 0) for call in calls) for name, field in _TOKENS.items()},
        "llm_usd": f"{sum((Decimal(call.get('cost_usd') or 0) for call in calls), Decimal()):f}",
    }

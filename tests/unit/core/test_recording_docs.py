"""docs/recording.md: each example runs, in order, as one program."""

from __future__ import annotations

import re
import textwrap
from decimal import Decimal
from pathlib import Path
from typing import Any

from agentops_monitoring import AgentOpsMonitor, redaction
from agentops_monitoring.testing import capture_events

PAGE = Path(__file__).parents[3] / "docs" / "recording.md"


def examples() -> list[str]:
    found = re.findall(r"^( *)```python\n(.*?)^ *```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(code) for _, code in found]


def handler(event: dict[str, Any], context: Any) -> None:
    monitor = AgentOpsMonitor("engineer")
    monitor.track_llm_usage(model="claude-3-opus", input_tokens=1000, output_tokens=500)
    monitor.record_decision(decision_type="d", reasoning_chain=[], confidence_score=0.9)
    monitor.send_message(to="qa", message_type="patch.ready", payload={"patch": event["issue"]})


def test_the_examples_do_what_the_page_says() -> None:
    names: dict[str, Any] = {"search": lambda query: [query], "handler": handler, "Decimal": Decimal}
    with capture_events() as events:
        for example in examples():
            exec(example, names)
        filters = redaction.filters
        redaction.use(None)
    assert names["cost"] == Decimal("0.0525")
    assert events.types == [
        "issue_detected", "order_placed", "decision_made", "decision_outcome", "decision_outcome",
        "llm_usage", "span", "span", "order_placed", "span", "order_placed", "workflow_completed",
    ]  # fmt: skip
    assert events[4].workflow_id == "order-17"
    assert events.tools[0].data["gen_ai.tool.call.result"] == ["p99"]
    assert events[8].parent_id == events[9].span_id
    assert events[9].data["found"] == 3
    assert events[10].tags == {"plan": "pro", "step": 2}
    assert events[11].user_id == "u-1"
    assert [each("ACME Ltd") for each in filters] == ["[CUSTOMER] Ltd"]


def test_the_test_of_the_page_passes_and_can_fail() -> None:
    names: dict[str, Any] = {"handler": handler, "Decimal": Decimal}
    exec(examples()[-1], names)
    with capture_events() as events:
        names["test_the_engineer_decides"](events)
    assert events.types.count("invocation_completed") == 1


def test_every_public_method_stands_on_the_page() -> None:
    text = PAGE.read_text()
    methods = [name for name, value in vars(AgentOpsMonitor).items() if callable(value) and name[0] != "_"]
    assert [name for name in methods if f"monitor.{name}(" not in text] == []

"""Any value whatever in any argument: no call raises, no event gets lost, each line is whole and says why."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, UserDict, deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from agentops_monitoring import AgentEventType, AgentOpsMonitor, encoding, redaction
from agentops_monitoring.testing import capture_events

from .conftest import read_events

SEED = int(os.environ.get("AGENTOPS_TEST_SEED", "20261122"))
FULL = os.environ.get("AGENTOPS_TEST_SIZE") == "full"
EXAMPLES = 20_000 if FULL else 300


def touched(*_: Any, **__: Any) -> Any:
    raise RuntimeError("touched")


def ended(*_: Any, **__: Any) -> Any:
    raise StopIteration


def exhausted(*_: Any, **__: Any) -> Any:
    raise RecursionError


BASES = [object, str, int, float, dict, list, tuple, set, bytes, UserDict, Exception]
HOOKS = (
    "__repr__", "__str__", "__eq__", "__bool__", "__iter__", "__class__", "__len__", "__hash__", "__float__",
    "__int__", "__index__", "__getattribute__", "__getattr__", "__format__", "__fspath__", "__contains__",
    "__getitem__", "__lt__", "__call__", "isoformat", "model_dump", "tolist", "total_seconds", "items",
    "keys", "__dict__", "__name__", "__qualname__", "__module__", "__dataclass_fields__",
)  # fmt: skip


def odd_type(hooks: list[str], how: Callable[..., Any], base: type) -> Any:
    """Make a class some of whose methods and attributes raise."""
    attributes = ("__class__", "__dict__", "__name__", "__qualname__", "__module__", "__dataclass_fields__")
    body = {name: property(how) if name in attributes else how for name in hooks}
    body["__qualname__"] = "Odd"  # type: ignore[assignment]
    return type("Odd", (base,), body)


@st.composite
def odd_objects(draw: st.DrawFn) -> Any:
    hooks = draw(st.lists(st.sampled_from(HOOKS), min_size=1, max_size=6, unique=True))
    kind = odd_type(hooks, draw(st.sampled_from([touched, ended, exhausted])), draw(st.sampled_from(BASES)))
    return kind.__new__(kind)


class Changing(dict[str, int]):
    """A mapping that grows while it is read."""

    def items(self) -> Any:
        for number, item in enumerate(list(super().items())):
            self[f"new-{number}"] = number
            yield item


def generator() -> Iterator[dict[str, str]]:
    yield {"thought": "from a generator"}


def cycle() -> list[Any]:
    inner: dict[str, Any] = {}
    whole = [inner, (inner,)]
    inner["whole"] = whole
    return whole


def deep(depth: int = 400) -> Any:
    value: Any = "bottom"
    for number in range(depth):
        value = [value] if number % 2 else {"in": value}
    return value


MAKERS: list[Callable[[], Any]] = [
    cycle, deep, generator, object, Changing, threading.Lock,
    lambda: Changing(a=1, b=2), lambda: OrderedDict(a=1), lambda: deque([1]), lambda: range(3),
    lambda: {1: 2, "1": 3, None: 4}, lambda: {("a", 1): {2}}, lambda: memoryview(b"abc")[::2],
    lambda: {"password": "p", "tokens": 5, "api_key": object()},
    lambda: "\ud800\udfff", lambda: "\x00\u2028\n", lambda: "x" * 70_000, lambda: b"\xff" * 70_000,
    lambda: 10**5_000, lambda: -(10**5_000), lambda: Decimal("NaN"), lambda: Decimal("sNaN"),
    lambda: Decimal("1E+999999"), lambda: AgentEventType.TEST_PASSED, lambda: AgentEventType, lambda: type,
    lambda: touched, lambda: datetime.now(UTC), lambda: KeyError("k"),
    lambda: BaseExceptionGroup("g", [ValueError()]),
]  # fmt: skip
made = st.sampled_from(MAKERS).map(lambda make: make())
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(...)
    | st.text(st.characters(exclude_categories=()), max_size=5) | st.complex_numbers() | st.fractions()
)  # fmt: skip
keys = scalars | st.tuples(st.integers(), st.text())
values: st.SearchStrategy[Any] = st.recursive(
    scalars | made | odd_objects(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)
        | st.tuples(inner, inner) | st.frozensets(st.integers() | st.text())
    ),
    max_leaves=8,
)  # fmt: skip
# Often right, so that what lies behind a check is reached as well.
GOOD = ["d", "gpt-4o", "claude-3-opus", "order-17", 0.5, 1, 1_000, True, {"a": 1}, [{"thought": "t"}]]
good = st.sampled_from(GOOD)
any_value = values | values | good

Call = Callable[[AgentOpsMonitor, Any, Any, Any, Any], Any]
CALLS: dict[str, Call] = {
    "record_event": lambda m, a, b, c, d: m.record_event(a, b),
    "record_decision": lambda m, a, b, c, d: m.record_decision(
        decision_type=a, reasoning_chain=b, inputs=c, outputs=d, confidence_score=c, alternatives=d,
        decision_id=a,
    ),
    "record_outcome": lambda m, a, b, c, d: m.record_outcome(
        a, correct=b, score=c, evidence=d, workflow_id=b
    ),
    "track_llm_usage": lambda m, a, b, c, d: m.track_llm_usage(
        model=a, input_tokens=b, output_tokens=c, cache_read_tokens=d, tier=a, region=b, provider=c,
        response_id=d, duration_ms=b, metadata=c,
    ),
    "track_llm_usage response": lambda m, a, b, c, d: m.track_llm_usage(
        response={"model": a, "id": b, "usage": c}
    ),
    "track_llm_usage object": lambda m, a, b, c, d: m.track_llm_usage(model=a, response=b),
    "track_tool": lambda m, a, b, c, d: m.track_tool(a, arguments=b, result=c, error=d, duration_ms=a),
    "complete_workflow": lambda m, a, b, c, d: m.complete_workflow(a, field=b),
    "fail_workflow": lambda m, a, b, c, d: m.fail_workflow(a, field=b, other=c),
    "span": lambda m, a, b, c, d: through(m.span(a, field=b)),
    "tool": lambda m, a, b, c, d: through(m.tool(a, arguments=b), result=c, error=d),
    "context": lambda m, a, b, c, d: recorded_in(m, m.context(user_id=a, session_id=b, tags=c)),
    "workflow": lambda m, a, b, c, d: recorded_in(m, m.workflow(a, user_id=b, session_id=c, tags=d)),
    "message": lambda m, a, b, c, d: through(
        m.message({"messageId": a, "body": b, "messageAttributes": {"agentops": c}, "eventSource": d})
    ),
    "message, any": lambda m, a, b, c, d: through(m.message(a)),
    "a monitor's name": lambda m, a, b, c, d: AgentOpsMonitor(a).record_event("test_passed"),
}  # fmt: skip


def through(scope: Any, **attributes: Any) -> None:
    with scope as begun:
        for name, value in attributes.items():
            setattr(begun, name, value)


def recorded_in(monitor: AgentOpsMonitor, scope: Any) -> None:
    with scope:
        monitor.record_event("test_passed")


budget = settings(
    max_examples=EXAMPLES // (2 * len(CALLS)) + 1,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)


@pytest.mark.parametrize("name", CALLS)
def test_no_value_raises_or_loses_the_event(name: str) -> None:
    call = CALLS[name]

    @seed(SEED)
    @budget
    @given(any_value, any_value, any_value, any_value)
    def fuzz(a: Any, b: Any, c: Any, d: Any) -> None:
        with capture_events(strict=False) as events:
            call(AgentOpsMonitor("a"), a, b, c, d)
        # The independent reader: valid JSON, whole, no line above 60,000 bytes, no event twice.
        assert len(read_events("".join(events.lines))) == 1

    print(f"AGENTOPS_TEST_SEED={SEED}")
    fuzz()


@pytest.mark.parametrize("name", CALLS)
def test_strict_mode_raises_for_wrong_arguments_alone(name: str) -> None:
    """What the default mode says in the line is what strict mode raises, and nothing else is."""
    call = CALLS[name]

    @seed(SEED + 1)
    @budget
    @given(any_value, any_value, any_value, any_value)
    def fuzz(a: Any, b: Any, c: Any, d: Any) -> None:
        if name != "a monitor's name":
            # Iterators are empty the second time.
            a, b, c, d = ([] if isinstance_of(each, Iterator) else each for each in (a, b, c, d))
        with capture_events(strict=True) as events:
            raised = None
            try:
                call(AgentOpsMonitor("a"), a, b, c, d)
            except ValueError as error:
                raised = error
        assert (raised is None) == (len(read_events("".join(events.lines))) == 1)
        with capture_events(strict=False) as events:
            call(AgentOpsMonitor("a"), a, b, c, d)
        (event,) = read_events("".join(events.lines))
        wrong = [each for each in event.get("problems", ()) if not each.startswith("no price")]
        assert (raised is not None) == bool(wrong), (raised, wrong)

    print(f"AGENTOPS_TEST_SEED={SEED}")
    fuzz()


def isinstance_of(value: object, kind: type) -> bool:
    return issubclass(type(value), kind)


def test_filters_meet_any_value_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOPS_REDACT", "secrets,email,card")

    @seed(SEED)
    @budget
    @given(any_value, any_value)
    def fuzz(a: Any, b: Any) -> None:
        with capture_events(strict=False) as events:
            AgentOpsMonitor("a").record_event("test_passed", {"a": a, "mail": "bob@example.com", "b": b})
        (event,) = read_events("".join(events.lines))
        assert event["data"]["mail"] == "[REDACTED]"

    fuzz()
    monkeypatch.delenv("AGENTOPS_REDACT")
    redaction.configure()


@pytest.mark.parametrize("piece", ["x", '"', "\\", "\u2028", "é", "\ud800", "\U0001f600"])
def test_long_texts(piece: str, full_size: bool, recorded: Any) -> None:
    length = 10_000_000 if full_size else 300_000
    AgentOpsMonitor("a").record_event("test_passed", {"text": piece * length, "password": piece * length})
    (event,) = recorded()
    assert event["data"]["password"] == "[REDACTED]"
    shown = event["data"]["text"]
    assert shown == (piece.encode("utf-8", "backslashreplace").decode() * length)


def test_values_that_change_while_they_are_encoded(recorded: Any, full_size: bool) -> None:
    """Other threads go on with their work; each event is written, from what was there at some moment."""
    monitor = AgentOpsMonitor("a")
    shared: dict[str, Any] = {f"key-{number}": [number] for number in range(200)}
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            shared[f"other-{number % 100}"] = {"number": [number]}
            shared.pop(f"other-{(number + 50) % 100}", None)

    changing = threading.Thread(target=change)
    changing.start()
    count = 2_000 if full_size else 300
    try:
        for _ in range(count):
            monitor.record_event("test_passed", shared)
    finally:
        stop.set()
        changing.join()
    assert len(recorded()) == count


def test_many_keys_that_become_one_take_no_longer_each(recorded: Any, full_size: bool) -> None:
    redaction.use(lambda text: "x")
    try:
        count = 100_000 if full_size else 20_000
        AgentOpsMonitor("a").record_event("test_passed", {f"k{number}": 1 for number in range(count)})
    finally:
        redaction.use(None)
    assert len(recorded()[0]["data"]) == count


@pytest.mark.parametrize("odd", [0, object()], ids=["plain", "rendered"])
def test_a_text_that_stands_in_a_thousand_places_comes_to_an_end(
    odd: object, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "MAX_VALUES", 5_000)
    text = "x" * 50_000
    for many in (
        [text] * 1_000,
        {f"key-{number}": text for number in range(1_000)},
        {"a": {"b": [text] * 99}},
    ):
        AgentOpsMonitor("a").record_event("test_passed", {"first": text, "odd": odd, "many": many})
    for event in recorded():
        assert event["data"]["first"] == text
        assert 6 <= str(event["data"]).count(text) <= 10
        assert "<more than 5000 values or 500000 characters>" in str(event["data"])


def test_one_text_beyond_the_bound_is_kept_as_far_as_it_fits(
    recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "MAX_VALUES", 5_000)
    AgentOpsMonitor("a").record_event("test_passed", {"texts": ["x" * 600_000]})
    (shown,) = recorded()[0]["data"]["texts"]
    assert 499_000 < shown.count("x") <= 500_000


def test_texts_within_the_bound_are_whole(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "MAX_VALUES", 20_000)
    chain = [{"thought": "t" * 190_000} for _ in range(10)]
    AgentOpsMonitor("a").record_decision(decision_type="d", reasoning_chain=chain)
    assert recorded()[0]["data"]["reasoning_chain"] == chain


@pytest.mark.parametrize("odd", [0, object()], ids=["plain", "rendered"])
def test_objects_that_share_others_come_to_an_end(
    odd: object, recorded: Any, monkeypatch: pytest.MonkeyPatch, full_size: bool
) -> None:
    """Two to the power of ninety leaves, without any cycle: only a bound on their number ends this."""
    if not full_size:
        monkeypatch.setattr(encoding, "MAX_VALUES", 5_000)
    said = f"<more than {encoding.MAX_VALUES} values or "
    doubled: Any = odd
    for _ in range(90):
        doubled = [doubled, doubled]
    squared = [[[odd] * 1_000] * 1_000] * 1_000
    AgentOpsMonitor("a").record_event("test_passed", {"first": 1, "doubled": doubled})
    AgentOpsMonitor("a").record_event("test_passed", {"squared": squared, "last": 2})
    first, second = recorded()
    assert first["data"]["first"] == 1
    assert said in str(first["data"])
    assert said in str(second["data"])

"""What leaves the process and what does not: keys, detectors, a function of the user's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime
from enum import Enum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentops_monitoring import AgentOpsMonitor, detectors, redaction
from agentops_monitoring.encoding import encode

HIDDEN = "[REDACTED]"

# Test numbers of the card makers: https://docs.stripe.com/testing#cards and
# https://docs.adyen.com/development-resources/test-cards-and-credentials/test-card-numbers
CARDS = (
    "4242424242424242", "4111 1111 1111 1111", "4111-1111-1111-1111", "5555555555554444", "2223003122003222",
    "378282246310005", "3782 822463 10005", "6011111111111117", "3056930009020004", "36227206271667",
    "3566002020360505", "6200000000000005",
)  # fmt: skip
NO_CARDS = (
    "4242424242424241", "1732233600000000", "1732233600000", "1234567812345670", "0000000000000000",
    "14242424242424242", "42424242424242420", "2026-11-22 08:00:00", "4111 1111 1111 1112",
    "4111.1111.1111.1111", "4٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢", "٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_detectors(clean_process: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield
    redaction.use(None)
    monkeypatch.delenv("AGENTOPS_REDACT", raising=False)
    redaction.configure()


def test_nothing_but_keys_is_looked_at_by_default(recorded: Any) -> None:
    data = {"text": "bob@example.com 4242424242424242 sk-0123456789abcdefghij", "password": "p"}
    AgentOpsMonitor("a").record_event("test_passed", data)
    assert recorded()[0]["data"] == {**data, "password": HIDDEN}


def test_chosen_detectors_see_every_text(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOPS_REDACT", "email, card ,secrets")
    monitor = AgentOpsMonitor("a")
    with monitor.workflow("order-17", user_id="bob@example.com", tags={"mail": "bob@example.com"}):
        monitor.record_decision(
            decision_type="d",
            reasoning_chain=[{"thought": "ask bob@example.com", "action": "pay 4242424242424242"}],
            inputs={"bob@example.com": [4242424242424242, "Bearer abcdefgh12345"]},
            outputs=(b"mail bob@example.com", ValueError("bob@example.com"), {"x": {"bob@example.com"}}),
            confidence_score="bob@example.com",  # type: ignore[arg-type]
        )
    (event,) = recorded()
    text = str(event)
    assert "bob" not in text
    assert "4242" not in text
    assert "abcdefgh" not in text
    assert event["user_id"] == event["tags"]["mail"] == HIDDEN
    assert event["data"]["inputs"] == {HIDDEN: [HIDDEN, f"Bearer {HIDDEN}"]}
    assert event["data"]["outputs"] == [f"mail {HIDDEN}", f"ValueError: {HIDDEN}", {"x": [HIDDEN]}]
    assert event["workflow_id"] == "order-17"


def test_each_detector_can_be_chosen_alone(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kept in (("email", 2), ("card", 2), ("secrets", 2), ("", 3), ("email,secrets", 1)):
        monkeypatch.setenv("AGENTOPS_REDACT", name)
        texts = ["bob@example.com", "4242424242424242", "sk-0123456789abcdefghij"]
        AgentOpsMonitor("a").record_event("test_passed", {"texts": texts})
        assert sum(text != HIDDEN for text in recorded()[-1]["data"]["texts"]) == kept


def test_a_name_that_no_detector_has_is_said_once_and_the_others_apply(
    recorded: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENTOPS_REDACT", "emails,card")
    for _ in range(3):
        AgentOpsMonitor("a").record_event("test_passed", {"text": "4242424242424242 bob@example.com"})
    assert recorded()[-1]["data"]["text"] == f"{HIDDEN} bob@example.com"
    said = capsys.readouterr().err
    assert said.count("'emails'") == said.count("\n") == 1


@pytest.mark.parametrize("number", CARDS)
@pytest.mark.parametrize(
    "around", ["{}", "card: {}.", "({})", "no{}x", "{} 12/29", "{} 123", "2026 {}", "1 {} 2", "{0} {0}"]
)
def test_card_numbers(number: str, around: str) -> None:
    shown = detectors.cards(around.format(number))
    assert shown == around.format(HIDDEN)


@pytest.mark.parametrize("text", NO_CARDS)
def test_other_numbers_stay(text: str) -> None:
    assert detectors.cards(text) == text
    assert detectors.cards(f"a {text} b") == f"a {text} b"


def luhn(number: str) -> bool:
    """Check as the standard words it: double every second digit from the right, cast out nines."""
    total = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


@given(st.from_regex(r"\A4[0-9]{15}\Z"))
def test_a_number_is_hidden_just_when_its_check_digit_is_right(number: str) -> None:
    assert (detectors.cards(number) == HIDDEN) == luhn(number)
    right = next(number[:-1] + digit for digit in "0123456789" if luhn(number[:-1] + digit))
    assert detectors.cards(right) == HIDDEN


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bob@example.com", HIDDEN),
        ("<bob.smith+x@mail.example.co.uk>", f"<{HIDDEN}>"),
        ("to=bob@example.com, ann@example.org.", f"to={HIDDEN}, {HIDDEN}."),
        ("mailto:bob%40example.com", f"mailto:{HIDDEN}"),
        ("jürgen@exämple.de", HIDDEN),
        (f"{'x' * 100}@example.com", HIDDEN),
        ("react@18.2.0", "react@18.2.0"),
        ("@decorator", "@decorator"),
        ("a @ b.com", "a @ b.com"),
        ("bob@localhost", "bob@localhost"),
        ("50%40", "50%40"),
    ],
)
def test_e_mail_addresses(text: str, expected: str) -> None:
    assert detectors.emails(text) == expected


@pytest.mark.parametrize(
    "secret",
    [
        "ghp_0123456789abcdefghijABCDEFGHIJ012345", "github_pat_11ABCDEFG0123456789_abcdefgh",
        "glpat-0123456789abcdefghij", "xoxb-0123456789-abcdefghij", "AIzaSy0123456789abcdefghijABCDEFGHIJ0",
        "hf_0123456789abcdefghij", "npm_0123456789abcdefghijABCDEFGHIJ012345",
        "sk-ant-api03-0123456789abcdefghij", "sk_live_0123456789abcdefghij", "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    ],
)  # fmt: skip
def test_secrets_of_known_makes(secret: str) -> None:
    assert detectors.secrets(f"key {secret}, that is all") == f"key {HIDDEN}, that is all"


def test_a_function_of_the_users_sees_what_detectors_leave(
    recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOPS_REDACT", "email")
    seen: list[str] = []

    def names(text: str) -> str:
        seen.append(text)
        return text.replace("Bob", "B.")

    monitor = AgentOpsMonitor("a")
    assert redaction.use(names) is None
    monitor.record_event("test_passed", {"text": "Bob <bob@example.com>", "Bob": 1})
    assert redaction.use(None) is names
    monitor.record_event("test_passed", {"text": "Bob"})
    first, second = recorded()
    assert first["data"] == {"text": f"B. <{HIDDEN}>", "B.": 1}
    assert f"Bob <{HIDDEN}>" in seen
    assert second["data"] == {"text": "Bob"}


def raising(text: str) -> str:
    raise RuntimeError(text)


@pytest.mark.parametrize("function", [raising, len, lambda text: None, lambda text: text.encode()])
def test_a_function_that_fails_hides_the_text(
    function: Any, recorded: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redaction, "_failures_said", set())
    redaction.use(function)
    monitor = AgentOpsMonitor("a")
    for _ in range(3):
        monitor.record_event("test_passed", {"text": "private", "number": 7})
    assert len(recorded()) == 3
    assert "private" not in str(recorded())
    assert recorded()[0]["data"] == {HIDDEN: HIDDEN, f"{HIDDEN} (2)": 7}
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "private" not in said


def test_keys_are_judged_by_what_stands_there_not_by_what_filters_leave(
    recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOPS_REDACT", "email")
    monitor = AgentOpsMonitor("a")
    monitor.record_event("test_passed", {"password-bob@example.com": 1234, "tokens-bob@example.com": 5})
    redaction.use(raising)
    monitor.record_event("test_passed", {"password": 1234, "count": 5})
    for event in recorded():
        assert event["data"] == {HIDDEN: HIDDEN, f"{HIDDEN} (2)": 5}


def test_each_text_passes_a_function_once(recorded: Any) -> None:
    redaction.use(lambda text: f"<{text}>")
    values = ["x", Kind.FIRST, PurePosixPath("p"), datetime(2026, 11, 22), UUID(int=1), b"b", ValueError("e")]
    AgentOpsMonitor("a").record_event("test_passed", {"values": values})
    shown = recorded()[0]["data"]["<values>"]
    assert shown[:4] == ["<x>", "<first>", "<p>", "<2026-11-22T00:00:00>"]
    assert [text[:2].count("<") for text in shown] == [1] * len(values)


class Kind(Enum):
    FIRST = "first"


def test_a_function_that_records_does_not_call_itself(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")

    def recording(text: str) -> str:
        monitor.record_event("test_failed", {"seen": text})
        return text

    redaction.use(recording)
    monitor.record_event("test_passed", {"text": "private"})
    assert [event["type"] for event in recorded()].count("test_passed") == 1
    assert len(recorded()) == 3  # one for the key, one for its value


def test_threads_do_not_hide_each_others_texts(recorded: Any) -> None:
    both = threading.Barrier(2, timeout=10)

    def slow(text: str) -> str:
        if text == "text":
            both.wait()
        return text

    redaction.use(slow)
    monitor = AgentOpsMonitor("a")
    threads = [
        threading.Thread(target=monitor.record_event, args=("test_passed", {"text": "shown"}))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event["data"] for event in recorded()] == [{"text": "shown"}] * 2


def test_messages_carry_what_the_agent_wrote(recorded: Any) -> None:
    redaction.use(lambda text: "x")
    assert encode({"a": "b"}, redact=False) == '{"a":"b"}'


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="a1@.%-4 +_eyJ:=\"'/\n", max_size=200))
def test_detectors_leave_texts_that_they_leave(text: str) -> None:
    for each in detectors.BY_NAME.values():
        once = each(text)
        assert each(once) == once


ADVERSARIAL = (
    "a", "@", "a@", "a@b.", "4", "4 ", "4444 ", "4242 4242 4242 4241 ", "4242424242424241 ", "eyJ", "eyJ-",
    "eyJaaaaaaaa.", "password=", 'password="', "token:", "Bearer ", " ", "://", "://a:", "-----BEGIN ",
    "-----BEGIN A PRIVATE KEY-----", "AKIA", "sk-", "xoxb-", "authorization", "%40", "a.", "-", "1-",
)  # fmt: skip


@pytest.mark.parametrize("name", detectors.BY_NAME)
def test_texts_that_are_made_to_take_long(name: str, full_size: bool) -> None:
    """Time is linear in the text: for what is quadratic, it would take for minutes, at full size for days."""
    size = 10_000_000 if full_size else 200_000
    for piece in ADVERSARIAL:
        detectors.BY_NAME[name](piece * (size // len(piece)) + "bob@example.com 4242424242424242")

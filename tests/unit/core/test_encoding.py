from __future__ import annotations

import json
import math
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentops_monitoring.encoding import encode
from agentops_monitoring.redaction import redact_text

from .conftest import strict_json


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@dataclass
class Point:
    x: int
    password: str


class Pair(NamedTuple):
    left: int
    right: object


class Model:
    """Shaped like pydantic's."""

    def model_dump(self) -> dict[str, Any]:
        return {"name": "m", "at": date(2026, 11, 22)}


class Raises:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class RaisesEverywhere:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("no")


class Text(str):
    def __str__(self) -> str:
        raise RuntimeError("no")

    encode = None  # type: ignore[assignment]


class Number(int):
    def __repr__(self) -> str:
        return "not json"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("0.1000"), "0.1000"),
        (datetime(2026, 11, 22, 8, tzinfo=UTC), "2026-11-22T08:00:00+00:00"),
        (date(2026, 11, 22), "2026-11-22"),
        (timedelta(minutes=1), 60.0),
        (b"abc", "abc"),
        (b"\xff\x00", "base64:/wA="),
        (bytearray(b"abc"), "abc"),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        (deque([1]), [1]),
        ({"a": 1}.keys(), ["a"]),
        (..., "..."),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (Color.RED, "red"),
        (Level.HIGH, 3),
        (Point(1, "hunter2"), {"x": 1, "password": "[REDACTED]"}),
        (Pair(1, ...), {"left": 1, "right": "..."}),
        (Model(), {"name": "m", "at": "2026-11-22"}),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("/tmp/x"), "/tmp/x"),
        (ValueError("bad"), "ValueError: bad"),
        (Raises(), "<Raises that cannot be rendered: RuntimeError>"),
        (RaisesEverywhere(), "<RaisesEverywhere that cannot be rendered: RuntimeError>"),
        ([1, Raises(), 2], [1, "<Raises that cannot be rendered: RuntimeError>", 2]),
        (Text("text"), "text"),
        (Number(7), 7),
        ("a\ud800b", "a\\ud800b"),
        ({"\udfff": 1}, {"\\udfff": 1}),
        ("\U0001f600", "\U0001f600"),
        (OrderedDict(a=1), {"a": 1}),
        ({1: "a", "1": "b", None: "c"}, {"1": "a", "1 (2)": "b", "null": "c"}),
        ({True: "d"}, {"true": "d"}),
        ({(1, 2): 3}, {"[1,2]": 3}),
        (range(3), "range(0, 3)"),
    ],
    ids=lambda _: "",
)
def test_values_that_json_does_not_know(value: object, expected: object) -> None:
    assert strict_json(encode(value)) == expected
    assert strict_json(encode({"deep": [value]})) == {"deep": [expected]}


def test_cycles_are_cut_and_repetitions_are_not() -> None:
    cycle: dict[str, Any] = {"name": "c"}
    cycle["self"] = [cycle]
    assert strict_json(encode(cycle)) == {"name": "c", "self": ["<cycle>"]}
    twice = {"v": ...}
    assert strict_json(encode([twice, twice])) == [{"v": "..."}, {"v": "..."}]


def test_depth_is_bounded() -> None:
    deep: Any = 0
    for _ in range(100_000):
        deep = [deep]
    text = encode(deep)
    assert "deeper than 100 levels" in text
    strict_json(text)


def test_very_long_integers() -> None:
    assert strict_json(encode({"n": 10**30})) == {"n": 10**30}
    assert strict_json(encode({"n": 10**5000}))["n"] == hex(10**5000)


def test_iterators_are_left_to_the_agent() -> None:
    numbers = iter([1, 2, 3])
    encode({"numbers": numbers})
    assert list(numbers) == [1, 2, 3]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "b", "tokens", "é"]), inner),
    max_leaves=20,
)  # fmt: skip
ODD: list[Any] = [
    ..., math.nan, math.inf, b"\xff", Decimal("NaN"), {1}, object(), Raises(), RaisesEverywhere(),
    Text("\ud800"),
    type, len, Model, 1j, Ellipsis, Level.HIGH, memoryview(b"x"), RaisesEverywhere,
]  # fmt: skip
# By index, since hypothesis would print them.
odd = st.integers(0, len(ODD) - 1).map(lambda index: ODD[index])
any_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | odd | st.datetimes()
    | st.decimals(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner)
    | st.dictionaries(st.text() | st.integers() | st.none() | st.floats() | st.tuples(st.text()), inner),
    max_leaves=20,
)  # fmt: skip


@given(json_values)
def test_what_json_knows_comes_back(value: Any) -> None:
    assert json.loads(encode(value)) == value


@given(any_values)
def test_anything_is_one_line_of_json_in_ascii(value: Any) -> None:
    for redact in (True, False):
        text = encode(value, redact=redact)
        assert text.isascii()
        assert text.isprintable()
        strict_json(text)


@pytest.mark.parametrize(
    "key",
    ["password", "userPassword", "DB_PASSWORD", "api_key", "x-api-key", "apiKey", "secret", "client_secret",
     "token",
     "access_token", "accessToken", "refresh_token_v2", "Authorization", "aws_secret_access_key",
     "private_key",
     "set-cookie", "cookie", "credentials", "pwd", "X-Amz-Security-Token", "X-Auth", "basic_auth",
     "refresh_tokens", "AccessTokens", "Proxy-Authorization", "X-Goog-Api-Key"],
)  # fmt: skip
def test_values_behind_telling_keys_are_hidden(key: str) -> None:
    assert strict_json(encode({"a": [{key: "hunter2"}], "b": 1})) == {"a": [{key: "[REDACTED]"}], "b": 1}
    assert strict_json(encode({key: {"nested": "hunter2"}}))[key] == "[REDACTED]"
    assert strict_json(encode({key: None}))[key] is None
    assert strict_json(encode({key: "hunter2"}, redact=False))[key] == "hunter2"


@pytest.mark.parametrize(
    "key",
    ["tokens", "input_tokens", "gen_ai.usage.output_tokens", "token_count", "max_tokens", "tokenizer",
     "author",
     "total_tokens", "token_usage", "authored_by", "key", "keys", "public_keyword", "observation",
     "input_token_details", "promptTokensDetails", "max_new_tokens", "tokenization", "tokenized", "token_ids",
     "token_logprobs", "cache_read_input_tokens", "tokens_per_second", "token_length"],
)  # fmt: skip
def test_figures_and_ordinary_words_are_shown(key: str) -> None:
    assert strict_json(encode({key: "shown"})) == {key: "shown"}


def test_keys_of_other_types_are_judged_too() -> None:
    nested = {"headers": [{("X-Api-Key", 1): "hunter2"}, ({b"Authorization": "hunter2"},)], 7: "shown"}
    assert strict_json(encode(nested)) == {
        "headers": [{'["X-Api-Key",1]': "[REDACTED]"}, [{"Authorization": "[REDACTED]"}]],
        "7": "shown",
    }


def test_a_number_behind_token_is_a_figure() -> None:
    assert strict_json(encode({"max_token": 5, "password": 5})) == {"max_token": 5, "password": "[REDACTED]"}


@pytest.mark.parametrize(
    "text",
    [
        "connect(password='hunter2')",
        'password = "hunter2"',
        "DB_PASSWORD=hunter2",
        '{"api_key": "hunter2"}',
        "Authorization: Bearer hunter2hunter2",
        "postgres://user:hunter2@host/db",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----",
        "access_token: hunter2",
        "Authorization: token hunter2",
        "authorization = Digest username=hunter2, response=hunter2",
        "{'Authorization': 'token hunter2'}",
        "PASSWORD\t=>\thunter2",
    ],
)
def test_secrets_in_texts_are_hidden(text: str) -> None:
    assert "hunter2" not in redact_text(text)


def test_ordinary_texts_stay() -> None:
    text = "KeyError: 'missing'\n  File \"/var/task/a.py\", line 3, in f\n    max_tokens=5"
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "piece", ["abc-", "password ", "password= ", "://a:", "token.", "Bearer ", "sk-", "=", "authorization"]
)
def test_long_texts_are_searched_in_linear_time(piece: str) -> None:
    began = time.monotonic()
    redact_text(piece * (400_000 // len(piece)))
    assert time.monotonic() - began < 2

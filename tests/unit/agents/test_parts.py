"""The agents' parts: answers, patches, case files, telemetry, source."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentops_monitoring.ledger.parse import TERMS
from agents import patch, source, telemetry
from agents.answers import AnswerError, confidence_field, json_object, reasoning_field
from agents.evidence import CaseFile
from agents.model import user
from tests.contract.lines import Case, cases

from .conftest import World

FILES = {"app.py": "one = 1\ntwo = 2\n", "test_app.py": "import app\n"}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.dictionaries(TEXT, st.integers() | TEXT, max_size=4), TEXT.filter(lambda text: "{" not in text))
def test_the_object_is_found_whatever_stands_around_it(value: dict[str, Any], around: str) -> None:
    assert json_object(f"{around}```json\n{json.dumps(value)}\n```{around}") == value


@given(TEXT)
def test_any_text_is_an_object_or_an_answer_error(text: str) -> None:
    with suppress(AnswerError):
        assert isinstance(json_object(text), dict)


@pytest.mark.parametrize("value", [None, "0.5", True, -0.1, 1.01, float("nan")])
def test_confidence_is_a_number_from_0_to_1(value: Any) -> None:
    with pytest.raises(AnswerError):
        confidence_field({"confidence": value})


@pytest.mark.parametrize("value", [None, [], ["a thought"], [{"action": "a"}], {"thought": "t"}])
def test_reasoning_is_a_list_of_steps(value: Any) -> None:
    with pytest.raises(AnswerError):
        reasoning_field({"reasoning": value})


def test_edits_replace_a_passage_or_a_file() -> None:
    edits = [patch.Edit("app.py", "one = 3", "one = 1"), patch.Edit("new.py", "x = 1\n")]
    assert patch.apply(FILES, edits) == {**FILES, "app.py": "one = 3\ntwo = 2\n", "new.py": "x = 1\n"}
    assert FILES["app.py"].startswith("one = 1"), "what came in is left alone"


@pytest.mark.parametrize(
    "edit",
    [
        patch.Edit("app.py", "", "three"),
        patch.Edit("app.py", "x", " = "),
        patch.Edit("none.py", "x", "y"),
        patch.Edit("app.py", "one = 1", "one = 1"),
        patch.Edit("app.py", "(", "one = 1"),
        patch.Edit("test_app.py", ""),
        patch.Edit("tests/helper.py", ""),
        patch.Edit("../app.py", ""),
        patch.Edit("/app.py", ""),
        patch.Edit("", ""),
    ],
)
def test_edits_that_cannot_be_applied(edit: patch.Edit) -> None:
    with pytest.raises(AnswerError):
        patch.apply(FILES, [edit])


@given(TEXT, TEXT)
def test_a_replacement_does_what_replacing_once_does(search: str, replace: str) -> None:
    text = f"prose {search} more"
    files = {"notes.md": text}
    try:
        result = patch.apply(files, [patch.Edit("notes.md", replace, search)])
    except AnswerError:
        assert text.count(search) != 1 or search == replace
    else:
        assert result == {"notes.md": text.replace(search, replace)}


def test_stored_edits_come_back() -> None:
    edits = [patch.Edit("a", "b", "c"), patch.Edit("d", "e")]
    assert patch.load_edits(json.loads(json.dumps(patch.dump_edits(edits)))) == edits


def test_the_diff_names_what_changed() -> None:
    lines = patch.diff(FILES, {**FILES, "app.py": "one = 1\ntwo = 3\n"}).splitlines()
    assert [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")] == [
        "-two = 2",
        "+two = 3",
    ]


def test_the_first_to_file_owns_the_document(world: World) -> None:
    first, second = CaseFile("case", "request-1"), CaseFile("case", "request-2")
    assert first.read("a.json") is None
    assert first.file("a.json", {"by": 1})
    assert not second.file("a.json", {"by": 2})
    assert first.file("a.json", {"by": 3}), "a retry of the owner is still the owner"
    found = second.read("a.json")
    assert found is not None
    assert (found["by"], first.owns(found), second.owns(found)) == (1, True, False)


def test_cases_of_any_name_are_kept_apart(world: World) -> None:
    for name in ("a/b", "a", "../a", "ä ö", "a%2Fb"):
        case = CaseFile.of(name, "r")
        assert case.file("x.json", {"id": name})
        assert (case.read("x.json") or {})["id"] == name


def test_equal_failures_are_equal_texts_in_both_log_formats() -> None:
    def text(identifier: str, stamp: str, folder: str) -> str:
        return (
            f"[ERROR] KeyError: 'order {identifier} at {stamp}'\r"
            f'Traceback (most recent call last):\r\u00a0\u00a0File "{folder}/app.py", line 3, in handler\r'
            f"\u00a0\u00a0\u00a0\u00a0return <object at 0x{identifier[:8]}>\n"
        )

    def record(identifier: str, stamp: str, folder: str) -> str:
        frame = f'  File "{folder}/app.py", line 3, in handler\n    return <object at 0x{identifier[:8]}>\n'
        return json.dumps(
            {"timestamp": stamp, "level": "ERROR", "requestId": identifier, "errorType": "KeyError",
             "errorMessage": f"'order {identifier} at {stamp}'", "stackTrace": [frame]}
        )  # fmt: skip

    for shape in (text, record):
        one = shape("6a3fbd10-1b4e-4e54-8c5b-0f1d7a1f6a11", "2026-11-22T08:00:00.123Z", "/var/task")
        two = shape("11111111-2222-4333-8444-555555555555", "2027-01-01 00:00:00,5", "/tmp/x/build/1f")
        assert telemetry.failure_text(one) == telemetry.failure_text(two)
    same = text("6a3fbd10-1b4e-4e54-8c5b-0f1d7a1f6a11", "2026-11-22T08:00:00Z", "/var/task")
    assert telemetry.failure_text(same) == telemetry.failure_text(one)


@pytest.mark.parametrize(
    "message",
    [
        "START RequestId: x",
        '{"level": "INFO", "message": "ERROR is a word"}',
        "[ERROR] without a traceback",
        '{"type": "platform.report"}',
        '{"type": "platform.report", "record": "timeout"}',
        '{"type": "platform.report", "record": {"metrics": {"durationMs": "long"}, "status": "timeout"}}',
        "{",
        "",
    ],
)
def test_what_is_no_failure(message: str) -> None:
    assert telemetry.failure_text(message) is None


def test_timeouts_are_failures() -> None:
    line = "2026-11-22T08:00:00.123Z 6a3fbd10-1b4e-4e54-8c5b-0f1d7a1f6a11 Task timed out after 3.00 seconds"
    assert telemetry.failure_text(line) == "<time> <id> Task timed out after 3.00 seconds"


@pytest.mark.parametrize("case", [case for case in cases() if case.reports], ids=lambda case: case.name)
def test_how_the_runtime_ended_is_read_from_lambda_s_report(case: Case) -> None:
    """AWS writes no other line about it, but in China and GovCloud."""
    reports = [line for line in case.lines if any(term in line for term in TERMS)]
    for line, report in zip(reports, case.reports, strict=True):
        told = telemetry.failure_text(line)
        if report["status"] == "timeout":
            assert told == f"Task timed out after {float(report['duration_ms']) / 1000:.2f} seconds"
        elif report["status"] == "error":
            assert told in {f"Runtime exited: {kind}" for kind in re.findall(r"Runtime\.\w+", line)}
        else:
            assert told is None


@pytest.mark.parametrize(
    ("function", "folder"),
    [("cart-total", "cart_total"), ("shop-demo-CartTotal", "cart_total"), ("sku_parser-v2", "sku_parser")],
)
def test_a_function_s_folder_is_found_by_its_name(world: World, function: str, folder: str) -> None:
    found = source.load(function)
    assert found.folder == folder
    assert (set(found.code()), set(found.tests())) == ({"app.py"}, {"test_app.py"})


def test_no_folder_and_no_source(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(source.SourceMissing):
        source.load("cart")
    monkeypatch.delenv("SOURCE_KEY")
    with pytest.raises(source.SourceMissing, match="SOURCE_KEY"):
        source.load("cart-total")


@pytest.mark.parametrize(
    ("model", "caches"),
    [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", True),
        ("anthropic.claude-3-7-sonnet-20250219-v1:0", True),
        ("amazon.nova-pro-v1:0", True),
        ("anthropic.claude-3-haiku-20240307-v1:0", False),
        ("meta.llama3-1-8b-instruct-v1:0", False),
    ],
)
def test_cache_points_go_to_models_that_take_them(
    monkeypatch: pytest.MonkeyPatch, model: str, caches: bool
) -> None:
    monkeypatch.setenv("MODEL_ID", model)
    assert any("cachePoint" in block for block in user("hello", cache=True)["content"]) is caches

"""Every function of the sample shop has one real defect, and the script's reference fix mends it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from agents import patch, sandbox, telemetry
from local.model_script import PATCHES

from .conftest import FUNCTIONS, INCIDENTS, SHOP, failure_record

NAMES = [each["folder"] for each in FUNCTIONS]


def files_of(name: str) -> dict[str, str]:
    return {path.name: path.read_text() for path in (SHOP / name).glob("*.py")}


def script_of(name: str) -> dict[str, Any]:
    return tomllib.loads((PATCHES / f"{name}.toml").read_text())


def patched(name: str, scripted: dict[str, Any]) -> dict[str, str]:
    return patch.apply(
        files_of(name), [patch.Edit("app.py", e["replace"], e["search"]) for e in scripted["edits"]]
    )


def run(source: str, payload: Any) -> Any:
    scope: dict[str, Any] = {"__name__": "app"}
    exec(compile(source, "app.py", "exec"), scope)
    return scope["handler"](payload, None)


def test_the_shop_the_script_and_the_incidents_are_about_the_same_functions() -> None:
    assert sorted(NAMES) == sorted(path.stem for path in PATCHES.glob("*.toml"))
    assert {each["function"] for each in INCIDENTS} == {each["name"] for each in FUNCTIONS}
    assert len(NAMES) >= 12


@pytest.mark.parametrize("name", NAMES)
def test_the_tests_fail_with_the_defect_and_pass_with_the_reference_fix(name: str) -> None:
    before = sandbox.handler({"files": files_of(name)}, None)
    after = sandbox.handler({"files": patched(name, script_of(name)["right"])}, None)
    assert (before["status"], after["status"]) == ("failed", "passed"), after
    assert before["passed"], "some tests pass with the defect, or it is no defect but a ruin"
    assert after["tests"] == before["tests"] >= 3


@pytest.mark.parametrize("name", NAMES)
def test_the_scripted_wrong_patches_apply_and_fail(name: str) -> None:
    wrong = script_of(name)["wrong"]
    assert len(wrong) >= 2
    for scripted in wrong:
        assert sandbox.handler({"files": patched(name, scripted)}, None)["status"] == "failed"


@pytest.mark.parametrize("function", FUNCTIONS, ids=NAMES)
def test_incidents_raise_before_and_not_after_and_look_the_same(function: dict[str, Any]) -> None:
    name = function["folder"]
    mended = patched(name, script_of(name)["right"])["app.py"]
    incidents = [each["payload"] for each in INCIDENTS if each["function"] == function["name"]]
    failures = set()
    for payload in incidents:
        record = failure_record(Path(SHOP, name, "app.py"), payload)
        failures.add(telemetry.failure_text(__import__("json").dumps(record)))
        run(mended, payload)
    assert len(incidents) >= 2
    # Prompts are to be the same whichever of them came first.
    assert len(failures) == 1


@pytest.mark.parametrize("function", FUNCTIONS, ids=NAMES)
def test_the_healthy_payload_works(function: dict[str, Any]) -> None:
    run(files_of(function["folder"])["app.py"], function["healthy"])

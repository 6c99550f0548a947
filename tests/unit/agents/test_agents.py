"""The three agents at work: from a failure to the one end of its workflow."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest

import agents
from agents import clients
from local.model_script import Script, usage
from local.model_server import ModelServer

from .conftest import FUNCTIONS, SHOP, World, alarm_event

PLAN = Script(7).mended_at
ENDS = ("workflow_completed", "workflow_failed")


def name_of(defect: str) -> str:
    return defect.replace("_", "-")


def mended_at(attempt: int | None) -> str:
    return next(name_of(defect) for defect, planned in PLAN.items() if planned == attempt)


def prompt_length(function: str) -> int:
    return sum(path.stat().st_size for path in (SHOP / function.replace("-", "_")).glob("*.py"))


def work_on(world: World, function: str) -> dict[str, Any]:
    """Let a function fail and its alarm go off; returns the workflow's end."""
    world.fail(function)
    world.invoke("manager", alarm_event(function, identifier=f"alarm-{function}"))
    world.settle()
    (end,) = world.of(*ENDS)
    return end


def answering(*answers: Any) -> Callable[[Any], tuple[str, str, dict[str, int]]]:
    """A model that gives these answers in turn, the last one for ever."""
    left = list(answers)

    def answer(request: Any) -> tuple[str, str, dict[str, int]]:
        given = left.pop(0) if len(left) > 1 else left[0]
        text = given if isinstance(given, str) else json.dumps(given)
        return text, "end_turn", usage(request, text)

    return answer


DIAGNOSIS = {"root_cause": "x", "severity": "high", "reasoning": [{"thought": "t"}], "confidence": 0.9}


def test_a_defect_that_is_mended_at_once(world: World) -> None:
    end = work_on(world, mended_at(1))
    assert (end["type"], end["data"]["reason"], end["data"]["attempts"]) == (
        "workflow_completed", "patch_accepted", 1,
    )  # fmt: skip
    assert Counter(event["type"] for event in world.events) == {
        "invocation_started": 3, "invocation_completed": 3, "message_sent": 2, "message_received": 2,
        "llm_usage": 3, "issue_detected": 1, "code_generated": 1, "test_passed": 1, "decision_made": 3,
        "workflow_completed": 1,
    }  # fmt: skip
    assert len({event["workflow_id"] for event in world.events}) == 1
    assert len({event["trace_id"] for event in world.events}) == 1
    assert all(Decimal(event["data"]["cost_usd"]) > 0 for event in world.of("llm_usage"))
    flows = [(event["data"]["message_type"], event["data"]["to"]) for event in world.of("message_sent")]
    assert flows == [("issue.found", "engineer"), ("patch.ready", "qa")]


# A refused model call is an answer to the agent, as Bedrock's own refusals are.
IMPORTED = {"AgentEventType", "AgentOpsMonitor", "BudgetExceeded"}
DOMAIN = {"record_event", "record_decision", "workflow", "complete_workflow", "fail_workflow"}


def test_agents_say_what_they_do_and_contain_no_other_monitoring_code() -> None:
    said = set()
    for path in Path(str(agents.__file__)).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("agentops"):
                assert {each.name for each in node.names} <= IMPORTED, path
            assert not (isinstance(node, ast.Import) and "agentops_monitoring" in ast.unparse(node)), path
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "monitor":
                said.add(node.attr)
    assert said == DOMAIN


def test_decisions_carry_their_reasoning_and_confidence(world: World) -> None:
    work_on(world, mended_at(1))
    decisions = {event["data"]["decision_type"]: event["data"] for event in world.of("decision_made")}
    assert set(decisions) == {"diagnosis", "patch", "verdict"}
    for decision in decisions.values():
        assert 0 < decision["confidence_score"] <= 1
        assert all(step["thought"] and step["observation"] for step in decision["reasoning_chain"])
    assert "+" in decisions["patch"]["outputs"]["diff"]
    (issue,) = world.of("issue_detected")
    assert issue["data"]["error_rate"] == 1.0
    assert issue["data"]["severity"] in ("low", "medium", "high", "critical")


@pytest.mark.parametrize("attempt", [2, 3])
def test_a_rejected_patch_is_tried_again_with_the_test_output(world: World, attempt: int) -> None:
    end = work_on(world, mended_at(attempt))
    assert (end["type"], end["data"]["attempts"]) == ("workflow_completed", attempt)
    assert [event["data"]["attempt"] for event in world.of("test_failed")] == list(range(1, attempt))
    assert all(event["data"]["failed"] for event in world.of("test_failed"))
    assert len(world.of("code_generated")) == attempt
    flows = Counter(event["detail-type"] for event in world.delivered)
    assert flows == {"issue.found": 1, "patch.ready": attempt, "patch.rejected": attempt - 1}


def test_later_attempts_read_the_conversation_from_cache(world: World, model_log: Path) -> None:
    # Of the functions that need two attempts the one with the longest prompt: short ones are not cached.
    work_on(world, max((name_of(d) for d, planned in PLAN.items() if planned == 2), key=prompt_length))
    calls = [json.loads(line) for line in model_log.read_text().splitlines()]
    engineer = [call for call in calls if call["role"] == "engineer"]
    assert engineer[0]["cache_read_tokens"] == 0 < engineer[0]["cache_write_tokens"]
    assert all(call["cache_read_tokens"] > 1000 for call in engineer[1:])


@pytest.mark.parametrize("defect", [defect for defect, planned in PLAN.items() if planned is None])
def test_a_defect_that_is_never_mended_fails_after_three_attempts(world: World, defect: str) -> None:
    end = work_on(world, name_of(defect))
    assert (end["type"], end["data"]["attempts"]) == ("workflow_failed", 3)
    assert end["data"]["reason"] in ("attempts_used_up", "no_usable_patch")
    assert not world.of("test_passed")


def test_every_defect_ends_once_as_the_script_plans_and_equally_on_a_second_run(
    world: World, model_log: Path
) -> None:
    runs = []
    for _ in range(2):
        world.events.clear()
        model_log.write_text("")
        for function in FUNCTIONS:
            world.fail(function["name"])
            world.report(function["name"])
        world.settle()
        ends = {event["data"]["function"]: event for event in world.of(*ENDS)}
        assert len(ends) == len(world.of(*ENDS)) == len(FUNCTIONS)
        for defect, planned in PLAN.items():
            end = ends[name_of(defect)]
            assert end["type"] == ("workflow_failed" if planned is None else "workflow_completed")
            assert planned is None or end["data"]["attempts"] == planned
        calls = [json.loads(line) for line in model_log.read_text().splitlines()]
        counted = ("function", "role", "attempt", "input_tokens", "output_tokens", "cache_read_tokens")
        runs.append(
            (
                Counter(event["type"] for event in world.events),
                sorted(tuple(call[name] for name in counted) for call in calls),
            )
        )
        # What the monitor recorded by itself is what the model's own record says.
        for ours, theirs in {
            "gen_ai.usage.input_tokens": "input_tokens",
            "gen_ai.usage.output_tokens": "output_tokens",
            "gen_ai.usage.cache_read.input_tokens": "cache_read_tokens",
            "gen_ai.usage.cache_creation.input_tokens": "cache_write_tokens",
        }.items():
            recorded = [event["data"][ours] for event in world.of("llm_usage")]
            assert sorted(recorded) == sorted(call[theirs] for call in calls)
    assert runs[0] == runs[1]


def test_redelivered_messages_change_nothing(world: World) -> None:
    function = mended_at(2)
    work_on(world, function)
    kinds = ("issue_detected", "code_generated", "test_failed", "test_passed", "message_sent", *ENDS)
    before = Counter(event["type"] for event in world.of(*kinds))
    world.invoke("manager", alarm_event(function, identifier=f"alarm-{function}"))
    for message in list(world.delivered):
        agent = {"issue.found": "engineer", "patch.ready": "qa", "patch.rejected": "engineer"}
        world.invoke(agent[message["detail-type"]], message)
    world.settle()
    assert Counter(event["type"] for event in world.of(*kinds)) == before


def test_duplicates_in_the_middle_of_the_work_make_one_end(world: World) -> None:
    function = mended_at(2)
    world.fail(function)
    world.invoke("manager", alarm_event(function))
    while waiting := world.receive():
        for message in waiting:
            agent = "qa" if message["detail-type"] == "patch.ready" else "engineer"
            world.invoke(agent, message)
            world.invoke(agent, message)
    assert len(world.of(*ENDS)) == 1
    assert len(world.of("code_generated")) == 2


def test_a_lambda_retry_goes_on_where_the_first_try_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = mended_at(1)
    world.fail(function)
    world.invoke("manager", alarm_event(function))
    (found,) = world.receive()
    with monkeypatch.context() as patched:
        patched.setenv("EVENT_BUS_NAME", "no-such-bus")
        with pytest.raises(Exception, match=r"no-such-bus|not exist"):
            world.invoke("engineer", found, request_id="the-request")
    world.invoke("engineer", found, request_id="the-request")
    world.settle()
    assert len(world.of("code_generated")) == 1, "the patch that was made is handed over, not another one"
    assert [event["type"] for event in world.of(*ENDS)] == ["workflow_completed"]
    assert len(world.of("invocation_failed")) == 1


def test_nothing_in_the_log_ends_the_workflow(world: World) -> None:
    world.invoke("manager", alarm_event("cart-total"))
    (end,) = world.of(*ENDS)
    assert (end["type"], end["data"]["reason"]) == ("workflow_completed", "no recent failures")
    assert not world.receive()
    assert not world.of("llm_usage")


def test_an_alarm_that_is_over_ends_the_workflow(world: World) -> None:
    world.fail("cart-total")
    world.invoke("manager", alarm_event("cart-total", state="OK"))
    assert len(world.of("workflow_completed")) == 1
    assert not world.receive()


def test_a_sweep_reports_each_new_failure_once_in_a_workflow_of_its_own(world: World) -> None:
    schedule = {"id": "s", "source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}
    for function in ("cart-total", "sku-parser"):
        world.fail(function)
    world.invoke("manager", schedule)
    reports = world.receive()
    assert sorted(each["detail"]["function"] for each in reports) == ["cart-total", "sku-parser"]
    assert {each["detail-type"] for each in reports} == {"issue.reported"}
    assert len({each["detail"]["agentops"]["workflow_id"] for each in reports}) == 2
    assert not world.of("llm_usage", *ENDS)
    world.invoke("manager", {**schedule, "id": "s2"})
    assert not world.receive()
    for each in reports:
        world.invoke("manager", each)
    world.settle()
    assert len(world.of(*ENDS)) == 2


@pytest.mark.parametrize("answer", ["I do not know.", {"root_cause": "x"}, '{"root_cause": "cut o'])
def test_a_useless_diagnosis_fails_the_workflow(
    world: World, monkeypatch: pytest.MonkeyPatch, model_factory: Callable[..., ModelServer], answer: Any
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", model_factory(answering(answer)).url)
    end = work_on(world, "cart-total")
    assert (end["type"], end["data"]["reason"]) == ("workflow_failed", "no_diagnosis")
    assert len(world.of("llm_usage")) == 3, "asked again, but not for ever"


def test_a_diagnosis_that_no_code_can_mend_completes(
    world: World, monkeypatch: pytest.MonkeyPatch, model_factory: Callable[..., ModelServer]
) -> None:
    answer = {**DIAGNOSIS, "actionable": False}
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", model_factory(answering(answer)).url)
    assert work_on(world, "cart-total")["data"]["reason"] == "no_code_change_needed"


@pytest.mark.parametrize(
    "edits",
    [
        [],
        [{"path": "app.py", "search": "not there", "replace": ""}],
        [{"path": "test_app.py", "content": "# no tests, no failures"}],
        [{"path": "../other/app.py", "content": "x = 1"}],
        [{"path": "app.py", "content": "def handler(:"}],
    ],
)
def test_a_patch_that_does_not_apply_fails_the_workflow(
    world: World, monkeypatch: pytest.MonkeyPatch, model_factory: Callable[..., ModelServer], edits: Any
) -> None:
    patch = {"explanation": "e", "edits": edits, "reasoning": [{"thought": "t"}], "confidence": 0.9}
    model = model_factory(answering(DIAGNOSIS, patch))
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", model.url)
    end = work_on(world, "cart-total")
    assert (end["type"], end["data"]["reason"]) == ("workflow_failed", "no_usable_patch")
    assert not world.of("code_generated")


def test_a_patch_that_never_ends_is_rejected_each_time(
    world: World, monkeypatch: pytest.MonkeyPatch, model_factory: Callable[..., ModelServer]
) -> None:
    loop = [{"path": "app.py", "content": "while True:\n    pass\n"}]
    patch = {"explanation": "e", "edits": loop, "reasoning": [{"thought": "t"}], "confidence": 0.9}
    model = model_factory(answering(DIAGNOSIS, patch))
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", model.url)
    monkeypatch.setattr("agents.sandbox.SECONDS", 1)
    end = work_on(world, "cart-total")
    assert (end["type"], end["data"]["reason"]) == ("workflow_failed", "attempts_used_up")
    assert {event["data"]["status"] for event in world.of("test_failed")} == {"timed_out"}


def test_a_model_that_is_down_fails_the_workflow(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    assert work_on(world, "cart-total")["data"]["reason"] == "no_diagnosis"


def test_a_sandbox_that_is_down_fails_the_workflow(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "functions", lambda: boto3.client("lambda"))
    end = work_on(world, "cart-total")
    assert (end["type"], end["data"]["reason"]) == ("workflow_failed", "not_testable")


def test_a_function_without_source_fails_the_workflow(world: World) -> None:
    from .conftest import put_log

    put_log(
        "/aws/lambda/billing", json.dumps({"errorType": "KeyError", "errorMessage": "'x'", "level": "ERROR"})
    )
    world.report("billing")
    (report,) = world.receive()
    world.invoke("manager", report)
    world.settle()
    (end,) = world.of(*ENDS)
    assert end["type"] == "workflow_failed"


def test_a_review_that_fails_does_not_overrule_the_tests(
    world: World, monkeypatch: pytest.MonkeyPatch, model_factory: Callable[..., ModelServer]
) -> None:
    import tomllib

    from local.model_script import PATCHES

    right = tomllib.loads((PATCHES / "loyalty_tier.toml").read_text())["right"]["edits"]
    edits = [{"path": "app.py", **edit} for edit in right]
    patch = {"explanation": "e", "edits": edits, "reasoning": [{"thought": "t"}], "confidence": 0.9}
    model = model_factory(answering(DIAGNOSIS, patch, "Looks good to me!"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", model.url)
    assert work_on(world, "loyalty-tier")["data"]["reason"] == "patch_accepted"


def test_an_answer_in_prose_and_fences_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch, model_factory: Callable[..., ModelServer]
) -> None:
    wrapped = f"Sure {{here}} it is:\n```json\n{json.dumps({**DIAGNOSIS, 'actionable': False})}\n```\nDone."
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", model_factory(answering(wrapped)).url)
    work_on(world, "cart-total")
    assert len(world.of("llm_usage")) == 1


def test_prompts_hold_nothing_that_differs_from_run_to_run(
    world: World, monkeypatch: pytest.MonkeyPatch, model_factory: Callable[..., ModelServer]
) -> None:
    from local.model_server import scripted

    script, prompts = scripted(Script(7)), []

    def answer(request: Any) -> Any:
        prompts.append(json.dumps([request["system"], request["messages"]]))
        return script(request)

    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", model_factory(answer).url)
    work_on(world, mended_at(2))
    first = list(prompts)
    prompts.clear()
    world.events.clear()
    world.fail(mended_at(2))
    world.invoke("manager", alarm_event(mended_at(2), identifier="again"))
    world.settle()
    assert prompts == first

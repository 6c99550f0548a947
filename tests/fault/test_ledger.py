"""The deployed ingest and export under faults: nothing is lost, nothing double, by a recount of the lines."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentops_monitoring import cli
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.reader import LedgerReader
from local.processes import Services
from local.report import ledger
from local.report import recount as raw_lines
from local.report.widgets import Span
from local.scenario import incidents
from tests.fault.plane import AGENTOPS_LOG, ENVIRONMENT, EXPORT, INGEST, MODEL_LOG, Plane
from tests.integration.conftest import ACCOUNT, REGION, cli_variables
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.recount import recount
from tests.unit.ledger.streams import LogEvent, World, proof, rfc3339
from tests.unit.ledger.test_writer import check

pytestmark = pytest.mark.xdist_group("fault_ledger")

Rule = dict[str, Any]
FORGED = {"v": 1, "id": "0123-1", "proof": "none", "type": "x", "agent": "manager"}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """Deploy the stacks once."""
    out = tmp_path_factory.mktemp("plane")
    with Services(out / "logs") as services:
        yield Plane(services, out)


@pytest.fixture
def plane(started: Plane) -> Iterator[Plane]:
    """Give it empty."""
    yield started
    started.empty()


def world(seed: int, **size: int) -> list[LogEvent]:
    """Return random lines of agents, of the last hour."""
    return World(seed, start_ms=int(time.time() * 1000) - 3_600_000, **size).events


def calls_fail(dice: random.Random, by: str) -> list[Rule]:
    """Return rules of every kind of fault that a call can meet; conflicts only hit transactions."""

    def rule(call: str, probability: float, **fault: Any) -> Rule:
        return {"call": call, "by": by, "probability": round(dice.uniform(0.2, 1) * probability, 3), **fault}

    rules = [
        rule("*", 0.1, fault="throttle"),
        rule("dynamodb:Transact*", 0.4, fault="conflict"),
        *(rule("*", 0.1, when=when, fault="error") for when in ("before", "after")),
        *(rule("*", 0.1, when=when, fault="timeout", seconds=0.02) for when in ("before", "after")),
        *(rule("*", 0.05, when=when, fault="kill") for when in ("before", "after")),
    ]
    dice.shuffle(rules)
    return rules


def deliveries_fail(function: str) -> list[Rule]:
    """Return rules of every kind of fault that a delivery can meet."""
    return [
        {"invoke": function, "fault": "twice", "probability": 0.3},
        {"invoke": function, "fault": "late", "seconds": 0.5, "probability": 0.3},
        {"invoke": function, "fault": "reordered", "seconds": 3, "probability": 0.5},
        {"invoke": function, "fault": "throttle", "probability": 0.1},
        {"invoke": function, "fault": "kill", "seconds": 0.02, "probability": 0.1},
    ]


def deliver_dead_letters_again(plane: Plane) -> tuple[int, list[str]]:
    """Give ingest what Lambda gave up on; return how many events that were, and the lines it refused."""
    given_up, refused = plane.letters()
    for event in given_up:
        plane.invoke(INGEST, event, "Event")
    plane.settle(60)
    more, again = plane.letters()
    assert more == []
    return len(given_up), [line["message"] for line in refused + again]


def seeds(full_size: bool) -> list[int]:
    first = random.SystemRandom().randrange(10**6)
    print(f"seed {first}")
    return list(range(first, first + (20 if full_size else 1)))


def test_all_stacks_are_deployed_within_15_seconds(plane: Plane, full_size: bool) -> None:
    print(f"deploy of all stacks, synthesized before: {plane.deploy_seconds:.1f} s")
    assert plane.deploy_seconds <= 15 or not full_size


def reconciled(plane: Plane, day: str, agent: str) -> dict[str, int]:
    """Let the plane hold a day against AWS's counts; return what it keeps of an agent's invocations."""
    answer, failed = plane.invoke(f"agentops-reconcile-{ENVIRONMENT}", {"day": day})
    assert not failed, answer
    key = {"pk": {"S": f"RECON#{day}"}, "sk": {"S": f"LAMBDA#{agent}"}}
    item = plane.client("dynamodb").get_item(TableName=TABLES.ledger, Key=key)["Item"]
    return {name: int(item[f"{name}_invocations"]["N"]) for name in ("aws", "ledger")}


def test_lines_that_ingest_never_took_are_missed_by_the_day_s_reconciliation(plane: Plane) -> None:
    # The first here that invokes it: what it is called stands in the ledger once in the life of ingest.
    day, sandbox = datetime.now(UTC).date().isoformat(), f"agentops-sandbox-{ENVIRONMENT}"

    def run(times: int) -> None:
        for _ in range(times):
            assert not plane.invoke(sandbox, {})[1]
        plane.settle(60)

    run(3)
    assert reconciled(plane, day, "sandbox") == {"aws": 3, "ledger": 3}
    plane.order({"call": "*", "by": INGEST, "fault": "kill"})
    run(2)
    plane.order()
    assert reconciled(plane, day, "sandbox") == {"aws": 5, "ledger": 3}
    assert deliver_dead_letters_again(plane)[1] == []
    assert reconciled(plane, day, "sandbox") == {"aws": 5, "ledger": 5}


def test_under_random_faults_the_ledger_is_the_recount(plane: Plane, full_size: bool) -> None:
    for seed in seeds(full_size):
        plane.order(*calls_fail(random.Random(seed), INGEST), *deliveries_fail(INGEST), seed=seed)
        events = world(seed, streams=8 if full_size else 3, invocations=30 if full_size else 4)
        broken = [
            one._replace(message=text)
            for one in events[:2]
            for text in ('{"agentops.event": {"id": "cut', json.dumps({"agentops.event": FORGED}))
        ]
        plane.feed([*events, *broken])
        plane.settle(300)
        print(f"seed {seed}: {plane.counts()}")
        assert sum(fired for _, fired in plane.counts()) >= 5
        plane.order()
        given_up, refused = deliver_dead_letters_again(plane)
        print(f"seed {seed}: {len(events)} lines, {given_up} deliveries given up and delivered again")
        assert set(refused) == {one.message for one in broken}
        lines = [one for one in plane.fed() if one.message not in refused]
        assert len(lines) == len(events)
        check(plane.client("dynamodb"), recount(lines))
        plane.empty()


def test_killed_at_each_of_its_calls_ingest_loses_and_doubles_nothing(plane: Plane, full_size: bool) -> None:
    seed = seeds(False)[0]
    calls: list[tuple[int, int]] = []
    for when in ("before", "after"):
        for skip in range(100) if full_size else (0, 1, 2):
            kill = {"call": "*", "by": INGEST, "fault": "kill", "when": when, "skip": skip, "most": 1}
            plane.order(kill)
            events = world(seed + len(calls), streams=1, invocations=3)
            plane.feed([*events, events[0]._replace(message='{"agentops.event": cut')], chunks=1)
            plane.settle(60)
            calls.append(plane.counts()[0])
            if calls[-1][1] == 0:
                break
    print(f"calls: {calls}")
    assert sum(fired for _, fired in calls) >= 6
    plane.order()
    given_up, refused = deliver_dead_letters_again(plane)
    assert given_up == 0
    assert set(refused) == {'{"agentops.event": cut'}
    check(plane.client("dynamodb"), recount(one for one in plane.fed() if one.message not in refused))


@pytest.mark.usefixtures("only_at_full_size")
def test_a_fold_that_is_killed_and_throttled_loses_and_doubles_nothing(plane: Plane, full_size: bool) -> None:
    """Lines of the day before yesterday, more of which come after it has been folded."""
    (seed,) = seeds(False)
    dice, function = random.Random(seed), f"agentops-fold-{ENVIRONMENT}"
    dynamodb, killed = plane.client("dynamodb"), 0
    for number in range(8 if full_size else 2):
        ago = int(time.time() * 1000) - 2 * 86_400_000
        plane.feed(World(seed + number, streams=1, invocations=2, start_ms=ago).events, chunks=1)
        plane.settle(60)
        skip = dice.randrange(100, 130)  # behind the hours that it reads, among what it writes
        when = dice.choice(("before", "after"))
        kill = {"call": "*", "by": function, "fault": "kill", "when": when, "skip": skip, "most": 1}
        plane.order(kill, {"call": "*", "by": function, "fault": "throttle", "probability": 0.05}, seed=seed)
        plane.invoke(function)
        killed += plane.counts()[0][1]
        plane.order()
        check(dynamodb, recount(plane.fed()))
        with ThreadPoolExecutor(2) as pool:
            assert not any(failed for _, failed in pool.map(plane.invoke, [function] * 2))
    assert killed
    expected = recount(plane.fed())
    check(dynamodb, expected)
    days = {schema.day_bucket(hour) for hour in expected.total}
    assert LedgerReader(dynamodb, TABLES).seen().keys() >= days


def test_a_failing_ingest_is_retried_and_ends_in_its_dead_letters(plane: Plane) -> None:
    events = world(seeds(False)[0], streams=2, invocations=3)
    plane.order({"call": "*", "by": INGEST, "fault": "kill"})
    plane.feed(events, chunks=2)
    plane.settle(60)
    ((_, killed),) = plane.counts()
    assert killed >= 2 * 3
    assert plane.client("dynamodb").scan(TableName=TABLES.monitoring)["Items"] == []
    plane.order()
    given_up, refused = deliver_dead_letters_again(plane)
    assert refused == []
    assert given_up == killed / 3, "each delivery had three attempts"
    check(plane.client("dynamodb"), recount(plane.fed()))


def report_issues(plane: Plane, seed: int, count: int) -> None:
    """Break functions of the shop, and tell the manager."""
    for incident in incidents(seed, count):
        plane.invoke(incident["function"], incident["payload"])
        detail = {name: incident[name] for name in ("function", "summary")} | {"environment": ENVIRONMENT}
        entry = {"EventBusName": f"agentops-{ENVIRONMENT}", "Source": "desk", "DetailType": "issue.reported"}
        plane.client("events").put_events(Entries=[{**entry, "Detail": json.dumps(detail)}])


class Recount:
    """What the agents' raw lines say, held against the tables, the model's log and AgentOps."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._told = {one.id for _, one in self._lines()}
        self._logs = {name: len(raw_lines.json_lines(plane.out / name)) for name in (MODEL_LOG, AGENTOPS_LOG)}

    def _lines(self) -> Iterator[tuple[raw_lines.Source, raw_lines.Logged]]:
        logs = self._plane.client("logs")
        for source in raw_lines.sources(logs, ENVIRONMENT):
            yield from ((source, one) for one in raw_lines.messages(logs, source.group))

    def take(self) -> list[raw_lines.Check]:
        """Return the differences in what came since; all deliveries are in."""
        plane = self._plane
        dynamodb = plane.client("dynamodb")
        self.lines = raw_lines.Lines()
        new: dict[raw_lines.Source, list[raw_lines.Logged]] = {}
        for source, one in self._lines():
            if one.id not in self._told:
                new.setdefault(source, []).append(one)
        for source, lines in new.items():
            raw_lines.count_lines(source, lines, self.lines)
        now = int(time.time())
        facts = ledger.collect(dynamodb, TABLES, ENVIRONMENT, Span(now - 3_600, now + 60))
        calls, self.spans = (
            raw_lines.json_lines(plane.out / name)[start:] for name, start in self._logs.items()
        )
        checks = raw_lines.compare(
            self.lines,
            stored=raw_lines.table_keys(dynamodb, TABLES.monitoring),
            decisions=raw_lines.table_keys(dynamodb, TABLES.decisions),
            ledger_llm_usd=facts.llm_usd,
            ledger_compute_usd=facts.compute_usd,
            calls=calls,
            spans=self.spans,
            region=REGION,
        )
        return [one for one in checks if not one.ok]


def test_agents_at_work_are_counted_and_exported_whatever_fails(plane: Plane, full_size: bool) -> None:
    (seed,) = seeds(False)
    dice, recounted = random.Random(seed), Recount(plane)
    manager, *others = (f"agentops-{agent}-{ENVIRONMENT}" for agent in ("manager", "engineer", "qa"))
    plane.order(
        *calls_fail(dice, INGEST),
        *calls_fail(dice, EXPORT),
        *deliveries_fail(INGEST),
        *deliveries_fail(EXPORT),
        *({"invoke": agent, "fault": "twice", "probability": 0.3} for agent in others),
        {"call": "events:PutEvents", "by": manager, "fault": "kill", "when": "before", "most": 1},
        seed=seed,
    )
    report_issues(plane, seed, 12 if full_size else 1)
    plane.settle(300)
    print(plane.counts())
    plane.order()
    deliver_dead_letters_again(plane)
    assert recounted.take() == []
    assert len(recounted.lines.events) > 20
    assert [name for name in recounted.lines.events if name.startswith("report-")], "the manager was killed"
    told = {e["span_id"] for e in recounted.lines.events.values() if e["type"] != "invocation_started"}
    assert {span["span_id"] for span in recounted.spans} == told


def test_time_outs_and_kills_of_agents_are_failures_on_record(plane: Plane, full_size: bool) -> None:
    (seed,) = seeds(False)
    dice, recounted = random.Random(seed), Recount(plane)
    function, lambda_ = f"agentops-manager-{ENVIRONMENT}", plane.client("lambda")
    usual = lambda_.get_function_configuration(FunctionName=function)["Timeout"]
    lambda_.update_function_configuration(FunctionName=function, Timeout=1)
    # At any moment, before the monitor begins included; and while it waits for an answer. Of the attempts at
    # an issue, three, and the issues at least two, some are left to run into their time.
    most = 6 if full_size else 1
    kill = {"invoke": function, "fault": "kill", "most": most}
    plane.order(
        {**kill, "seconds": round(dice.uniform(0, 0.6), 3)},
        *({**kill, "seconds": round(dice.uniform(0, 0.6), 3), "probability": 0.3} for _ in range(2)),
        {"call": "events:PutEvents", "by": function, "fault": "timeout", "seconds": 20, "most": 4 * most},
        *deliveries_fail(INGEST),
        seed=seed,
    )  # fmt: skip
    try:
        report_issues(plane, seed, 12 if full_size else 2)
        plane.settle(300)
        print(plane.counts())
    finally:
        plane.order()
        lambda_.update_function_configuration(FunctionName=function, Timeout=usual)
    deliver_dead_letters_again(plane)
    # A model's answer that came to one who was killed is nobody's to report.
    assert {one.name.partition(" ")[0] for one in recounted.take()} <= {"LLM"}
    failed = [event for id_, event in recounted.lines.events.items() if id_.startswith("report-")]
    found = LedgerReader(plane.client("dynamodb"), TABLES).events_of_type(
        "invocation_failed", datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC)
    )
    kinds = Counter(each["data"]["error"]["type"] for each in found if each["id"].startswith("report-"))
    print(kinds)
    assert kinds.total() == len(failed)
    assert kinds["Lambda.Timeout"] >= 1
    assert kinds["Runtime.ExitError"] >= 1


def told(plane: Plane) -> list[str]:
    """Return what was mailed of a budget's first threshold, as the keys that the letters state."""
    mails = [mail for mail in plane.local("mail") if mail["subject"].endswith("daily budget of $10.00")]
    letters = [mail["body"] for mail in mails]
    return [line for body in letters for line in body.splitlines() if line.endswith("#total@10#50")]


def spend_at_once(plane: Plane, deliveries: int) -> None:
    """Have deliveries cross half of the daily budget of $10, together."""
    at = int(time.time() * 1000)
    forget = {"FunctionName": INGEST, "Description": f"anew {at}"}  # its processes know what they have told
    plane.client("lambda").update_function_configuration(**forget)
    usage = {"gen_ai.usage.input_tokens": 350_000 // deliveries, "gen_ai.usage.output_tokens": 0}
    lines = []
    for number in range(deliveries):
        stream = f"stream-{at}-{number}"
        nonce = f"{at:x}{number:02x}"
        body = {
            "v": 1, "id": f"{nonce}-1", "type": "llm_usage", "agent": "manager", "at": rfc3339(at), "seq": 1,
            "workflow_id": "w", "trace_id": "0" * 32, "span_id": "1" * 16, "parent_id": None,
            "request_id": None, "proof": proof(nonce, stream),
            "data": {"gen_ai.request.model": "claude-3-opus", **usage},
        }  # fmt: skip
        text = json.dumps({"llm_usage": 1, "agentops.event": body})
        lines.append(LogEvent(stream, "agentops|test|manager|arm64", f"{number:056d}", at, text))
    plane.feed(lines, chunks=1)
    plane.settle(60)
    assert len(plane.fed()) == deliveries


def test_sixteen_deliveries_that_cross_a_threshold_mail_it_once(plane: Plane) -> None:
    before = len(told(plane))
    spend_at_once(plane, 16)
    plane.invoke("agentops-gauges-test")
    assert len(told(plane)) == before + 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_alert_whose_sender_is_killed_is_mailed_with_the_same_key(plane: Plane, when: str) -> None:
    before = told(plane)
    plane.order({"call": "sns:Publish", "by": INGEST, "fault": "kill", "when": when, "most": 1})
    spend_at_once(plane, 1)
    assert plane.counts()[0][1] == 1
    dynamodb, table = plane.client("dynamodb"), TABLES.ledger
    (entry,) = dynamodb.query(
        TableName=table,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": "ALERT#PENDING"}},
    )["Items"]
    dynamodb.put_item(TableName=table, Item={**entry, "lease": {"N": "0"}})  # as if two minutes had gone
    plane.invoke("agentops-gauges-test")
    letters = told(plane)[len(before) :]
    assert len(letters) == (1 if when == "before" else 2)
    assert len(set(letters)) == 1


def test_commands_bring_back_what_ingest_gave_up_and_what_was_lost(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead letters, and deliveries of which nothing is left but the log; then a workflow is forgotten."""
    for name, value in cli_variables(plane.url, plane.out).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCOUNT)
    monkeypatch.setattr("agentops_monitoring.ledger.forget.IN_FLIGHT_S", 0.0)
    (seed,) = seeds(False)
    events = world(seed, streams=2, invocations=4)
    plane.feed(events, chunks=1)
    plane.settle(60)
    more = world(seed + 1, streams=2, invocations=4)
    plane.order({"call": "*", "by": INGEST, "fault": "kill"})
    plane.feed(more[::2], chunks=1)
    plane.settle(60)
    plane.letters()  # gone: only their logs have them
    plane.feed(more[1::4], chunks=1)
    plane.settle(60)
    plane.order()
    command = ["replay", "--environment", ENVIRONMENT]
    assert cli.main([*command, "--dlq"]) == 0
    plane.feed(more[3::4], chunks=1)  # what follows shows what is missing
    plane.settle(60)
    for group in plane.groups():
        assert cli.main([*command, "--from-logs", "--log-group", group, "--start", "3h"]) == 0
    assert cli.main([*command, "--from-logs"]) == 0, "no event is missing"
    check(plane.client("dynamodb"), recount(plane.fed()))
    reader = LedgerReader(plane.client("dynamodb"), TABLES)
    workflow = next(body["workflow_id"] for body in recount(plane.fed()).events.values())
    assert reader.workflow_events(workflow)
    assert cli.main(["forget", "--workflow", workflow, "--yes", "--environment", ENVIRONMENT]) == 0
    assert reader.workflow_events(workflow) == []

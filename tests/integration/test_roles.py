"""The real stacks on the embedded AWS: each role allows what its function calls, and each action counts."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentops_monitoring.analysis.findings import GRACE, LOOP_MESSAGES
from agentops_monitoring.catalogue import MAX_PAIRS
from agentops_monitoring.functions.analyze import SLICE
from agentops_monitoring.identity import proof_of
from agentops_monitoring.ledger import schema
from local import scenario
from tests.fault.conftest import FaultyAws
from tests.integration.stopped import stop_and_resume

pytestmark = pytest.mark.xdist_group("least_privilege")

SEED, WORKFLOWS = 7, 3
LARGE_BYTES = 600_000  # of noise; more than an item holds
INGEST, LEDGER = "agentops-ingest-demo", "agent-ledger-demo"
# Whose failed events, or batches of a stream, Lambda sends to a queue.
WITH_DEAD_LETTERS = tuple(f"agentops-{name}-demo" for name in ("manager", "engineer", "qa", "export", "stop"))
LOG_WRITING = ("logs:CreateLogStream", "logs:PutLogEvents")
STREAM_READING = tuple(
    f"dynamodb:{action}" for action in ("DescribeStream", "GetRecords", "GetShardIterator", "ListStreams")
)
Grant = tuple[str, str, str]  # function, action and resource, which may have wildcards


class Demo(FaultyAws):
    """A demo that is kept: the stacks are deployed, each function has worked under its role."""

    def __init__(self, url: str, out: Path) -> None:
        super().__init__(url)
        self.out = out

    def policies(self, function: str) -> tuple[str, dict[str, Any]]:
        """Return a function's role and the role's policies by their names."""
        iam = self.client("iam")
        settings = self.client("lambda").get_function_configuration(FunctionName=function)
        role = settings["Role"].rpartition("/")[2]
        assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
        return role, {
            name: iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
            for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
        }

    def put_policy(self, role: str, name: str, statements: list[dict[str, Any]]) -> None:
        """Replace a policy of a role."""
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        self.client("iam").put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=document)

    def log_since(self, function: str, since_ms: int) -> list[str]:
        """Return what is in a function's log group since a moment."""
        settings = self.client("lambda").get_function_configuration(FunctionName=function)
        found = self.client("logs").get_paginator("filter_log_events")
        pages = found.paginate(logGroupName=settings["LoggingConfig"]["LogGroup"], startTime=since_ms)
        return [event["message"] for event in pages.build_full_result()["events"]]

    def denials(self, function: str, since_ms: int) -> list[str]:
        """Return the lines of a function's log that say it may not do something."""
        codes = ("AccessDenied", "AuthorizationError")  # the latter is SNS's
        return [line for line in self.log_since(function, since_ms) if any(code in line for code in codes)]


@pytest.fixture(scope="module")
def cloud(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Run a small demo and keep its AWS."""
    out = tmp_path_factory.mktemp("demo")
    arguments = ["--workflows", str(WORKFLOWS), "--seed", str(SEED), "--out", str(out), "--keep"]
    process = subprocess.Popen(
        [sys.executable, "-m", "local.demo", *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": "runtime"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"AWS_ENDPOINT_URL=(\S+)", line):
                yield Demo(found[1], out)
                return
        pytest.fail(f"the demo failed: {''.join(said)[-2000:]}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def granted(cloud: Demo) -> list[Grant]:
    """Return what the roles of the deployed functions allow, once each function has done all that it does."""
    found = cloud.client("lambda").get_paginator("list_functions").paginate().build_full_result()
    functions = [one["FunctionName"] for one in found["Functions"]]
    for function in functions:
        work(cloud, function)
    cloud.settle(60)
    for function in WITH_DEAD_LETTERS:
        fail(cloud, function)
    return sorted(
        (function, one["Action"], one["Resource"])
        for function in functions
        for policy in cloud.policies(function)[1].values()
        for one in single(policy["Statement"])
        if one["Effect"] == "Allow"
    )


def test_roles_allow_all_that_the_functions_call_and_nothing_else(cloud: Demo, granted: list[Grant]) -> None:
    functions = {function for function, _, _ in granted}
    for name in (
        "manager",
        "engineer",
        "qa",
        "sandbox",
        "ingest",
        "gauges",
        "analyze",
        "widgets",
        "export",
        "fold",
    ):
        assert f"agentops-{name}-demo" in functions
    assert {function: lines for function in functions if (lines := cloud.denials(function, 0))} == {}
    calls = cloud.local("calls")
    unused = [
        (function, action, resource)
        for function, action, resource in granted
        if not any(fnmatchcase(each, resource) for each in calls.get(function, {}).get(action, ()))
    ]
    assert unused == []


def test_without_any_of_its_permissions_a_function_is_refused(
    cloud: Demo, granted: list[Grant], full_size: bool
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    unnoticed = []
    for grant in granted if full_size else random.Random(seed).sample(granted, 2):
        function, action, resource = grant
        with without(cloud, grant):
            started = time.time_ns() // 1_000_000
            if action == "sqs:SendMessage" and function in WITH_DEAD_LETTERS:
                fail(cloud, function)
            elif action.startswith("ec2:"):
                deploy(cloud, function)
            else:
                work(cloud, function, resource)
            with contextlib.suppress(AssertionError):
                cloud.until(partial(refused, cloud, grant, started), 20)
                continue
        unnoticed.append(grant)
    assert unnoticed == []


def refused(cloud: Demo, grant: Grant, since_ms: int) -> bool:
    """Whether the function was told that it may not, where AWS tells: mostly in its own log."""
    function, action, resource = grant
    if action in LOG_WRITING:  # which then has nothing
        return cloud.local("idle")["pending"] == 0 and not cloud.log_since(function, since_ms)
    if action in STREAM_READING:
        mappings = cloud.client("lambda").list_event_source_mappings(FunctionName=function)
        told = mappings["EventSourceMappings"][0]["LastProcessingResult"]
        return f"not authorized to perform: {action}" in told
    if action == "sqs:SendMessage" and function in WITH_DEAD_LETTERS:  # of which AWS tells nobody
        lines = (cloud.out / "logs" / "aws.log").read_text().splitlines()
        return any(function in line and f"not authorized to perform: {action}" in line for line in lines)
    if action.startswith("ec2:"):
        events = cloud.client("cloudformation").describe_stack_events(StackName="in-a-vpc")["StackEvents"]
        return any(f"to call {action[4:]} on EC2" in one.get("ResourceStatusReason", "") for one in events)
    denials = cloud.denials(function, since_ms)
    if action.startswith("bedrock:"):  # the agents keep the name of a model's error alone
        return bool(denials)
    told = re.findall(rf'to perform: {action} on resource: [\\"]*([^\\" ]+)', "".join(denials))
    return any(fnmatchcase(each, resource) for each in told)


def work(cloud: Demo, function: str, resource: str = "") -> None:
    """Let a function do its part once more, what is rare as well; agents for the function that it names."""
    name = function.removeprefix("agentops-").removesuffix("-demo")
    dynamodb = cloud.client("dynamodb")
    if name in ("manager", "engineer", "qa", "sandbox"):
        known = scenario.incidents(SEED, 20)
        named = [one for one in known if f"/{one['function']}:" in resource]
        entry = {"EventBusName": "agentops-demo", "Source": "support.desk", "DetailType": "issue.reported"}
        for one in named or known[:WORKFLOWS]:  # not every patch comes as far as QA's model
            detail = {"environment": "demo", "function": one["function"], "summary": one["summary"]}
            cloud.client("events").put_events(Entries=[{**entry, "Detail": json.dumps(detail)}])
    elif name == "ingest":
        cloud.invoke(INGEST, {"awslogs": {"data": "nobody can read this"}})
        # More pairs of agents than have a metric each.
        cloud.invoke(INGEST, delivery([message(f"a{number}", "b", 0) for number in range(MAX_PAIRS + 1)]))
        cloud.invoke(INGEST, delivery([large()]))
        forget_alerts(cloud, function)
        tokens = {"gen_ai.usage.input_tokens": 1_000, "gen_ai.usage.output_tokens": 0}
        call = event("llm_usage", {"gen_ai.request.model": "claude-3-opus", **tokens})
        cloud.invoke(INGEST, delivery([call]))
    elif name == "gauges":
        forget_alerts(cloud, function)
        cloud.invoke(function, {})
    elif name == "export":
        cloud.invoke(INGEST, delivery([large()]))
    elif name == "analyze":  # from the start, and there is something to find
        dynamodb.delete_item(
            TableName="agent-ledger-demo", Key={"pk": {"S": "CURSOR#analyze"}, "sk": {"S": schema.STATE}}
        )
        ago = (GRACE + SLICE / 2).total_seconds()
        cloud.invoke(INGEST, delivery([message("in", "circles", ago)] * LOOP_MESSAGES))
        cloud.invoke(function, {})
    elif name == "widgets":
        item = dynamodb.scan(TableName="agent-decisions-demo", Limit=1)["Items"][0]
        key = {"workflow_id": item["pk"]["S"].removeprefix("WF#"), "sk": item["sk"]["S"]}
        for widget in ("flow", "decisions", "cost_drivers", "unit_costs", "budgets", "decision"):
            cloud.invoke(function, {"widget": widget, "environment": "demo", "key": key})
    elif name == "fold":  # a day that is over, with a pair that it has not seen
        cloud.invoke(INGEST, delivery([message(secrets.token_hex(4), "b", 2 * 86_400)]))
        cloud.invoke(function, {})
    elif name == "ready":  # environments that are kept ready, of which it has booked nothing
        lambda_, agent = cloud.client("lambda"), "agentops-manager-demo"
        version = lambda_.publish_version(FunctionName=agent)["Version"]
        lambda_.put_provisioned_concurrency_config(
            FunctionName=agent, Qualifier=version, ProvisionedConcurrentExecutions=1
        )
        dynamodb.delete_item(
            TableName="agent-ledger-demo", Key={"pk": {"S": schema.ready_pk(agent)}, "sk": {"S": version}}
        )
        cloud.invoke(function, {})
    elif name == "reconcile":  # a day on which something ran
        cloud.invoke(function, {"day": datetime.now(UTC).date().isoformat()})
    elif name == "stop":
        for former in (None, 2):
            stop_and_resume(cloud, function, "demo", LEDGER, "AgentOps-demo-FailedEvents-manager", former)
    else:
        cloud.invoke(function, {})


def forget_alerts(cloud: Demo, function: str) -> None:
    """Have the thresholds that are crossed told anew, by a process of the function that knows of none."""
    dynamodb, table = cloud.client("dynamodb"), "agent-ledger-demo"
    for page in dynamodb.get_paginator("scan").paginate(TableName=table):
        for item in page["Items"]:
            if item["pk"]["S"].startswith("ALERT#"):
                dynamodb.delete_item(TableName=table, Key={name: item[name] for name in ("pk", "sk")})
    again = f"anew {secrets.token_hex(4)}"
    cloud.client("lambda").update_function_configuration(FunctionName=function, Description=again)


def fail(cloud: Demo, function: str) -> None:
    """Make Lambda give up on something that a function was to do."""
    lambda_ = cloud.client("lambda")
    if function != "agentops-export-demo":
        # Lambda guide, "Configuring reserved concurrency": with none, events go straight to the destination.
        lambda_.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=0)
        cloud.invoke(function, {}, "Event")
        cloud.settle(60)
        lambda_.delete_function_concurrency(FunctionName=function)
        return
    (mapping,) = lambda_.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
    lambda_.update_event_source_mapping(UUID=mapping["UUID"], MaximumRetryAttempts=0)
    cloud.order({"invoke": function, "fault": "kill", "seconds": 0})
    work(cloud, function)
    cloud.settle(60)
    cloud.order()
    lambda_.update_event_source_mapping(UUID=mapping["UUID"], MaximumRetryAttempts=-1)


def deploy(cloud: Demo, function: str) -> None:
    """Deploy another function in the network of one, under its role; AWS asks for its interfaces then."""
    settings = cloud.client("lambda").get_function_configuration(FunctionName=function)
    network = {name: settings["VpcConfig"][name] for name in ("SubnetIds", "SecurityGroupIds")}
    code = {
        "Code": {"ZipFile": "def handler(event, context): pass"},
        "Handler": "index.handler",
        "Runtime": settings["Runtime"],
    }
    properties = {**code, "Role": settings["Role"], "VpcConfig": network}
    resources = {"Function": {"Type": "AWS::Lambda::Function", "Properties": properties}}
    formation = cloud.client("cloudformation")
    formation.create_stack(StackName="in-a-vpc", TemplateBody=json.dumps({"Resources": resources}))
    cloud.until(
        lambda: (
            "IN_PROGRESS" not in formation.describe_stacks(StackName="in-a-vpc")["Stacks"][0]["StackStatus"]
        )
    )


@contextlib.contextmanager
def without(cloud: Demo, grant: Grant) -> Iterator[None]:
    """Take an action on a resource out of a function's role, and start it anew: it may keep what it read."""
    function, *taken = grant
    role, policies = cloud.policies(function)
    for name, document in policies.items():
        rest = [
            one
            for one in single(document["Statement"])
            if one["Effect"] != "Allow" or [one["Action"], one["Resource"]] != taken
        ]
        nothing = {"Effect": "Allow", "Action": "none:Nothing", "Resource": "*"}
        cloud.put_policy(role, name, rest or [nothing])
    cloud.client("lambda").update_function_configuration(FunctionName=function, Description=str(taken))
    try:
        yield
    finally:
        for name, document in policies.items():
            cloud.put_policy(role, name, document["Statement"])
        cloud.client("cloudformation").delete_stack(StackName="in-a-vpc")
        cloud.settle(60)


def single(statements: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Say statements again, with one action and one resource in each."""
    for statement in statements:
        for action in listed(statement["Action"]):
            for resource in listed(statement["Resource"]):
                yield {**statement, "Action": action, "Resource": resource}


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def event(kind: str, data: dict[str, Any], seconds_ago: float = 0) -> dict[str, Any]:
    """Return an event of an agent, as its line has it."""
    at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    fields = {"span_id": secrets.token_hex(8)}
    fields |= {name: secrets.token_hex(16) for name in ("workflow_id", "trace_id")}
    return {
        "v": 1, "id": f"{secrets.token_hex(12)}-1", "type": kind, "agent": "tester", "seq": 1, "data": data,
        "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"), **fields,
    }  # fmt: skip


def message(sender: str, to: str, seconds_ago: float) -> dict[str, Any]:
    """Return the event of a message."""
    sent = {"from": sender, "to": to, "message_id": secrets.token_hex(8), "message_type": "m"}
    return {**event("message_sent", sent, seconds_ago), "workflow_id": to * 8}


def large() -> dict[str, Any]:
    """Return the event of a decision that no item can hold."""
    return event("decision_made", {"reasoning_chain": random.randbytes(LARGE_BYTES).hex()})


def delivery(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return events as a subscription delivers them."""
    lines = []
    for one in events:
        body = {**one, "id": f"{secrets.token_hex(12)}-1"}
        body["proof"] = proof_of(body["id"].partition("-")[0], "stream")
        line = {"timestamp": body["at"], "level": "INFO", body["type"]: 1, "agentops.event": body}
        at_ms = round(datetime.fromisoformat(body["at"]).timestamp() * 1000)
        lines.append({"id": body["id"], "timestamp": at_ms, "message": json.dumps(line)})
    payload = {
        "messageType": "DATA_MESSAGE", "logGroup": "group", "logStream": "stream",
        "subscriptionFilters": ["agentops|demo|tester|arm64"], "logEvents": lines,
    }  # fmt: skip
    return {"awslogs": {"data": base64.b64encode(gzip.compress(json.dumps(payload).encode())).decode()}}

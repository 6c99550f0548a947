"""Calls of models: judged as Bedrock does, then passed on; and faults reach them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.model_server import ModelServer
from tests.fault.conftest import FaultyAws
from tests.integration.conftest import ACCOUNT, REGION, running_aws

pytestmark = pytest.mark.xdist_group("models")

MODEL = "anthropic.claude-sonnet-5-5"
INVOKE, STREAM = "bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"
FOUNDATION = f"arn:aws:bedrock:{REGION}::foundation-model/{MODEL}"
PROFILES = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:inference-profile"
CALLER = """
import boto3, botocore.config
def handler(event, context):
    once = botocore.config.Config(retries={"total_max_attempts": 1})
    client = boto3.client(event.get("service", "bedrock-runtime"), config=once)
    try:
        answer = getattr(client, event["call"])(**event["arguments"])
    except botocore.exceptions.ClientError as error:
        return [error.response["Error"]["Code"], error.response["Error"]["Message"]]
    return answer["output"]["message"]["content"][0]["text"]
"""


@pytest.fixture(scope="module")
def cloud() -> Iterator[FaultyAws]:
    counts = {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}
    counts |= {"cacheReadInputTokens": 0, "cacheWriteInputTokens": 0}
    server = ModelServer(0, lambda request: (f"heard {request['messages']}", "end_turn", counts))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with running_aws("--model-url", server.url) as (_, url):
            yield FaultyAws(url)
    finally:
        server.shutdown()
        server.server_close()


def ask(cloud: FaultyAws, model: str, *granted: dict[str, Any], call: str = "converse") -> Any:
    """Let a function that has these statements and may log, and no more, call a model."""
    function = cloud.function(CALLER, Role=cloud.role(allow("logs:*", "*"), *map(json.dumps, granted)))
    message = {"role": "user", "content": [{"text": "hello"}]}
    answer, failed = cloud.invoke(
        function, {"call": call, "arguments": {"modelId": model, "messages": [message]}}
    )
    assert not failed
    return answer


def allow(action: str, *resources: str) -> str:
    return json.dumps(statement(action, *resources))


def statement(action: str, *resources: str, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resources, **more}


@pytest.mark.parametrize(
    ("model", "resources"),
    [
        (MODEL, [FOUNDATION]),
        (FOUNDATION, [FOUNDATION]),
        (f"us.{MODEL}", [f"{PROFILES}/us.{MODEL}", FOUNDATION]),
        (f"{PROFILES}/eu.{MODEL}", [f"{PROFILES}/eu.{MODEL}", FOUNDATION]),
        (
            f"global.{MODEL}",
            [f"{PROFILES}/global.{MODEL}", FOUNDATION, f"arn:aws:bedrock:::foundation-model/{MODEL}"],
        ),
    ],
)
def test_a_model_call_needs_invoke_model_on_the_profile_and_on_what_is_behind(
    cloud: FaultyAws, model: str, resources: list[str]
) -> None:
    assert "heard" in ask(cloud, model, statement(INVOKE, *resources))
    for missing in resources:
        rest = [one for one in resources if one != missing] or ["arn:aws:bedrock:none"]
        code, told = ask(cloud, model, statement(INVOKE, *rest))
        assert code.startswith("AccessDenied")
        assert f"is not authorized to perform: {INVOKE} on resource: {missing} because" in told


def test_converse_is_no_action_and_streams_have_their_own(cloud: FaultyAws) -> None:
    code, told = ask(cloud, MODEL, statement("bedrock:Converse", FOUNDATION))
    assert (code[:12], INVOKE in told) == ("AccessDenied", True)
    code, told = ask(cloud, MODEL, statement(INVOKE, FOUNDATION), call="converse_stream")
    assert (code[:12], STREAM in told) == ("AccessDenied", True)


def test_a_model_may_be_allowed_through_its_profile_alone(cloud: FaultyAws) -> None:
    profile = f"{PROFILES}/us.{MODEL}"
    through = {"ArnEquals": {"bedrock:InferenceProfileArn": profile}}
    granted = [statement(INVOKE, profile), statement(INVOKE, FOUNDATION, Condition=through)]
    assert "heard" in ask(cloud, f"us.{MODEL}", *granted)
    assert ask(cloud, MODEL, *granted)[0].startswith("AccessDenied")


def test_an_applications_profile_is_refused_by_name(cloud: FaultyAws) -> None:
    profile = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:application-inference-profile/abc"
    assert "is not served" in ask(cloud, profile, statement(INVOKE, "*"))[1]


def test_the_models_errors_and_ordered_faults_reach_the_caller(cloud: FaultyAws) -> None:
    code, _ = ask(cloud, MODEL, statement(STREAM, FOUNDATION), call="converse_stream")
    assert code == "UnknownOperationException"  # as that server says
    cloud.order({"call": INVOKE, "fault": "throttle"})
    assert ask(cloud, MODEL, statement(INVOKE, FOUNDATION))[0] == "ThrottlingException"
    cloud.order()


def test_partiql_whose_actions_are_not_known_here_is_refused(cloud: FaultyAws) -> None:
    function = cloud.function(CALLER)
    call = {"service": "dynamodb", "call": "execute_statement", "arguments": {"Statement": "SELECT * FROM t"}}
    answer, _ = cloud.invoke(function, call)
    assert "is not known" in answer[1]


def test_bedrock_counts_calls_and_tokens_by_the_id_they_were_made_with(cloud: FaultyAws) -> None:
    model = "amazon.nova-lite-v1:0"  # nobody else calls it here
    may = statement(INVOKE, f"arn:aws:bedrock:{REGION}::foundation-model/{model}")
    for _ in range(3):
        assert ask(cloud, model, may).startswith("heard")
    refused, _why = ask(cloud, model)
    assert refused == "AccessDeniedException"
    cloudwatch = cloud.client("cloudwatch")
    dimensions = [{"Name": "ModelId", "Value": model}]
    listed = cloudwatch.list_metrics(Namespace="AWS/Bedrock", MetricName="Invocations")["Metrics"]
    assert dimensions in [each["Dimensions"] for each in listed]
    now = datetime.now(UTC)
    for name in ("Invocations", "InputTokenCount", "OutputTokenCount"):  # one token each way, says the model
        metric = {"Namespace": "AWS/Bedrock", "MetricName": name, "Dimensions": dimensions}
        asked = {"Id": "m0", "MetricStat": {"Metric": metric, "Period": 900, "Stat": "Sum"}}
        found = cloudwatch.get_metric_data(
            MetricDataQueries=[asked], StartTime=now - timedelta(hours=1), EndTime=now + timedelta(hours=1)
        )
        assert sum(found["MetricDataResults"][0]["Values"]) == 3

"""A function that the deployed `stop` may stop, and all that `stop` does with it."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from functools import cache

from agentops_monitoring.control import stoppable
from agentops_monitoring.ledger import schema

from .conftest import EmbeddedAws

AGENT, ALARM = "stoppable", "Cost-stoppable"
NOTHING = "def handler(event, context): pass"


@cache
def target(aws: EmbeddedAws, environment: str, failed_alarm: str) -> tuple[str, str]:
    """Create a function as an agent's construct makes it known; return its name and its queue's URL."""
    url, arn = aws.queue()
    function = aws.function(NOTHING)
    tag = {stoppable.TAG: environment}
    aws.client("lambda").tag_resource(Resource=aws.arn(function), Tags=tag)
    aws.client("lambda").put_function_event_invoke_config(
        FunctionName=function, DestinationConfig={"OnFailure": {"Destination": arn}}
    )
    aws.client("sqs").tag_queue(QueueUrl=url, Tags=tag)
    known = {"function": function, "queue": url, "alarms": [ALARM], "failed_alarm": failed_alarm}
    aws.client("ssm").put_parameter(
        Name=f"{stoppable.path(environment)}/{AGENT}", Value=json.dumps(known), Type="String"
    )
    return function, url


def stop_and_resume(
    aws: EmbeddedAws, stop: str, environment: str, ledger: str, failed_alarm: str, former: int | None
) -> bool:
    """Have that function stopped, an event and another message kept, and it resumed; tell whether it was."""
    function, url = target(aws, environment, failed_alarm)
    lambda_, sqs = aws.client("lambda"), aws.client("sqs")
    key = {"pk": {"S": schema.stopped_pk(AGENT)}, "sk": {"S": schema.STATE}}
    aws.client("dynamodb").delete_item(TableName=ledger, Key=key)
    sqs.purge_queue(QueueUrl=url)
    lambda_.delete_function_concurrency(FunctionName=function)
    if former is not None:
        lambda_.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=former)
    state = {"value": "ALARM", "reason": "told to", "timestamp": datetime.now(UTC).isoformat()}
    aws.invoke(stop, {"source": "aws.cloudwatch", "alarmData": {"alarmName": ALARM, "state": state}})
    if lambda_.get_function_concurrency(FunctionName=function).get("ReservedConcurrentExecutions") != 0:
        return False
    aws.invoke(function, {"n": 1}, "Event")
    aws.settle()
    time.sleep(0.002)  # the other message is to be later than the stop
    sqs.send_message(QueueUrl=url, MessageBody="of another kind")
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    aws.invoke(stop, {"source": "aws.events", "time": tomorrow})
    aws.settle()
    found = lambda_.get_function_concurrency(FunctionName=function)
    left = sqs.receive_message(QueueUrl=url, VisibilityTimeout=0).get("Messages", [])
    return found.get("ReservedConcurrentExecutions") == former and len(left) == 1

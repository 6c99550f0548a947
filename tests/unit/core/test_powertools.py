"""Beside the decorators and data classes of Powertools."""

from __future__ import annotations

from typing import Any

import pytest

from agentops_monitoring import AgentOpsMonitor, monitored
from agentops_monitoring.testing import LambdaContext

from .invoked import CONTEXT, ONE, REQUEST, inside, message, work

BATCH = {
    "Records": [
        {"messageId": name, "body": body, "eventSource": "aws:sqs", "messageAttributes": {}, "attributes": {}}
        for name, body in (("1", "good"), ("2", "bad"), ("3", "good"))
    ]
}


def test_powertools_decorators_above_and_below(
    in_lambda: None, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "agents")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "agents")
    from aws_lambda_powertools import Logger, Metrics
    from aws_lambda_powertools.metrics import MetricUnit
    from aws_lambda_powertools.utilities.data_classes import EventBridgeEvent, event_source

    logger, metrics = Logger(), Metrics()
    answer = {"statusCode": 200}

    @logger.inject_lambda_context
    @monitored
    @metrics.log_metrics
    @event_source(data_class=EventBridgeEvent)
    def above(event: EventBridgeEvent, context: Any) -> Any:
        assert event.detail_type == "issue.found"
        metrics.add_metric("found", MetricUnit.Count, 1)
        work(event)
        return answer

    @monitored
    @event_source(data_class=EventBridgeEvent)
    @logger.inject_lambda_context
    def below(event: EventBridgeEvent, context: Any) -> Any:
        work(event)
        return answer

    @event_source(data_class=EventBridgeEvent)
    @monitored
    def inmost(event: EventBridgeEvent, context: Any) -> Any:
        work(event)
        return answer

    lambdas: Any = LambdaContext("engineer-function", request_id=REQUEST)
    for number, handler in enumerate((above, below, inmost)):
        assert handler(message(message_id=f"m{number}"), lambdas) is answer
    assert inside(recorded()) == [ONE[0], "message_received", *ONE[1:]] * 3


def test_a_partial_batch_response_passes_through(in_lambda: None, recorded: Any) -> None:
    from aws_lambda_powertools.utilities.batch import (
        BatchProcessor,
        EventType,
        process_partial_response,
    )
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

    monitor = AgentOpsMonitor()

    def record_handler(record: SQSRecord) -> None:
        with monitor.message(record):
            assert record.body == "good"

    processor = BatchProcessor(event_type=EventType.SQS)

    @monitored
    def handler(event: Any, context: Any) -> Any:
        return process_partial_response(event, record_handler, processor, context)

    failures = {"batchItemFailures": [{"itemIdentifier": "2"}]}
    assert handler(BATCH, CONTEXT) == failures
    events = recorded()
    assert [event["type"] for event in events] == [ONE[0], "span", "span", "span", ONE[2]]
    assert [("error" in event["data"]) for event in events[1:4]] == [False, True, False]
    assert events[4]["type"] == "invocation_completed", "a partial failure is an answer"

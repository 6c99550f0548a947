"""What invoked a function, by its event."""

from __future__ import annotations

from typing import Any

import pytest

from agentops_monitoring import triggers


@pytest.mark.parametrize(
    ("event", "trigger"),
    [
        ({"source": "aws.events", "detail-type": "Scheduled Event"}, "schedule"),
        ({"source": "aws.scheduler", "detail-type": "Scheduled Event"}, "schedule"),
        ({"source": "mine", "detail-type": "issue.found"}, "eventbridge"),
        ({"source": "aws.cloudwatch", "detail-type": "CloudWatch Alarm State Change"}, "alarm"),
        ({"alarmData": {}}, "alarm"),
        ({"Records": [{"eventSource": "aws:sqs"}]}, "sqs"),
        ({"Records": [{"EventSource": "aws:sns"}]}, "sns"),
        ({"requestContext": {}}, "http"),
        ({"requestContext": 7}, "http"),
        ({"requestContext": {"elb": {"targetGroupArn": "arn:…"}}}, "load-balancer"),
        (
            {"requestContext": {"apiId": "a1", "domainName": "a1.execute-api.eu-west-1.amazonaws.com"}},
            "api-gateway",
        ),
        ({"requestContext": {"apiId": "u1", "domainName": "u1.lambda-url.eu-west-1.on.aws"}}, "function-url"),
        ({"requestContext": {"apiId": "w1", "connectionId": "c", "routeKey": "$default"}}, "websocket"),
        ({"Records": [{"eventSource": "aws:dynamodb"}]}, "dynamodb"),
        ({"Records": [{"eventSource": "aws:kinesis"}]}, "kinesis"),
        ({"Records": [{"eventSource": "aws:s3"}]}, "s3"),
        ({"Records": [{"cf": {}}]}, "cloudfront"),
        ([{"eventSource": "aws:sqs"}], "sqs"),
        ({"eventSource": "aws:kafka", "records": {}}, "kafka"),
        ({"eventSource": "SelfManagedKafka", "records": {}}, "kafka"),
        ({"eventSource": "aws:rmq", "rmqMessagesByQueue": {}}, "rabbitmq"),
        ({"eventSource": "aws:mq", "messages": []}, "activemq"),
        ({"awslogs": {"data": ""}}, "logs"),
        ({"deliveryStreamArn": "arn:…", "records": []}, "firehose"),
        ({"type": "TOKEN", "methodArn": "arn:…"}, "authorizer"),
        ({"triggerSource": "PreSignUp_SignUp", "userPoolId": "p"}, "cognito"),
        ({"actionGroup": "g", "agent": {}}, "bedrock-agent"),
        ({"RequestType": "Create", "ResponseURL": "https://…"}, "cloudformation"),
        ({"CodePipeline.job": {}}, "codepipeline"),
        ({"configRuleName": "r", "invokingEvent": "{}"}, "config"),
        ({"invocationSchemaVersion": "1.0", "tasks": []}, "s3-batch"),
        ({"SecretId": "s", "Step": "createSecret"}, "secretsmanager"),
        ({"arguments": {}, "info": {"fieldName": "f"}}, "appsync"),
        ({"Records": [7]}, "direct"),
        ({"Records": 7}, "direct"),
        ([], "direct"),
        ([7], "direct"),
    ],
)
def test_triggers(event: Any, trigger: str) -> None:
    assert triggers.trigger_of(event) == trigger

"""AWS clients, each made on first use and kept for the life of the process."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime import BedrockRuntimeClient
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client

# A long answer, 4,096 tokens, takes a slow model that long; it comes in one piece.
MODEL_TIMEOUT_SECONDS = 120
SANDBOX_TIMEOUT_SECONDS = 75


@cache
def s3() -> S3Client:
    """Documents and sources."""
    import boto3

    return boto3.client("s3")


@cache
def logs() -> CloudWatchLogsClient:
    """The workload's logs."""
    import boto3

    return boto3.client("logs")


@cache
def cloudwatch() -> CloudWatchClient:
    """The workload's metrics."""
    import boto3

    return boto3.client("cloudwatch")


@cache
def events() -> EventBridgeClient:
    """The agents' bus."""
    import boto3

    return boto3.client("events")


@cache
def functions() -> LambdaClient:
    """The sandbox. A call that timed out is not repeated: the first one may still run."""
    import boto3
    from botocore.config import Config

    config = Config(read_timeout=SANDBOX_TIMEOUT_SECONDS, retries={"total_max_attempts": 1})
    return boto3.client("lambda", config=config)


@cache
def bedrock() -> BedrockRuntimeClient:
    """Models. Throttled calls are tried again at once; Lambda's own retry would come a minute later."""
    import boto3
    from botocore.config import Config

    config = Config(read_timeout=MODEL_TIMEOUT_SECONDS, retries={"total_max_attempts": 5, "mode": "standard"})
    return boto3.client("bedrock-runtime", config=config)

"""What the probes of services share: refusals that AWS declares, and the corpus of facts."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import botocore.session
from botocore.exceptions import ClientError

FOLDER = Path(__file__).parent
# Codes that no operation declares: those that every operation of the service may answer with.
COMMON_ERRORS: Mapping[str, frozenset[str]] = {
    # Error handling with DynamoDB, "HTTP status code 400":
    # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
    "dynamodb": frozenset({"AccessDeniedException", "ValidationException"}),
    # Common errors: https://docs.aws.amazon.com/eventbridge/latest/APIReference/CommonErrors.html
    "events": frozenset({"ValidationException"}),
    # "Request must be smaller than 6291456 bytes": https://github.com/pelmers/streetwarp-web/issues/14
    "lambda": frozenset({"RequestEntityTooLargeException"}),
    # Common errors: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html
    # and the codes of the query protocol, which clients of the JSON protocol still get (awsQueryCompatible):
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-json-api-responses.html
    "sqs": frozenset(
        {
            "InvalidParameterValue",
            "AWS.SimpleQueueService.NonExistentQueue",
            "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
        }
    ),
    # Error responses, list of error codes:
    # https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#ErrorCodeList
    "s3": frozenset({"AccessDenied", "NoSuchBucket", "NoSuchKey", "PreconditionFailed"}),
    # Common errors: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CommonErrors.html
    "cloudwatch": frozenset({"ValidationError"}),
}


class Fact(NamedTuple):
    """What AWS does, where it says so, and what of ours would break if it were otherwise."""

    name: str
    """Of the probe, without ``test_``."""
    says: str
    source: tuple[str, ...]
    """``botocore: service.Operation`` (its documentation in the service model), or title and URL."""
    figures: tuple[str, ...]
    """What the documentation of the ``botocore:`` sources contains, word for word."""
    rests: str
    """A file of ours, and what it does with it."""
    deviates: Mapping[str, str]
    """``local``, ``moto``: how it does otherwise, and why nothing of ours rests on it there."""


@cache
def facts(module: str) -> dict[str, Fact]:
    """Return the facts that belong to a module of probes, by the names of its tests."""
    path = FOLDER / "facts" / f"{module.removeprefix('test_')}.toml"
    if not path.exists():
        return {}
    return {
        f"test_{name}": Fact(
            name,
            entry["says"],
            tuple(entry["source"]),
            tuple(entry.get("figures", ())),
            entry["rests"],
            entry.get("deviates", {}),
        )
        for name, entry in tomllib.loads(path.read_text()).items()
    }


def refused(call: Callable[..., Any], *codes: str, **arguments: Any) -> dict[str, Any]:
    """Make a call that is refused with one of these codes, which AWS declares for it; return the answer."""
    client: Any = call.__self__  # type: ignore[attr-defined]
    unknown = set(codes) - declared(client, call.__name__)
    assert not unknown, f"AWS does not declare {unknown} for {call.__name__}"
    try:
        answer = call(**arguments)
    except ClientError as error:
        answer = error.response
    found = answer.get("Error", {}).get("Code", "no error")
    assert found in codes, f"{call.__name__}: {found}, not {codes}: {str(answer)[:200]}"
    return dict(answer)


def declared(client: Any, method: str) -> set[str]:
    """Return the error codes that a client's method may answer with, as AWS documents them."""
    model = client.meta.service_model
    operation = model.operation_model(client.meta.method_to_api_mapping[method])
    codes = {
        code
        for shape in operation.error_shapes
        for code in (shape.name, shape.metadata.get("error", {}).get("code", shape.name))
    }
    return codes | COMMON_ERRORS.get(model.service_name, frozenset())


@cache
def documentation(service: str, name: str) -> str:
    """Return all that a service model says of an operation and of its parameters, as plain text."""
    operation: Any = botocore.session.get_session().get_service_model(service).operation_model(name)
    texts, seen = [operation.documentation], set()

    def collect(shape: Any) -> None:
        if shape is None or shape.name in seen:
            return
        seen.add(shape.name)
        texts.append(shape.documentation)
        if "max" in shape.metadata:
            texts.append(f"{shape.name} max {shape.metadata['max']}")
        for member in [*getattr(shape, "members", {}).values(), getattr(shape, "member", None)]:
            texts.append(getattr(member, "documentation", ""))
            collect(member)

    collect(operation.input_shape)
    collect(operation.output_shape)
    for shape in operation.error_shapes:
        collect(shape)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", " ".join(texts)))

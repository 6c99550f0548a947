"""S3, parameters, secrets, metrics and models: what a miss and a refusal look like."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.contract.cloud import Cloud
from tests.contract.services.probes import refused

pytestmark = pytest.mark.xdist_group("embedded_aws")

READ = """
import boto3
from botocore.exceptions import ClientError
def handler(event, context):
    try:
        boto3.client("s3").get_object(Bucket=event["bucket"], Key=event["key"])
    except ClientError as error:
        return [error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]]
    return None
"""


def bucket(service: Cloud) -> str:
    s3, name = service.client("s3"), service.name("bucket")
    place = {"CreateBucketConfiguration": {"LocationConstraint": service.region}}
    s3.create_bucket(Bucket=name, **({} if service.region == "us-east-1" else place))
    service.made(f"bucket {name}", lambda: s3.delete_bucket(Bucket=name))
    return name


def test_an_object_that_is_not_there_is_told_as_such(service: Cloud) -> None:
    s3, name = service.client("s3"), bucket(service)
    answer = refused(s3.get_object, "NoSuchKey", Bucket=name, Key="missing")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 404
    refused(s3.get_object, "NoSuchBucket", Bucket=f"{name}-missing", Key="k")


def test_an_object_is_put_if_there_is_none(service: Cloud) -> None:
    s3, name = service.client("s3"), bucket(service)
    s3.put_object(Bucket=name, Key="k", Body=b"first", IfNoneMatch="*")
    service.made(f"object of {name}", lambda: s3.delete_object(Bucket=name, Key="k"))
    answer = refused(
        s3.put_object, "PreconditionFailed", Bucket=name, Key="k", Body=b"second", IfNoneMatch="*"
    )
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert s3.get_object(Bucket=name, Key="k")["Body"].read() == b"first"


@pytest.mark.parametrize(("may_list", "answer"), [(False, ["AccessDenied", 403]), (True, ["NoSuchKey", 404])])
def test_who_may_not_list_is_not_told_what_is_missing(
    service: Cloud, may_list: bool, answer: list[Any]
) -> None:
    name = bucket(service)
    arn = f"arn:aws:s3:::{name}"
    statements = [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"{arn}/*"}]
    if may_list:
        statements.append({"Effect": "Allow", "Action": "s3:ListBucket", "Resource": arn})
    function = service.function(READ, *statements)
    event = {"bucket": name, "key": "missing"}
    service.until(lambda: service.invoke(function, event)["Payload"] == answer)


def test_a_parameter_that_is_not_there_is_told_as_such(service: Cloud) -> None:
    ssm = service.client("ssm")
    name = f"/{service.name('parameter')}"
    refused(ssm.get_parameter, "ParameterNotFound", Name=name)
    assert ssm.get_parameters(Names=[name])["InvalidParameters"] == [name]


def test_a_secret_that_is_not_there_is_told_as_such(service: Cloud) -> None:
    secrets, name = service.client("secretsmanager"), service.name("secret")
    refused(secrets.get_secret_value, "ResourceNotFoundException", SecretId=name)
    secrets.create_secret(Name=name, SecretString="text")
    service.made(
        f"secret {name}",
        lambda: secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True),
    )
    assert secrets.get_secret_value(SecretId=name)["SecretString"] == "text"
    refused(secrets.create_secret, "ResourceExistsException", Name=name, SecretString="text")


def test_a_secret_without_a_value_is_told_as_such(service: Cloud) -> None:
    secrets, name = service.client("secretsmanager"), service.name("secret")
    secrets.create_secret(Name=name)
    service.made(
        f"secret {name}",
        lambda: secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True),
    )
    refused(secrets.get_secret_value, "ResourceNotFoundException", SecretId=name)


def query(namespace: str, name: str, number: int = 0, /, **dimensions: str) -> dict[str, Any]:
    metric = {
        "Namespace": namespace,
        "MetricName": name,
        "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
    }
    return {"Id": f"m{number}", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}}


def minute() -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0)


def data(service: Cloud, namespace: str, points: int) -> datetime:
    """Put the values 1, 2, 3 … of a metric, one a minute, the last minutes ago; return the first's time."""
    start = minute() - timedelta(minutes=points + 5)
    values = [
        {
            "MetricName": "n",
            "Dimensions": [{"Name": "Environment", "Value": "e"}],
            "Timestamp": start + timedelta(minutes=number),
            "Value": number + 1,
        }
        for number in range(points)
    ]
    service.client("cloudwatch").put_metric_data(Namespace=namespace, MetricData=values)
    return start


def test_metric_data_has_500_queries(service: Cloud) -> None:
    get, end = service.client("cloudwatch").get_metric_data, minute()
    span = {"StartTime": end - timedelta(hours=1), "EndTime": end}
    queries = [query("n", "m", number) for number in range(501)]
    refused(get, "ValidationError", MetricDataQueries=queries, **span)
    assert len(get(MetricDataQueries=queries[:500], **span)["MetricDataResults"]) == 500


def test_metric_data_is_newest_first_unless_asked(service: Cloud) -> None:
    namespace, get = f"Contract/{service.name('n')}", service.client("cloudwatch").get_metric_data
    start = data(service, namespace, 3)
    span: dict[str, Any] = {"StartTime": start, "EndTime": start + timedelta(minutes=3)}
    queries = [query(namespace, "n", 0, Environment="e")]

    def values(**order: str) -> list[float]:
        return list(get(MetricDataQueries=queries, **span, **order)["MetricDataResults"][0]["Values"])

    assert service.until(lambda: len(found := values()) == 3 and found) == [3, 2, 1]
    assert values(ScanBy="TimestampAscending") == [1, 2, 3]
    early = get(MetricDataQueries=queries, StartTime=start, EndTime=start + timedelta(minutes=2))
    assert early["MetricDataResults"][0]["Values"] == [2, 1]  # the end is not in it


def test_metric_data_comes_in_pages(service: Cloud) -> None:
    namespace, client = f"Contract/{service.name('n')}", service.client("cloudwatch")
    start = data(service, namespace, 6)
    asked: dict[str, Any] = {
        "MetricDataQueries": [query(namespace, "n", 0, Environment="e")],
        "StartTime": start,
        "EndTime": start + timedelta(minutes=6),
        "ScanBy": "TimestampAscending",
        "MaxDatapoints": 4,
    }

    def pages() -> list[list[float]]:
        found: list[list[float]] = []
        token: dict[str, str] = {}
        while True:
            page = client.get_metric_data(**asked, **token)
            found.append([value for result in page["MetricDataResults"] for value in result["Values"]])
            if "NextToken" not in page:
                return found
            token = {"NextToken": page["NextToken"]}

    found = service.until(lambda: sum(map(len, pages())) == 6 and pages())
    assert [value for page in found for value in page] == [1, 2, 3, 4, 5, 6]
    assert max(map(len, found)) <= 4


def test_dimensions_are_exact(service: Cloud) -> None:
    namespace, get = f"Contract/{service.name('n')}", service.client("cloudwatch").get_metric_data
    start = data(service, namespace, 1)
    span = {"StartTime": start, "EndTime": start + timedelta(minutes=1)}

    def values(**dimensions: str) -> list[float]:
        answer = get(MetricDataQueries=[query(namespace, "n", 0, **dimensions)], **span)
        return list(answer["MetricDataResults"][0]["Values"])

    assert service.until(lambda: values(Environment="e")) == [1]
    assert values() == values(Environment="E") == values(Environment="e", AgentName="a") == []


def test_an_unknown_model_is_refused(service: Cloud) -> None:
    client = service.client("bedrock-runtime")
    message = {"role": "user", "content": [{"text": "x"}]}
    codes = ("ValidationException", "AccessDeniedException", "ResourceNotFoundException")
    refused(client.converse, *codes, modelId="no.such-model-v1:0", messages=[message])


def test_a_model_that_fails_tells_why_by_code_and_status(service: Cloud) -> None:
    model = service.client("bedrock-runtime").meta.service_model.operation_model("Converse")
    statuses = {shape.name: shape.metadata["error"]["httpStatusCode"] for shape in model.error_shapes}
    assert statuses == {
        "AccessDeniedException": 403,
        "InternalServerException": 500,
        "ModelErrorException": 424,
        "ModelNotReadyException": 429,
        "ModelTimeoutException": 408,
        "ResourceNotFoundException": 404,
        "ServiceUnavailableException": 503,
        "ThrottlingException": 429,
        "ValidationException": 400,
    }


def test_a_dashboard_that_could_not_be_drawn_is_refused(service: Cloud) -> None:
    cloudwatch, name = service.client("cloudwatch"), service.name("dashboard")
    widget = {"type": "text", "x": 0, "y": 0, "width": 24, "height": 6, "properties": {"markdown": "m"}}

    def board(*widgets: dict[str, Any]) -> dict[str, str]:
        return {"DashboardName": name, "DashboardBody": json.dumps({"widgets": widgets})}

    service.made(f"dashboard {name}", lambda: cloudwatch.delete_dashboards(DashboardNames=[name]))
    cloudwatch.put_dashboard(**board(widget))
    not_json, misnamed = {"DashboardBody": "not json"}, {"DashboardName": "d d!"}
    wide, unknown = board({**widget, "width": 99}), board({**widget, "type": "unknown"})
    for wrong in (not_json, misnamed, wide, unknown):
        refused(cloudwatch.put_dashboard, "InvalidParameterInput", **{**board(widget), **wrong})
    body = cloudwatch.get_dashboard(DashboardName=name)["DashboardBody"]
    assert json.loads(body)["widgets"] == [widget]

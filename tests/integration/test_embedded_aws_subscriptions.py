"""Log subscriptions and filter patterns of the embedded AWS, where our claims rest on them."""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration import reviewed
from tests.integration.conftest import ACCOUNT, EmbeddedAws

pytestmark = pytest.mark.xdist_group("embedded_aws")

PRINT = "def handler(event, context):\n    for line in event['print']: print(line)\n"
SIZES = """
import base64, boto3, gzip, json, os
def handler(event, context):
    payload = json.loads(gzip.decompress(base64.b64decode(event["awslogs"]["data"])))
    told = {"bytes": len(json.dumps(event)), "lines": [e["message"][:9] for e in payload["logEvents"]]}
    boto3.client("sqs").send_message(QueueUrl=os.environ["QUEUE"], MessageBody=json.dumps(told))
"""


def subscribe(
    aws: EmbeddedAws, group: str, destination: str, pattern: str, name: str = "subscription"
) -> None:
    aws.client("logs").put_subscription_filter(
        logGroupName=group,
        filterName=name,
        filterPattern=pattern,
        destinationArn=aws.arn(destination),
    )


def ready_source(aws: EmbeddedAws, source: str = PRINT) -> tuple[str, str]:
    """Create a function and its log group."""
    function = aws.function(source)
    aws.client("logs").create_log_group(logGroupName=f"/aws/lambda/{function}")
    return function, f"/aws/lambda/{function}"


def ready_group(aws: EmbeddedAws, *streams: str) -> str:
    """Create a log group with streams."""
    group = aws.name("/group")
    aws.client("logs").create_log_group(logGroupName=group)
    for stream in streams:
        aws.client("logs").create_log_stream(logGroupName=group, logStreamName=stream)
    return group


def put_lines(aws: EmbeddedAws, group: str, stream: str, *lines: str) -> None:
    now = int(time.time() * 1000)
    events = [{"timestamp": now, "message": line} for line in lines]
    aws.client("logs").put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


def payloads(aws: EmbeddedAws, url: str) -> Iterator[dict[str, Any]]:
    """Take what a relay got, each payload unpacked."""
    for body in aws.bodies(url):
        yield json.loads(gzip.decompress(base64.b64decode(body["awslogs"]["data"])))


def lines_of(aws: EmbeddedAws, url: str) -> list[str]:
    return [event["message"].strip() for payload in payloads(aws, url) for event in payload["logEvents"]]


def test_subscription_delivers_each_matching_line_once(aws: EmbeddedAws) -> None:
    (function, group), (destination, url) = ready_source(aws), aws.relay()
    subscribe(aws, group, destination, '?"agentops.event" ?"REPORT RequestId"')
    for number in range(20):
        aws.invoke(function, {"print": [f'{{"agentops.event": {number}}}', "other"]})
    aws.settle()
    got = list(payloads(aws, url))
    events = [event for payload in got for event in payload["logEvents"]]
    lines = [event["message"].strip() for event in events if "agentops" in event["message"]]
    assert sorted(lines) == sorted(f'{{"agentops.event": {number}}}' for number in range(20))
    assert sum(event["message"].startswith("REPORT") for event in events) == 20
    assert len(events) == 40
    assert len({event["id"] for event in events}) == 40
    stored = aws.client("logs").filter_log_events(logGroupName=group)["events"]
    assert {event["id"] for event in events} <= {event["eventId"] for event in stored}
    assert {(p["messageType"], p["owner"], p["subscriptionFilters"][0]) for p in got} == {
        ("DATA_MESSAGE", ACCOUNT, "subscription")
    }


def test_a_batch_is_of_one_stream_and_in_its_order_under_load(aws: EmbeddedAws, full_size: bool) -> None:
    streams = [f"s{number}" for number in range(8)]
    rounds = 100 if full_size else 12
    group, (destination, url) = ready_group(aws, *streams), aws.relay()
    subscribe(aws, group, destination, "wanted")

    def write(stream: str) -> None:
        for batch in range(rounds):
            put_lines(aws, group, stream, *(f"wanted {batch:04d}-{line:02d}" for line in range(20)), "other")

    with ThreadPoolExecutor(len(streams)) as pool:
        list(pool.map(write, streams))
    aws.settle(60)
    got: dict[str, list[str]] = defaultdict(list)
    ids: list[str] = []
    for payload in payloads(aws, url):
        ids += [event["id"] for event in payload["logEvents"]]
        batch = [event["message"] for event in payload["logEvents"]]
        assert batch == sorted(batch)
        got[payload["logStream"]] += batch
    every = [f"wanted {batch:04d}-{line:02d}" for batch in range(rounds) for line in range(20)]
    assert {stream: sorted(lines) for stream, lines in got.items()} == dict.fromkeys(streams, every)
    pages = aws.client("logs").get_paginator("filter_log_events")
    stored = pages.paginate(logGroupName=group, filterPattern="wanted").build_full_result()["events"]
    assert sorted(ids) == sorted(event["eventId"] for event in stored)


def test_a_delivery_fits_an_asynchronous_invocation(aws: EmbeddedAws) -> None:
    """Of lines that do not compress, as many at once as 1 MB holds (Lambda quotas: asynchronous payload)."""
    group, (destination, url) = ready_group(aws, "s"), aws.relay(SIZES)
    subscribe(aws, group, destination, "")
    draw = random.Random(7)
    lines = [
        f"line-{n:03d} " + "".join(chr(draw.randrange(0x4E00, 0x9F00)) for _ in range(60_000))
        for n in range(8)
    ]
    for line in lines:
        put_lines(aws, group, "s", line)
    aws.settle()
    got = aws.bodies(url)
    assert sorted(name for one in got for name in one["lines"]) == [f"line-{n:03d} " for n in range(8)]
    assert max(one["bytes"] for one in got) <= 1_048_576
    assert len(got) >= 2, "not all fit one"


def test_failing_subscriber_is_retried_and_ends_in_its_dead_letters(aws: EmbeddedAws) -> None:
    url, arn = aws.queue()
    function, group = ready_source(aws)
    destination, _ = aws.relay(variables={"FAIL": "1"}, DeadLetterConfig={"TargetArn": arn})
    subscribe(aws, group, destination, "")
    aws.invoke(function, {"print": ["one", "two"]})
    aws.settle()
    assert [line for line in lines_of(aws, url) if len(line) == 3] == ["one", "two"]
    assert sum(text.startswith("REPORT") for _, text in aws.log(destination)) == 3


def test_a_log_group_has_two_filters_and_a_deleted_one_gets_nothing(aws: EmbeddedAws) -> None:
    """CloudWatch Logs quotas: subscription filters, 2 per log group."""
    group, (destination, url) = ready_group(aws, "s"), aws.relay()
    other, second = aws.relay()
    subscribe(aws, group, destination, "a", "first")
    subscribe(aws, group, other, "b", "second")
    subscribe(aws, group, destination, "c", "first")  # the same one anew
    with pytest.raises(ClientError) as caught:
        subscribe(aws, group, destination, "d", "third")
    assert caught.value.response["Error"]["Code"] == "LimitExceededException"
    put_lines(aws, group, "s", "a", "b", "c", "d")
    aws.settle()
    assert (lines_of(aws, url), lines_of(aws, second)) == (["c"], ["b"])
    aws.client("logs").delete_subscription_filter(logGroupName=group, filterName="first")
    subscribe(aws, group, destination, "d", "third")
    put_lines(aws, group, "s", "c", "d")
    aws.settle()
    assert lines_of(aws, url) == ["d"]


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        ('{ $.level = "ERROR" }', "not supported"),
        ("[ip, user]", "not supported"),
        ("%regular%", "not supported"),
        # CloudWatch refuses these too: other characters than letters, digits and _ want double quotes.
        ("agentops.event", "Invalid character(s) in term '.'"),
        ("Status: timeout", "Invalid character(s) in term ':'"),
        ("?a ?b(c", "Invalid character(s) in term '('"),
        ('a "b', "Invalid character(s) in term '\"'"),
    ],
)
def test_patterns_that_are_not_served_are_refused(aws: EmbeddedAws, pattern: str, named: str) -> None:
    function, group = ready_source(aws)
    asks: list[Callable[[], Any]] = [
        lambda: subscribe(aws, group, function, pattern),
        lambda: aws.client("logs").filter_log_events(logGroupName=group, filterPattern=pattern),
    ]
    for ask in asks:
        with pytest.raises(ClientError, match="InvalidParameterException") as caught:
            ask()
        assert named in str(caught.value)


def test_filter_log_events_has_pages_and_terms(aws: EmbeddedAws) -> None:
    function, group = ready_source(aws)
    aws.invoke(function, {"print": [f"number {n} {'odd' if n % 2 else 'even'}" for n in range(50)]})
    pages = list(
        aws.client("logs")
        .get_paginator("filter_log_events")
        .paginate(logGroupName=group, filterPattern='"number" -odd', PaginationConfig={"PageSize": 10})
    )
    lines = [event["message"].strip() for page in pages for event in page["events"]]
    assert lines == [f"number {n} even" for n in range(0, 50, 2)]
    assert [len(page["events"]) for page in pages] == [10, 10, 5]


# CloudWatch Logs user guide, "Filter pattern syntax", examples of unstructured log events:
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntaxForLogEvents.html
DOCUMENTED = (
    "[ERROR 400] BAD REQUEST",
    "[ERROR 401] UNAUTHORIZED REQUEST",
    "[ERROR 419] MISSING ARGUMENTS",
    "[ERROR 420] INVALID ARGUMENTS",
    "[ERROR 500] INTERNAL SERVER ERROR",
    "[INFO] REQUEST FAILED",
    "[WARN] UNAUTHORIZED REQUEST",
)


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("", DOCUMENTED),
        ("ERROR", DOCUMENTED[:5]),
        ("error", ()),
        ("ERROR ARGUMENTS", DOCUMENTED[2:4]),
        ("?ERROR ?ARGUMENTS", DOCUMENTED[:5]),
        # "You cannot combine ? with other filter patterns": it is ignored then.
        ("?ERROR ?ARGUMENTS REQUEST", (*DOCUMENTED[:2], *DOCUMENTED[5:])),
        ('"INTERNAL SERVER ERROR"', DOCUMENTED[4:5]),
        ("ERROR -ARGUMENTS", (*DOCUMENTED[:2], DOCUMENTED[4])),
    ],
)
def test_patterns_match_as_documented(aws: EmbeddedAws, pattern: str, matched: tuple[str, ...]) -> None:
    group = ready_group(aws, "s")
    put_lines(aws, group, "s", *DOCUMENTED)
    found = aws.client("logs").filter_log_events(logGroupName=group, filterPattern=pattern)["events"]
    assert tuple(event["message"] for event in found) == matched


WORDS = (
    "a",
    "B",
    "ab",
    "_1",
    "REPORT RequestId",
    "agentops.event",
    'say "a"',
    "back\\slash",
    "é",
    "?",
    "-a",
    "{",
)
MESSAGES = [*WORDS, "A", "ab é", '{"agentops.event": {"a": 1}}', "REPORT RequestId: 1", " ", "B_1 - ?"]
Terms = list[tuple[str, str, bool]]


def oracle(terms: Terms, message: str) -> bool:
    """Say whether a message matches terms of (sign, text, quoted), from the documentation's sentences."""
    wanted = [text for sign, text, _ in terms if sign == ""]
    unwanted = [text for sign, text, _ in terms if sign == "-"]
    optional = [text for sign, text, _ in terms if sign == "?"]
    if wanted or unwanted:
        return not any(message.count(text) for text in unwanted) and all(
            message.count(text) for text in wanted
        )
    return not optional or sum(message.count(text) for text in optional) > 0


def written(terms: Terms) -> str:
    escaped = (re.sub(r'(["\\])', r"\\\1", text) for _, text, _ in terms)
    return "  ".join(
        sign + (f'"{quoted}"' if is_quoted else text)
        for (sign, text, is_quoted), quoted in zip(terms, escaped, strict=True)
    )


@st.composite
def patterns(draw: st.DrawFn) -> Terms:
    term = st.tuples(st.sampled_from(("", "", "?", "-")), st.sampled_from(WORDS), st.booleans())
    # Quotes may be left out where all is a letter, a digit or _.
    return [
        (s, t, q or not re.fullmatch(r"\w+", t, re.ASCII)) for s, t, q in draw(st.lists(term, max_size=4))
    ]


def test_patterns_match_as_an_oracle_says(aws: EmbeddedAws, full_size: bool) -> None:
    group = ready_group(aws, "s")
    put_lines(aws, group, "s", *MESSAGES)

    @settings(
        max_examples=2000 if full_size else 100, deadline=None, suppress_health_check=list(HealthCheck),
        print_blob=True,
    )  # fmt: skip
    @given(patterns())
    def check(terms: Terms) -> None:
        asked = {"logGroupName": group, "filterPattern": written(terms)}
        found = [event["message"] for event in aws.client("logs").filter_log_events(**asked)["events"]]
        assert found == [message for message in MESSAGES if oracle(terms, message)], written(terms)

    check()


def test_the_filters_of_the_stacks_are_served(aws: EmbeddedAws) -> None:
    function, group = ready_source(aws)
    asked = {one["FilterPattern"] for one in reviewed.properties("AWS::Logs::SubscriptionFilter")}
    assert asked
    for pattern in asked:
        subscribe(aws, group, function, pattern)
    aws.client("logs").delete_subscription_filter(logGroupName=group, filterName="subscription")

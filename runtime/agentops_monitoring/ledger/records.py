"""Records of a Kinesis stream between the log groups and ingest: the payloads of a log stream become one.

A record's data is the very text that a subscription hands to a function: a payload, compressed, in base64.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html#DestinationKinesisExample
https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agentops_monitoring.ledger.events import Refused
from agentops_monitoring.ledger.parse import decode


class Record(NamedTuple):
    """One record; `data` as in `awslogs.data`."""

    sequence: str
    data: str


@dataclass(slots=True)
class Group:
    """Records of one log stream, in their order."""

    payload: dict[str, Any]
    """The log events of all, in the frame of the first."""
    records: list[Record] = field(default_factory=list)

    def alone(self) -> list[Group]:
        """Return each record by itself."""
        return [Group(decode(record.data), [record]) for record in self.records]


def read_records(records: Iterable[Mapping[str, Any]]) -> list[Record]:
    """Return the records of an invocation by a Kinesis stream.

    Raises
    ------
    ValueError
        They are something else.
    """
    try:
        return [Record(each["kinesis"]["sequenceNumber"], each["kinesis"]["data"]) for each in records]
    except (KeyError, TypeError):
        raise ValueError("this function takes CloudWatch Logs subscriptions only") from None


def group(records: Sequence[Record]) -> tuple[list[Group], list[tuple[Record, str]]]:
    """Return the groups in the order of their first records, and what cannot be decoded, with the reason."""
    groups: dict[tuple[str, ...], Group] = {}
    refused: list[tuple[Record, str]] = []
    for record in records:
        try:
            payload = decode(record.data)
        except Refused as reason:
            refused.append((record, str(reason)))
            continue
        if payload.get("messageType") == "CONTROL_MESSAGE":
            continue
        frame = ("owner", "logGroup", "logStream", "subscriptionFilters")
        key = tuple(str(payload.get(name)) for name in frame)
        found = groups.get(key)
        if found is None:
            found = groups[key] = Group({**payload, "logEvents": []})
        found.payload["logEvents"] += payload["logEvents"]
        found.records.append(record)
    return list(groups.values()), refused

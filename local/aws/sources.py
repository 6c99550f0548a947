"""What a mapping reads in order: the stream of a DynamoDB table, or a shard of a Kinesis stream."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ministack.core.responses import get_region, request_scope
from ministack.services import dynamodb, kinesis, lambda_svc

Mapped = dict[str, Any]
Records = list[dict[str, Any]]
# What Lambda asks whether it may, under the function's role, by service.
READS = {
    "dynamodb": ("DescribeStream", "GetRecords", "GetShardIterator", "ListStreams"),
    "kinesis": ("DescribeStream", "DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards"),
}


class Source(Protocol):
    """Records of which one batch of a mapping is at work at a time."""

    @property
    def mapping(self) -> Mapped:
        """The mapping that reads."""

    @property
    def service(self) -> str:
        """The stream's, as its actions are named."""

    @property
    def key(self) -> str:
        """What tells it from all others."""

    @property
    def unread(self) -> int:
        """How many records the mapping has not dealt with."""

    def read(self, most: int) -> tuple[Records, Any]:
        """Return the next records, as functions get them, and the place behind them."""

    def keep(self, place: Any) -> None:
        """Go on from there."""


@dataclass(frozen=True)
class Table:
    """A table's stream."""

    mapping: Mapped
    name: str
    service = "dynamodb"

    @property
    def key(self) -> str:
        """The mapping's id: a table's stream has one shard here."""
        return str(self.mapping["UUID"])

    @property
    def unread(self) -> int:
        """Records since the mapping's place."""
        end = dynamodb.stream_end_position(self.name)
        return int(max(0, end - lambda_svc._dynamodb_stream_positions.get(self.key, end)))

    def read(self, most: int) -> tuple[Records, int]:
        """Return the next records."""
        start = dynamodb.stream_start_position(self.name)
        place = max(lambda_svc._dynamodb_stream_positions.get(self.key, 0), start)
        found = dynamodb.stream_records_since(self.name, place, most)
        return found, place + len(found)

    def keep(self, place: int) -> None:
        """Go on from there."""
        lambda_svc._dynamodb_stream_positions[self.key] = place


@dataclass(frozen=True)
class Shard:
    """A shard of a Kinesis stream; a place in it is a sequence number."""

    mapping: Mapped
    stream: Mapping[str, Any]
    id: str
    service = "kinesis"

    @property
    def key(self) -> str:
        """The mapping's id and the shard's."""
        return f"{self.mapping['UUID']}/{self.id}"

    @property
    def _rest(self) -> Records:
        places = lambda_svc._kinesis_positions.setdefault(self.mapping["UUID"], {})
        records = list(self.stream["shards"][self.id]["records"])
        if self.id not in places:
            latest = self.mapping.get("StartingPosition") == "LATEST"
            places[self.id] = records[-1]["SequenceNumber"] if latest and records else ""
        return records[bisect.bisect(records, places[self.id], key=lambda one: one["SequenceNumber"]) :]

    @property
    def unread(self) -> int:
        """Records behind the mapping's place."""
        return len(self._rest)

    def read(self, most: int) -> tuple[Records, str]:
        """Return the next records (Lambda developer guide, "Using Lambda with Kinesis")."""
        found = self._rest[:most]
        return [self._given(one) for one in found], found[-1]["SequenceNumber"] if found else ""

    def keep(self, place: str) -> None:
        """Go on from there."""
        lambda_svc._kinesis_positions[self.mapping["UUID"]][self.id] = place

    def _given(self, record: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": record["PartitionKey"],
                "sequenceNumber": record["SequenceNumber"],
                "data": kinesis._ensure_base64(record["Data"]),
                "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"],
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": f"{self.id}:{record['SequenceNumber']}",
            "eventName": "aws:kinesis:record",
            "awsRegion": get_region(),
            "eventSourceARN": self.stream["StreamARN"],
        }


def sources() -> Iterator[Source]:
    """Yield what the mappings that are on read, in their accounts and regions."""
    for account, region, mapping in lambda_svc._iter_all_esms():
        arn = str(mapping.get("EventSourceArn"))
        if not mapping.get("Enabled", True):
            continue
        with request_scope(account, region):
            if table := arn.partition(":table/")[2].partition("/")[0]:
                yield Table(mapping, table)
            elif ":kinesis:" in arn and (stream := kinesis._streams.get(arn.partition("/")[2])):
                for shard in list(stream["shards"]):
                    yield Shard(mapping, stream, shard)


def sequence(record: Mapping[str, Any]) -> str:
    """Return a record's sequence number."""
    return str(
        record["kinesis"]["sequenceNumber"] if "kinesis" in record else record["dynamodb"]["SequenceNumber"]
    )


def arrived(record: Mapping[str, Any]) -> float:
    """Return when a record came into its stream."""
    if "kinesis" in record:
        return float(record["kinesis"]["approximateArrivalTimestamp"])
    return float(record["dynamodb"]["ApproximateCreationDateTime"])

"""What the ledger cannot take, kept whole on a queue, in the shape in which it can be delivered again."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from agentops_monitoring.ledger.events import Reject

MESSAGE_BYTES = 240_000
"""SQS takes 256 kB in regions where it does not take more yet."""


class DeadLetters:
    """Sends to an SQS queue.

    Parameters
    ----------
    client
        An SQS client.
    queue_url
        The queue.
    """

    def __init__(self, client: Any, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def keep_rejects(self, payload: Mapping[str, Any], rejects: Sequence[Reject]) -> None:
        """Keep lines of a payload; each message is a payload of its own, with a reason beside each line."""
        frame = {name: value for name, value in payload.items() if name != "logEvents"}
        waiting: list[dict[str, Any]] = []
        size = 0
        for reject in rejects:
            source = reject.source
            entry = {
                "id": source.log_event_id,
                "timestamp": source.timestamp_ms,
                "message": source.message,
                "reason": reject.reason,
            }
            length = len(json.dumps(entry))
            if waiting and size + length > MESSAGE_BYTES - 4_000:
                self._send({**frame, "logEvents": waiting})
                waiting, size = [], 0
            waiting.append(entry)
            size += length
        if waiting:
            self._send({**frame, "logEvents": waiting})

    def keep_undecodable(self, data: str, reason: str) -> None:
        """Keep a delivery that could not even be decoded."""
        self._send({"awslogs": {"data": data}, "reason": reason})

    def _send(self, body: Mapping[str, Any]) -> None:
        for text in split(json.dumps(body, separators=(",", ":"))):
            self._client.send_message(QueueUrl=self._queue_url, MessageBody=text)


def split(text: str) -> Iterator[str]:
    """Return the messages that hold a text: itself, else numbered parts of it, compressed."""
    if len(text) <= MESSAGE_BYTES:
        yield text
        return
    packed = base64.b64encode(gzip.compress(text.encode())).decode()
    name = blake2b(text.encode(), digest_size=12).hexdigest()
    room = MESSAGE_BYTES - 200
    pieces = [packed[start : start + room] for start in range(0, len(packed), room)]
    for number, piece in enumerate(pieces, start=1):
        yield json.dumps({"gzip": name, "part": [number, len(pieces)], "data": piece})


def join(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Return the bodies that messages hold; parts whose siblings are missing are left out."""
    bodies: list[dict[str, Any]] = []
    parts: dict[str, dict[int, str]] = {}
    for text in texts:
        body = json.loads(text)
        if "gzip" not in body:
            bodies.append(body)
            continue
        number, total = body["part"]
        found = parts.setdefault(body["gzip"], {})
        found[number] = body["data"]
        if len(found) == total:
            packed = "".join(found[each] for each in sorted(found))
            bodies.append(json.loads(gzip.decompress(base64.b64decode(packed))))
    return bodies

"""The line: one event as one JSON object, at once CloudWatch metric, audit record and ledger entry."""

from __future__ import annotations

import time
from typing import NamedTuple

from agentops_monitoring import catalogue, identity
from agentops_monitoring.encoding import encode, encode_text
from agentops_monitoring.event_types import BUILT_IN, CUSTOM_EVENT, RECORDS
from agentops_monitoring.settings import Settings
from agentops_monitoring.trace import TraceContext

MAX_LINE_BYTES = 60_000
"""Lambda cuts a line of stdout at 256 kB, in cases at 64 kB."""

VERSION = 1
_MIN_CHUNK = 10_000
_HEADS_CACHED = 256


class _Head(NamedTuple):
    """The static pieces of all lines of one event type."""

    before_ms: str
    before_time: str
    before_id: str
    before_id_of_part: str
    before_at: str


def timestamp(at_ms: int) -> str:
    """Render milliseconds since the epoch as RFC 3339, UTC, with milliseconds."""
    global _second
    seconds, milliseconds = divmod(at_ms, 1000)
    cached = _second
    if cached[0] != seconds:
        cached = _second = (seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)))
    return f"{cached[1]}.{milliseconds:03d}Z"


_second: tuple[int, str] = (-1, "")


class LineRenderer:
    """Renders the events of one agent; what does not change from event to event is rendered once."""

    __slots__ = ("_agent", "_declared", "_detail", "_environment", "_heads", "_level")

    def __init__(self, agent: str, settings: Settings) -> None:
        self._agent = encode_text(agent)
        self._environment = encode_text(settings.environment)
        self._level = settings.log_level
        self._detail = settings.detail
        self._declared = settings.event_types
        self._heads: dict[str, _Head] = {}

    def render(
        self,
        kind: str,
        data: object,
        context: TraceContext,
        *,
        span_id: str,
        parent_id: str | None,
        at_ms: int,
        problems: list[str] | None = None,
    ) -> tuple[str, list[str]]:
        """Return the event's id and its lines, each with its newline.

        There is one line unless it would exceed `MAX_LINE_BYTES`; then the data's text is cut into numbered
        parts, of which the first alone is a metric.
        """
        head = self._heads.get(kind) or self._head(kind)
        event_id, number, proof = identity.next_event()
        at = timestamp(at_ms)
        parent = f'"{parent_id}"' if parent_id else "null"
        noted = f'"problems":{encode(problems)},' if problems else ""
        # Everything after the `before_at` piece, up to the data.
        fields = (
            f'{at}",{context.workflow_fields},"span_id":"{span_id}","parent_id":{parent},'
            f'{context.request_fields},"seq":{number},{proof},{noted}'
        )
        first = f"{head.before_ms}{at_ms}{head.before_time}" if head.before_ms else head.before_time
        payload = encode(data)
        line = f'{first}{at}{head.before_id}{event_id}{head.before_at}{fields}"data":{payload}}}}}\n'
        if len(line) <= MAX_LINE_BYTES:
            return event_id, [line]

        other = head.before_id_of_part
        room = MAX_LINE_BYTES - (len(line) - len(payload)) - len('"part":[,],"chunk":""') - 2 * 7
        # An environment's name may be of any length; then the lines are longer, but they end.
        chunks = _chunks(payload, max(room, _MIN_CHUNK))
        count = len(chunks)
        lines = [
            f'{first}{at}{head.before_id}{event_id}{head.before_at}{fields}"part":[1,{count}],'
            f'"chunk":"{chunks[0]}"}}}}\n'
        ]
        lines += (
            f'{{"timestamp":"{at}{other}{event_id}{head.before_at}{fields}"part":[{index},{count}],'
            f'"chunk":"{chunk}"}}}}\n'
            for index, chunk in enumerate(chunks[1:], start=2)
        )
        return event_id, lines

    def _head(self, kind: str) -> _Head:
        common = f'","level":"{self._level}","Environment":{self._environment},"AgentName":{self._agent}'
        event = f',"agentops.event":{{"v":{VERSION},"id":"'
        before_at = f'","type":{encode_text(kind)},"agent":{self._agent},"env":{self._environment},"at":"'
        if kind in RECORDS:
            head = _Head("", '{"timestamp":"', common + event, common + event, before_at)
        else:
            metric = kind if kind in BUILT_IN or kind in self._declared else CUSTOM_EVENT
            sets = catalogue.spec(catalogue.EVENTS, metric, declared=self._declared).sets_at(self._detail)
            directive = encode(
                [
                    {
                        "Namespace": catalogue.EVENTS,
                        "Dimensions": sets,
                        "Metrics": [{"Name": metric, "Unit": "Count"}],
                    }
                ]
            )
            head = _Head(
                '{"_aws":{"Timestamp":',
                f',"CloudWatchMetrics":{directive}}},"timestamp":"',
                f'{common},"{metric}":1{event}',
                common + event,
                before_at,
            )
        # Names that nobody declared may be without end.
        if len(self._heads) < _HEADS_CACHED:
            self._heads[kind] = head
        return head


def _chunks(payload: str, room: int) -> list[str]:
    """Cut a JSON text into pieces that are, once escaped to stand in a string, no longer than `room`."""
    # The payload is ASCII without control characters, so the only escapes are \" and \\.
    escaped = encode_text(payload)[1:-1]
    chunks = []
    start = 0
    while start < len(escaped):
        end = start + room
        if end < len(escaped):
            backslashes = 0
            while escaped[end - 1 - backslashes] == "\\":
                backslashes += 1
            # An odd run ends in the first half of an escape.
            end -= backslashes % 2
        chunks.append(escaped[start:end])
        start = end
    return chunks

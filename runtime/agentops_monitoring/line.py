"""The line: one event as one JSON object, at once CloudWatch metric, audit record and ledger entry."""

from __future__ import annotations

from time import gmtime, strftime, time_ns

from agentops_monitoring import event_metrics, identity
from agentops_monitoring.encoding import encode, encode_text
from agentops_monitoring.event_types import BUILT_IN, CUSTOM_EVENT, RECORDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agentops_monitoring.settings import Settings
    from agentops_monitoring.trace import TraceContext

MAX_LINE_BYTES = 60_000
"""Lambda cuts a line of stdout at 256 kB, in cases at 64 kB."""

MAX_PROBLEMS_BYTES = 8_000
"""What was wrong stands in each part of an event that takes several lines."""

VERSION = 1
_MIN_CHUNK = 10_000
_HEADS_CACHED = 256


# The static pieces of all lines of one event type: what stands before the metric's milliseconds (empty
# without a metric), before the time, before the id, before the id in further parts, before the event's time.
_Head = tuple[str, str, str, str, str]

_second: tuple[str, str] = ("", "")
"""The last second in digits since the epoch, and as RFC 3339 in UTC up to the fraction."""


def _spelled(second: str) -> str:
    global _second
    text = strftime("%Y-%m-%dT%H:%M:%S.", gmtime(int(second)))
    _second = (second, text)
    return text


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
        span_id: str | None = None,
        parent_id: str | None = None,
        at_ms: int | None = None,
        problems: list[str] | None = None,
    ) -> tuple[str, list[str]]:
        """Return the event's id and its lines, each with its newline.

        There is one line unless it would exceed `MAX_LINE_BYTES`; then the data's text is cut into numbered
        parts, of which the first alone is a metric. Without a `span_id` the event has one of its own, below
        the context's span; without `at_ms`, milliseconds since the epoch, it happens now.
        """
        before_ms, before_time, before_id, before_id_of_part, before_at = self._heads.get(kind) or self._head(
            kind
        )
        us = identity.drawn or identity.process()
        number = next(us.events)
        event_id = f"{us.nonce}-{number}"
        if span_id is None:
            span_id = hex(us.first_span + number)[2:]
            parent_id = context.span_id
        parent = f'"{parent_id}"' if parent_id else "null"
        ms = str(time_ns() // 1_000_000 if at_ms is None else at_ms)
        second, spelled = _second
        at = f"{spelled if second == ms[:-3] else _spelled(ms[:-3])}{ms[-3:]}Z"
        noted = f'"problems":{_noted(problems)},' if problems else ""
        payload = encode(data)
        # In one expression: putting the same line together in steps takes twice as long.
        line = (
            f'{before_ms}{ms if before_ms else ""}{before_time}{at}{before_id}{event_id}{before_at}{at}",'
            f'{context.workflow_fields},"span_id":"{span_id}","parent_id":{parent},{context.request_fields},'
            f'"seq":{number},{us.fields},{noted}"data":{payload}}}}}\n'
        )
        if len(line) <= MAX_LINE_BYTES:
            return event_id, [line]
        front = line[: -len(f'"data":{payload}}}}}\n')]
        further = f'{{"timestamp":"{at}{before_id_of_part}{front[front.index(event_id) :]}'
        return event_id, _parts(front, further, payload)

    def _head(self, kind: str) -> _Head:
        common = f'","level":"{self._level}","Environment":{self._environment},"AgentName":{self._agent}'
        event = f',"agentops.event":{{"v":{VERSION},"id":"'
        before_at = f'","type":{encode_text(kind)},"agent":{self._agent},"env":{self._environment},"at":"'
        if kind in RECORDS:
            head = ("", '{"timestamp":"', common + event, common + event, before_at)
        else:
            metric = kind if kind in BUILT_IN or kind in self._declared else CUSTOM_EVENT
            sets = event_metrics.sets_at(
                event_metrics.EVENT_SETS, event_metrics.detail_of(metric), self._detail
            )
            directive = encode(
                [
                    {
                        "Namespace": event_metrics.EVENTS,
                        "Dimensions": sets,
                        "Metrics": [{"Name": metric, "Unit": "Count"}],
                    }
                ],
                redact=False,
            )
            head = (
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


def _noted(problems: list[str]) -> str:
    """Encode what was wrong; what has no room is counted."""
    text = encode(problems)
    if len(text) <= MAX_PROBLEMS_BYTES:
        return text
    kept: list[str] = []
    room = MAX_PROBLEMS_BYTES - 50
    for problem in problems:
        room -= len(encode(problem)) + 1
        if room < 0:
            break
        kept.append(problem)
    return encode([*kept, f"and {len(problems) - len(kept)} more problems"])


def _parts(front: str, further: str, payload: str) -> list[str]:
    """Cut an event into lines: the first begins with `front`, all others with `further`."""
    room = MAX_LINE_BYTES - len(front) - len('"part":[,],"chunk":""}}\n') - 2 * 7
    # An environment's name may be of any length; then the lines are longer, but they end.
    chunks = _chunks(payload, max(room, _MIN_CHUNK))
    return [
        f'{further if index else front}"part":[{index + 1},{len(chunks)}],"chunk":"{chunk}"}}}}\n'
        for index, chunk in enumerate(chunks)
    ]


def _chunks(payload: str, room: int) -> list[str]:
    """Cut a JSON text into pieces that are, once escaped to stand in a string, no longer than `room`."""
    # The payload is ASCII without control characters, so the only escapes are \" and \\.
    escaped = encode_text(payload)[1:-1]
    chunks = []
    start = 0
    while start < len(escaped):
        end = start + room
        chunk = escaped[start:end]
        # An odd run of backslashes at its end is cut in the middle of an escape. The run is looked for within
        # the chunk, which begins between two escapes: a text of backslashes alone has no other begin.
        if end < len(escaped) and (len(chunk) - len(chunk.rstrip("\\"))) % 2:
            end -= 1
            chunk = chunk[:-1]
        chunks.append(chunk)
        start = end
    return chunks

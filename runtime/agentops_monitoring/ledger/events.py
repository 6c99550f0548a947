"""What the ledger reads out of log lines: events, parts of events, report lines; and what it refuses."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from agentops_monitoring.event_types import BUILT_IN, CUSTOM_EVENT, DOMAIN_EVENTS, RECORDS, AgentEventType
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.exact import number
from agentops_monitoring.pricing import TokenUsage, llm_cost, resolve

VERSION = 1
_MAX_TOKENS = 10**12
_MAX_KINDS = 20
CLOCKS_DIFFER_MS = 86_400_000
"""How far an event's own time may be from that of its line in the log."""
_MAX_LABEL = 1_024
_MAX_TAGS = 10_000
_MAX_MODEL = 250
"""Of four bytes each, behind MODEL# in a sort key: 1,024 bytes."""
# A partition key has 2,048 bytes, and one that is longer fails a whole read.
_TEXTS = (("id", 128), ("type", 256), ("agent", 256), ("workflow_id", 511), ("trace_id", 64), ("span_id", 64))
_MAX_WORKFLOW_BYTES = 900
"""A workflow is part of sort keys too, of alerts on its spend, which have 1,024."""

# How our lines begin. Before them may stand what an agent printed without ending its line, as one does who
# shows a model's answer word by word.
_BEGINNINGS = ('{"_aws":{"Timestamp":', '{"timestamp":"')
_MAX_BEGINNINGS = 20

_TOKENS = (
    # In the order of TokenUsage.
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_creation.input_tokens",
    "cache_creation_1h.input_tokens",
)


class Refused(ValueError):
    """A line that looks like an event or a report, and is none; the text says why."""


class LaterVersion(Refused):
    """A line that a later version of the monitor wrote."""


class Source(NamedTuple):
    """The line that something was read from."""

    log_event_id: str
    timestamp_ms: int
    message: str


class Reject(NamedTuple):
    """A line that goes to the dead letters, whole."""

    reason: str
    source: Source
    forged: bool = False


class LlmCall(NamedTuple):
    """The model call that an `llm_usage` event tells of, priced by the ledger's own book."""

    model: str
    """The book's id; the name as given where the book knows none."""
    usage: TokenUsage
    cost: Decimal | None
    """USD; None when there is no price."""


@dataclass(slots=True)
class Event:
    """One event of an agent."""

    id: str
    type: str
    metric: str
    """The event's metric: its type, or `custom_event`, or `span` (which has none)."""
    agent: str
    at: str
    """RFC 3339, UTC, milliseconds; when it counts."""
    at_ms: int
    workflow_id: str
    trace_id: str
    span_id: str
    parent_id: str | None
    request_id: str | None
    seq: int
    data: Any
    problems: list[str] = field(default_factory=list)
    call: LlmCall | None = None
    user_id: str | None = None
    session_id: str | None = None
    tags: Mapping[str, Any] | None = None
    sources: tuple[Source, ...] = ()
    """The lines it came in."""
    log: tuple[str, str] | None = None
    """Their log group and stream; None where the process wrote to the ledger itself."""
    own_at: str = ""
    """What its own clock said, where nobody can believe that; its item keeps it in its key."""

    @property
    def nonce(self) -> str:
        """The process that wrote it."""
        return self.id.rpartition("-")[0]

    @property
    def is_domain(self) -> bool:
        """Whether costs are attributed to it: the five domain events and what agents declare."""
        return self.metric in DOMAIN_EVENTS or (
            self.metric not in BUILT_IN and self.metric != CUSTOM_EVENT and self.metric not in RECORDS
        )

    def fields(self) -> Mapping[str, Any]:
        """The data's fields; none when the data is no object."""
        return self.data if isinstance(self.data, dict) else {}


class Part(NamedTuple):
    """One line of an event whose payload was split."""

    event: Event
    """Without data."""
    number: int
    """1 to `total`."""
    total: int
    chunk: str


class Report(NamedTuple):
    """Lambda's own line on one invocation attempt."""

    id: str
    """The log event's id: what a redelivery shares."""
    request_id: str
    at_ms: int
    """When the line was logged, at the attempt's end."""
    duration_ms: Decimal
    billed_ms: int
    memory_mb: int
    init_ms: Decimal
    status: str
    """"success", or how it failed: "timeout", "error", "failure"."""
    agent: str
    cost: Decimal
    """USD, request fee included."""
    source: Source
    error_type: str = ""
    """Lambda's word for what ended it, such as "Runtime.ExitError"; time-outs have none."""
    peak_mb: int = 0
    """Memory used at most; 0 where the line does not say."""
    provisioned_cost: Decimal | None = None
    """USD if it ran in an environment of provisioned concurrency, as its start says; None for `cost`."""

    @property
    def failed(self) -> bool:
        """Whether Lambda ended the attempt; a handler that raised has answered, which is a success to it."""
        return self.status != "success"


def milliseconds(at: object) -> int:
    """Return a time of a line as milliseconds since the epoch.

    Raises
    ------
    Refused
        It is not RFC 3339 in UTC with milliseconds.
    """
    # The texts are cut into days and hours, so ISO 8601's weeks and its hour 24 are none of them.
    if (
        type(at) is str
        and len(at) == 24
        and (at[7], at[10], at[19], at[23]) == ("-", "T", ".", "Z")
        and at[11:13] != "24"
    ):
        try:
            return round(datetime.fromisoformat(at).timestamp() * 1000)
        except ValueError:
            pass
    raise Refused(f"at is {at!r}, not a time in UTC with milliseconds")


def decode_line(text: str) -> dict[str, Any]:
    """Decode a line, which ends a log event: what was printed before it on the same line is passed over.

    Raises
    ------
    Refused
        There is no JSON object that ends with the text.
    """
    problem = "neither an event nor a report"
    start = 0
    # What was printed before may look like the beginning of a line as well.
    for _ in range(_MAX_BEGINNINGS):
        if text.startswith("{", start):
            try:
                line = json.loads(text[start:])
            except (ValueError, RecursionError) as error:
                problem = f"not JSON: {error}"
            else:
                return line  # type: ignore[no-any-return]
        found = [at for each in _BEGINNINGS if (at := text.find(each, start + 1)) > 0]
        if not found:
            break
        start = min(found)
    raise Refused(problem)


def read_event(line: Mapping[str, Any], source: Source, now_ms: int = 0) -> Event | Part:
    """Read an event or a part of one out of a decoded line.

    Parameters
    ----------
    line, source
        The line, decoded and as it was.
    now_ms
        The reader's time, for a line that comes from no log: the future is not believed.

    Raises
    ------
    Refused
        A field is missing or makes no sense.
    """
    body = line["agentops.event"]
    if not isinstance(body, dict):
        raise Refused("agentops.event is no object")
    version = body.get("v")
    if version != VERSION:
        is_later = type(version) is int and version > VERSION
        raise (LaterVersion if is_later else Refused)(f"version {version!r} is not known here")
    for name, limit in _TEXTS:
        text = body.get(name)
        if type(text) is not str or not 0 < len(text) <= limit:
            raise Refused(f"{name} is no text of 1 to {limit} characters")
    workflow = body["workflow_id"]
    if not workflow.isascii() and len(workflow.encode("utf-8", "surrogatepass")) > _MAX_WORKFLOW_BYTES:
        raise Refused(f"workflow_id has more than {_MAX_WORKFLOW_BYTES} bytes")
    for name in ("parent_id", "request_id"):
        if not (body.get(name) is None or (type(body[name]) is str and 0 < len(body[name]) <= 128)):
            raise Refused(f"{name} is neither null nor a text of 1 to 128 characters")
    if type(body.get("seq")) is not int:
        raise Refused("seq is no whole number")
    problems = body.get("problems")
    event = Event(
        body["id"],
        body["type"],
        _metric(body["type"], line),
        body["agent"],
        body["at"] if isinstance(body.get("at"), str) else "",
        milliseconds(body.get("at")),
        body["workflow_id"],
        body["trace_id"],
        body["span_id"],
        body["parent_id"] if body.get("parent_id") else None,
        body["request_id"] if body.get("request_id") else None,
        body["seq"],
        body.get("data"),
        problems if isinstance(problems, list) else [],
        user_id=_label(body.get("user_id")),
        session_id=_label(body.get("session_id")),
        tags=_tags(body.get("tags")),
        sources=(source,),
    )
    _believe(event, source.timestamp_ms, now_ms)
    if "part" in body:
        return _part(body, event)
    if "data" not in body:
        raise Refused("there is neither data nor a chunk of it")
    return complete(event)


def _believe(event: Event, logged_ms: int, now_ms: int) -> None:
    """Have an event count when its line was logged, where its own time is far from that.

    A redelivery brings the same line of the log, so it counts in the same hour. A line that a process writes
    to the ledger itself may have waited in a file for as long as the ledger keeps events.
    """
    reference_ms = logged_ms or now_ms
    if not reference_ms:
        return
    since_ms = reference_ms - (CLOCKS_DIFFER_MS if logged_ms else schema.raw_ttl_s() * 1000)
    if not since_ms <= event.at_ms <= reference_ms + CLOCKS_DIFFER_MS:
        own = event.own_at = event.at
        event.at, event.at_ms = rfc3339(reference_ms), reference_ms
        event.problems = [*event.problems, f"its clock said {own}, so it counts when it was logged"]


def rfc3339(at_ms: int) -> str:
    """Return milliseconds since the epoch as a line has them."""
    seconds, rest = divmod(at_ms, 1000)
    return time.strftime(f"%Y-%m-%dT%H:%M:%S.{rest:03d}Z", time.gmtime(seconds))


def _label(value: object) -> str | None:
    # Whom an event was for is a remark on it: one that makes no sense is no reason to refuse the event.
    return value[:_MAX_LABEL] if type(value) is str and value else None


def _tags(value: object) -> dict[str, Any] | None:
    return value if isinstance(value, dict) and value and len(json.dumps(value)) <= _MAX_TAGS else None


def _metric(event_type: str, line: Mapping[str, Any]) -> str:
    # The monitor gives a declared type its own metric, and that stands in the line.
    if event_type in BUILT_IN or event_type in RECORDS or line.get(event_type) == 1:
        return event_type
    return CUSTOM_EVENT


def _part(body: Mapping[str, Any], event: Event) -> Part:
    part, chunk = body["part"], body.get("chunk")
    if not (isinstance(part, list) and len(part) == 2 and all(type(each) is int for each in part)):
        raise Refused("part is no pair of numbers")
    number, total = part
    if not 1 <= number <= total <= 100_000 or type(chunk) is not str:
        raise Refused("part is out of range, or has no chunk")
    return Part(event, number, total, chunk)


def complete(event: Event) -> Event:
    """Derive what depends on the event's data."""
    if event.type == AgentEventType.LLM_USAGE:
        event.call = _call(event)
    return event


def _call(event: Event) -> LlmCall:
    data = event.fields()
    name = data.get("gen_ai.request.model")
    name = name[:_MAX_MODEL] if type(name) is str and name else "unknown"
    region = data.get("region")
    region = region if type(region) is str else None
    tier = data.get("tier")
    # The monitor writes null for what it could not learn: such a call has no price, nor has one that an agent
    # recorded as an event, without tokens.
    counts = [data.get(name, None if name in _TOKENS[:2] else 0) for name in _TOKENS]
    model = resolve(name, region=region) or name
    if not all(type(count) is int and 0 <= count < _MAX_TOKENS for count in counts):
        return LlmCall(model, TokenUsage(0, 0), None)
    tier = tier if type(tier) is str and tier else "standard"
    usage = TokenUsage._make([*counts, tier, _extra(data.get("extra_usage"))])
    return LlmCall(model, usage, llm_cost(name, usage, at=event.at, region=region))


def _extra(given: Any) -> tuple[tuple[str, int], ...]:
    if not isinstance(given, dict):
        return ()
    # A kind that the book does not know makes the call unpriced.
    return tuple(
        (kind, count)
        for kind, count in list(given.items())[:_MAX_KINDS]
        if type(count) is int and 0 < count < _MAX_TOKENS
    )


def number_of(data: Mapping[str, Any], name: str) -> Any:
    """Return a number among an event's fields, exact; None when there is none."""
    return number(data.get(name))

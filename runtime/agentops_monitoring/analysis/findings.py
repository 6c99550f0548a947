"""What goes wrong between agents: messages that nobody receives, hand-overs in circles, sudden traffic."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Any, NamedTuple

from agentops_monitoring.ledger.reader import LedgerReader

GRACE = timedelta(minutes=5)
"""How long a message may be under way."""
CLOCK_SKEW = timedelta(minutes=1)
LOOKBACK = timedelta(hours=1)
LOOP_MESSAGES = 6
"""Messages of one pair, in one direction, in one workflow: from this one on they run in circles."""
SPIKE_MIN_MESSAGES = 20
SPIKE_MIN_HOURS = 12
SPIKE_SIGMAS = 6.0


class Finding(NamedTuple):
    """One thing that goes wrong. Its key is the same however often it is found."""

    kind: str
    """"lost_message", "handoff_loop" or "traffic_spike"."""
    key: str
    evidence: dict[str, Any]


def find(reader: LedgerReader, start: datetime, end: datetime) -> list[Finding]:
    """Return what went wrong in [start, end), each thing in one such slice only.

    Parameters
    ----------
    reader
        The ledger.
    start, end
        The slice; its end should lie `GRACE` in the past, or messages under way count as lost.
    """
    findings: list[Finding] = []
    first = start - LOOKBACK
    if reader.window(first, end).total.messages_sent:
        sent = reader.events_of_type("message_sent", first, end)
        received = reader.events_of_type("message_received", first - CLOCK_SKEW, end + GRACE)
        agents = set(reader.window(end - timedelta(hours=24), end).agents)
        findings += lost_messages([each for each in sent if _at(each) >= start], received, agents)
        findings += loops(sent, start, received)
    hour = end.replace(minute=0, second=0, microsecond=0)
    if start < hour <= end:
        findings += spikes(reader, hour)
    return findings


def lost_messages(
    sent: Iterable[Mapping[str, Any]], received: Iterable[Mapping[str, Any]], agents: Iterable[str]
) -> list[Finding]:
    """Return the messages to an agent that is monitored which nobody received."""
    arrived = {each["data"].get("message_id") for each in received if isinstance(each["data"], dict)}
    known = set(agents)
    findings = []
    for each in sent:
        data = each["data"] if isinstance(each["data"], dict) else {}
        message_id, to = data.get("message_id"), data.get("to")
        if message_id and to in known and message_id not in arrived:
            evidence = {
                "message_id": message_id,
                "from": data.get("from"),
                "to": to,
                "message_type": data.get("message_type"),
                "workflow_id": each["workflow_id"],
                "sent_at": each["at"],
            }
            findings.append(Finding("lost_message", f"lost_message/{message_id}", evidence))
    return findings


def loops(
    sent: Sequence[Mapping[str, Any]], start: datetime, received: Iterable[Mapping[str, Any]] = ()
) -> list[Finding]:
    """Return the workflows that began to run in circles since `start`.

    Parameters
    ----------
    sent
        Messages sent, from long before `start` on.
    start
        What was found before was told before.
    received
        Messages received: who got a message that names no receiver.
    """
    receivers: dict[object, list[str]] = defaultdict(list)
    for each in received:
        data = each["data"] if isinstance(each["data"], dict) else {}
        message_id, to = data.get("message_id"), data.get("to")
        if message_id and isinstance(to, str) and to not in receivers[message_id]:
            receivers[message_id].append(to)
    before: Counter[tuple[str, str, str]] = Counter()
    now: Counter[tuple[str, str, str]] = Counter()
    for each in sent:
        data = each["data"] if isinstance(each["data"], dict) else {}
        for to in [data["to"]] if data.get("to") else receivers[data.get("message_id")]:
            if data.get("from"):
                (now if _at(each) >= start else before)[each["workflow_id"], data["from"], to] += 1
    found: dict[str, dict[str, int]] = defaultdict(dict)
    old = {flow[0] for flow, count in before.items() if count >= LOOP_MESSAGES}
    for flow, count in now.items():
        workflow_id, sender, to = flow
        if before[flow] + count >= LOOP_MESSAGES and workflow_id not in old:
            found[workflow_id][f"{sender}->{to}"] = before[flow] + count
    return [
        Finding(
            "handoff_loop", f"handoff_loop/{workflow_id}", {"workflow_id": workflow_id, "messages": flows}
        )
        for workflow_id, flows in found.items()
    ]


def spikes(reader: LedgerReader, hour: datetime) -> list[Finding]:
    """Return the flows that carried far more messages in the hour before `hour` than in the day before it.

    The measure is robust: distance from the median in units of the median absolute deviation, which for
    counts is taken to be at least the square root of the median.
    """
    hours = reader.hours(hour - timedelta(hours=25), hour)
    *history, last = [hours[each] for each in sorted(hours)]
    first = next((i for i, each in enumerate(history) if each.total.events), len(history))
    history = history[first:]
    if len(history) < SPIKE_MIN_HOURS:
        return []
    findings = []
    for pair, totals in last.flows.items():
        counts = [each.flows[pair].messages if pair in each.flows else 0 for each in history]
        usual = median(counts)
        spread = max(1.4826 * median(abs(count - usual) for count in counts), math.sqrt(usual), 1.0)
        if totals.messages >= SPIKE_MIN_MESSAGES and totals.messages > usual + SPIKE_SIGMAS * spread:
            evidence = {
                "flow": f"{pair[0]}->{pair[1]}",
                "hour": (hour - timedelta(hours=1)).isoformat(),
                "messages": totals.messages,
                "usual": usual,
            }
            key = f"traffic_spike/{pair[0]}->{pair[1]}/{evidence['hour']}"
            findings.append(Finding("traffic_spike", key, evidence))
    return findings


def _at(event: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(event["at"])

"""What happens in the demo: the shop's functions fail, and the agents work until nothing is left to do."""

from __future__ import annotations

import json
import random
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from agentops_monitoring.ledger.reader import LedgerReader
from local.deployment import ENVIRONMENT, ROOT, client
from local.report.ledger import tables_of

Incident = Mapping[str, Any]

INCIDENTS_AT_ONCE = 4
QUIET_POLLS = 3
POLL_SECONDS = 0.25
STALLED_SECONDS = 90.0
ALARM_SECONDS = 30.0


class ScenarioError(Exception):
    """Something that the scenario waits for did not happen."""


def incidents(seed: int, count: int) -> list[Incident]:
    """Return the failures in the order in which this run meets them: every function once before any again."""
    known: list[Incident] = json.loads((ROOT / "examples/shop/incidents.json").read_text())
    dice = random.Random(seed)
    rounds: dict[int, list[Incident]] = {}
    seen: Counter[str] = Counter()
    for incident in dice.sample(known, len(known)):
        rounds.setdefault(seen[incident["function"]], []).append(incident)
        seen[incident["function"]] += 1
    ordered = [incident for turn in sorted(rounds) for incident in rounds[turn]]
    return [ordered[index % len(ordered)] for index in range(count)]


def drive(seed: int, count: int) -> None:
    """Make the shop's functions fail.

    A first failure wakes the Manager by its alarm. An alarm that is in ALARM does not tell again, on AWS as
    here; what tells of a repeated failure is a customer, and the support desk puts that on the bus.

    Raises
    ------
    ScenarioError
        A function did not fail on an input that it is known to fail on, or the bus refused a report.
    """
    chosen = incidents(seed, count)
    client("lambda")  # boto3 makes clients in one thread at a time; used they may be in many
    pool = ThreadPoolExecutor(INCIDENTS_AT_ONCE)
    try:
        list(pool.map(_fail, chosen))
    finally:
        pool.shutdown(cancel_futures=True)
    names = [incident["function"] for incident in chosen]
    _report([incident for index, incident in enumerate(chosen) if incident["function"] in names[:index]])


def _fail(incident: Incident) -> None:
    payload = json.dumps(incident["payload"])
    answer = client("lambda").invoke(FunctionName=incident["function"], Payload=payload)
    if not answer.get("FunctionError"):
        raise ScenarioError(f"{incident['function']} was expected to fail on {payload}, but did not")


def _report(repeated: Sequence[Incident]) -> None:
    bus = client("events")
    for incident in repeated:
        detail = {
            "environment": ENVIRONMENT,
            "function": incident["function"],
            "summary": incident["summary"],
        }
        entry = {"EventBusName": f"agentops-{ENVIRONMENT}", "Source": "support.desk"}
        answer = bus.put_events(
            Entries=[{**entry, "DetailType": "issue.reported", "Detail": json.dumps(detail)}]
        )
        if answer["FailedEntryCount"]:
            raise ScenarioError(f"the bus refused a report: {answer['Entries'][0].get('ErrorMessage')}")


def settle(endpoint: str, count: int, show: Callable[[int], None]) -> None:
    """Wait until every workflow has ended and nothing is in flight.

    Parameters
    ----------
    endpoint
        The embedded AWS.
    count
        How many workflows there are.
    show
        Told how many of them have ended.
    """
    reader, quiet, before, moved = _reader(), 0, -1, time.monotonic()
    while quiet < QUIET_POLLS:
        total = reader.last(2).total
        ended = total.workflows_completed + total.workflows_failed
        if ended != before:
            before, moved = ended, time.monotonic()
        show(ended)
        quiet = quiet + 1 if ended >= count and pending(endpoint) == 0 else 0
        if time.monotonic() > moved + STALLED_SECONDS:
            raise ScenarioError(
                f"{ended} of {count} workflows have ended, and none for {STALLED_SECONDS:.0f} s; "
                f"{pending(endpoint)} deliveries are in flight (look into the folder logs of the demo)"
            )
        time.sleep(POLL_SECONDS)


def pending(endpoint: str) -> int:
    """Return how many deliveries the embedded AWS has under way."""
    with urllib.request.urlopen(f"{endpoint}/_local/idle", timeout=10) as answer:
        return int(json.load(answer)["pending"])


def catch_up(endpoint: str, daily_budget_usd: Decimal) -> None:
    """Run the scheduled functions now, rather than wait for their next minute, until the alarms have seen it.

    Raises
    ------
    ScenarioError
        A function fails, or the cost alarm does not say what the ledger does.
    """
    for name in ("gauges", "analyze"):
        answer = client("lambda").invoke(FunctionName=f"agentops-{name}-{ENVIRONMENT}", Payload=b"{}")
        if answer.get("FunctionError"):
            raise ScenarioError(f"{name} failed: {answer['Payload'].read().decode()[:300]}")
    spent = _reader().spend(datetime.now(UTC).date()).total.total_cost
    expected = "ALARM" if spent >= daily_budget_usd else "OK"
    deadline = time.monotonic() + ALARM_SECONDS
    while _state(f"AgentOps-{ENVIRONMENT}-HighCost") != expected or pending(endpoint):
        if time.monotonic() > deadline:
            raise ScenarioError(
                f"${spent} of ${daily_budget_usd} are spent, but within {ALARM_SECONDS:.0f} s the cost alarm "
                f"did not go to {expected}"
            )
        time.sleep(POLL_SECONDS)


def _reader() -> LedgerReader:
    return LedgerReader(client("dynamodb"), tables_of(ENVIRONMENT))


def _state(alarm: str) -> str:
    found = client("cloudwatch").describe_alarms(AlarmNames=[alarm])["MetricAlarms"]
    return str(found[0]["StateValue"]) if found else "missing"

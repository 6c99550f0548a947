"""A day's counts held against AWS's own: what AWS has counted and the ledger lacks, and why that may be.

AWS/Lambda counts invocations and errors by function, when they begin; the ledger counts attempts by Lambda's
report lines, when they end. AWS/Bedrock counts the calls of a model by everybody in the account and region.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from agentops_monitoring.event_types import AgentEventType
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.requests import Requests
from agentops_monitoring.ledger.totals import Rollups, Totals
from agentops_monitoring.pricing import price_book, resolve

LAMBDA, BEDROCK = "LAMBDA", "BEDROCK"
OLDEST = timedelta(days=14)
"""ListMetrics knows no metric without data in two weeks."""
_DAY = timedelta(days=1)
_KNOWN_SINCE = timedelta(days=7)
_PERIOD_S = 900
"""As long as an invocation may run: one that ends on the next day began in the last period of its own."""
_MOST_QUERIES = 500
"""Of GetMetricData: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html."""
_BEDROCK = ("Invocations", "InvocationClientErrors", "InvocationServerErrors", "InputTokenCount",
            "OutputTokenCount")  # fmt: skip


class NotTold(RuntimeError):
    """CloudWatch gave no complete answer; what it left out would pass for zero."""


class Compared(NamedTuple):
    """An agent's invocations, or the calls of a model: as AWS has counted them, and as the ledger has."""

    kind: str
    """`LAMBDA` or `BEDROCK`."""
    name: str
    """The agent, or several that share a function; or the model's id in the price book."""
    sources: tuple[str, ...]
    """The agent's functions, or the model's ids at Bedrock."""
    aws: Mapping[str, int]
    ledger: Mapping[str, int]
    late: int = 0
    """Of AWS's, what began so late that the ledger may have it on the next day."""
    failed: int = 0
    """Of AWS's, calls of a model that failed, which cost nothing and are not in the ledger."""
    unstarted: int = 0
    """Of the ledger's, what rests on a report line alone."""

    @property
    def counted(self) -> int:
        """How many AWS has counted."""
        return next(iter(self.aws.values()))

    @property
    def booked(self) -> int:
        """How many the ledger has."""
        return next(iter(self.ledger.values()))

    @property
    def missing(self) -> int:
        """How many the ledger lacks for certain."""
        return max(0, self.counted - self.booked - self.late - self.failed)

    @property
    def missing_percent(self) -> float:
        """The same as a share of what AWS has counted."""
        return 100 * self.missing / self.counted if self.counted else 0.0

    @property
    def remarks(self) -> list[str]:
        """What the differences may come from."""
        return list(_of_lambda(self) if self.kind == LAMBDA else _of_bedrock(self))


def _of_lambda(found: Compared) -> Iterator[str]:
    if not found.sources:
        yield "no line has told which function it is yet"
    elif found.missing:
        yield "lines did not arrive: replay --from-logs"
    elif found.counted > found.booked:
        yield "across midnight"
    elif found.counted < found.booked:
        beyond = f"; {found.unstarted} rest on a report line alone" if found.unstarted else ""
        yield f"across the midnight before, or report lines that an agent printed{beyond}"


def _of_bedrock(found: Compared) -> Iterator[str]:
    if found.missing:
        yield "calls by others in the account, or by code without the monitor"
    elif found.counted < found.booked:
        yield "calls in another region or account"
    elif found.aws != found.ledger:
        yield "cached tokens, failed calls, or answers without a usage"


def reconcile(
    reader: LedgerReader,
    cloudwatch: Any,
    day: date,
    *,
    region: str | None = None,
    now: datetime | None = None,
) -> list[Compared]:
    """Return a day's agents and models, each with AWS's count and the ledger's.

    Parameters
    ----------
    reader
        The ledger.
    cloudwatch
        A CloudWatch client of the account and region in which the agents run.
    day
        A UTC day; so far when it is not over.
    region
        That client's region, by which Bedrock's names are resolved.
    now
        The present time.

    Raises
    ------
    ValueError
        The day is to come, or CloudWatch does not list its metrics any more.
    NotTold
        CloudWatch did not say how much it has counted.
    """
    now = now or datetime.now(UTC)
    today = now.date()
    if not today - OLDEST < day <= today:
        raise ValueError(f"day {day}: from {today - OLDEST + _DAY} to {today} is what CloudWatch can tell")
    booked = reader.day(day)
    counts = _Counts(cloudwatch, day, now)
    return [*_agents(reader, counts, day, booked), *_models(counts, booked, region)]


def _agents(reader: LedgerReader, counts: _Counts, day: date, booked: Rollups) -> Iterator[Compared]:
    names = set(booked.agents)
    for each in {(day.year, day.month), ((day - _KNOWN_SINCE).year, (day - _KNOWN_SINCE).month)}:
        names |= set(reader.month_spend(*each).agents)
    agents = sorted(names)
    found = reader.partitions([schema.functions_pk(agent) for agent in agents])
    functions = {
        agent: tuple(item["sk"]["S"] for item in items) for agent, items in zip(agents, found, strict=True)
    }
    wanted = [
        ("AWS/Lambda", metric, "FunctionName", function)
        for function in {each for some in functions.values() for each in some}
        for metric in ("Invocations", "Errors")
    ]
    sums = counts.of(wanted)
    for group, own in _sharing(functions):
        totals = [(agent, booked.agents.get(agent, Totals())) for agent in group]
        invocations, late = (
            sum(sums["AWS/Lambda", "Invocations", "FunctionName", each][part] for each in own)
            for part in (0, 1)
        )
        active = [agent for agent, found in totals if found.invocations]
        if not (invocations or active):
            continue  # nothing ran
        aws = {
            "invocations": invocations,
            "errors": sum(sums["AWS/Lambda", "Errors", "FunctionName", each][0] for each in own),
        }
        ledger = {
            "invocations": sum(found.invocations for _, found in totals),
            "errors": sum(found.by_type.get(AgentEventType.INVOCATION_FAILED, 0) for _, found in totals),
        }
        unstarted = sum(found.unstarted_runs for _, found in totals)
        yield Compared(LAMBDA, ", ".join(active or group), own, aws, ledger, late, unstarted=unstarted)


def _sharing(functions: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[list[str], tuple[str, ...]]]:
    """Return agents with their functions, together those that share one, as an agent's former name does."""
    groups: list[tuple[list[str], set[str]]] = []
    for agent, own in functions.items():
        names, shared = [agent], set(own)
        for other in [each for each in groups if each[1] & shared]:
            groups.remove(other)
            names, shared = other[0] + names, other[1] | shared
        groups.append((names, shared))
    for names, shared in groups:
        yield names, tuple(sorted(shared))


def _models(counts: _Counts, booked: Rollups, region: str | None) -> Iterator[Compared]:
    ids: dict[str, list[str]] = {}
    for model_id in sorted(counts.models()):
        ids.setdefault(resolve(model_id, region=region) or model_id, []).append(model_id)
    for model in booked.models:
        known = price_book().find(model)
        if known is not None and known.provider == "aws":
            ids.setdefault(model, [])
    wanted = [
        ("AWS/Bedrock", metric, "ModelId", each)
        for some in ids.values()
        for each in some
        for metric in _BEDROCK
    ]
    sums = counts.of(wanted)
    for model, own in sorted(ids.items()):
        calls, client_errors, server_errors, into, out = (
            [sums["AWS/Bedrock", metric, "ModelId", each] for each in own] for metric in _BEDROCK
        )
        counted = {
            "calls": sum(each[0] for each in calls),
            "input_tokens": sum(each[0] for each in into),
            "output_tokens": sum(each[0] for each in out),
        }
        totals = booked.models.get(model, Totals())
        ledger = {
            "calls": totals.llm_calls,
            "input_tokens": totals.input_tokens,
            "output_tokens": totals.output_tokens,
        }
        if counted["calls"] or totals.llm_calls:
            failed = sum(each[0] for each in (*client_errors, *server_errors))
            late = sum(each[1] for each in calls)
            yield Compared(BEDROCK, model, tuple(own), counted, ledger, late, failed)


_Wanted = tuple[str, str, str, str]


class _Counts:
    """What CloudWatch has counted on a day."""

    def __init__(self, cloudwatch: Any, day: date, now: datetime) -> None:
        self._cloudwatch = cloudwatch
        self._start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        # What has begun in a period that ends later than this may still run, or its lines be on their way.
        self._settled = min(self._start + _DAY, now) - timedelta(seconds=_PERIOD_S)

    def models(self) -> Iterator[str]:
        """Return the ids of the models that were called."""
        pages = self._cloudwatch.get_paginator("list_metrics").paginate(
            Namespace="AWS/Bedrock", MetricName="Invocations"
        )
        for page in pages:
            for metric in page["Metrics"]:
                if [each["Name"] for each in metric["Dimensions"]] == ["ModelId"]:
                    yield metric["Dimensions"][0]["Value"]

    def of(self, wanted: Sequence[_Wanted]) -> dict[_Wanted, tuple[int, int]]:
        """Return each metric's sum, and how much of it is too late to be settled."""
        found: dict[_Wanted, tuple[int, int]] = {}
        for first in range(0, len(wanted), _MOST_QUERIES):
            some = wanted[first : first + _MOST_QUERIES]
            totals = [0.0] * len(some)
            latest = [0.0] * len(some)
            status = dict.fromkeys(range(len(some)), "no answer")
            pages = self._cloudwatch.get_paginator("get_metric_data").paginate(
                MetricDataQueries=[_query(number, *each) for number, each in enumerate(some)],
                StartTime=self._start,
                EndTime=self._start + _DAY,
            )
            for page in pages:
                for result in page["MetricDataResults"]:
                    number = int(result["Id"][1:])
                    status[number] = result["StatusCode"]
                    for at, value in zip(result["Timestamps"], result["Values"], strict=True):
                        totals[number] += value
                        settled = at + timedelta(seconds=_PERIOD_S) <= self._settled
                        latest[number] += 0 if settled else value
            for number, each in enumerate(some):
                if status[number] != "Complete":
                    raise NotTold(f"CloudWatch on {' '.join(each)}: {status[number]}")
                found[each] = round(totals[number]), round(latest[number])
        return found


def _query(number: int, namespace: str, metric: str, dimension: str, value: str) -> dict[str, Any]:
    named = {"Namespace": namespace, "MetricName": metric}
    asked = {"Metric": {**named, "Dimensions": [{"Name": dimension, "Value": value}]}}
    return {"Id": f"m{number}", "MetricStat": {**asked, "Period": _PERIOD_S, "Stat": "Sum"}}


def store(client: Any, table: str, day: date, found: Sequence[Compared], now: float | None = None) -> None:
    """Put a day's reconciliation into the ledger table, in the place of an earlier one.

    Parameters
    ----------
    client
        A DynamoDB client.
    table
        The ledger table.
    """
    now = time.time() if now is None else now
    expires = {"N": str(int(now) + schema.CHECKS_TTL_S)}
    items = []
    for each in found:
        numbers = {
            **{f"aws_{name}": value for name, value in each.aws.items()},
            **{f"ledger_{name}": value for name, value in each.ledger.items()},
            "late": each.late,
            "failed": each.failed,
            "unstarted": each.unstarted,
            "missing": each.missing,
        }
        items.append(
            {
                "pk": {"S": schema.reconciliation_pk(day.isoformat())},
                "sk": {"S": schema.reconciliation_sk(each.kind, each.name)},
                "at": {"S": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")},
                "sources": {"L": [{"S": source} for source in each.sources]},
                "expires_at": expires,
                **{name: {"N": str(value)} for name, value in numbers.items()},
            }
        )
    Requests(client).put(table, items)

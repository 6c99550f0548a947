"""Watches budgets: after a batch those that it spent on, each minute all of them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from agentops_monitoring import settings
from agentops_monitoring.ledger import budgets, schema
from agentops_monitoring.ledger.alerts import Alert, Outbox
from agentops_monitoring.ledger.allocation import Invocation
from agentops_monitoring.ledger.budgets import DAY, EACH, FORECAST, LIFE, PERCENTS, PERIODS, Budget, Case
from agentops_monitoring.ledger.causes import causes
from agentops_monitoring.ledger.letters import letter, message
from agentops_monitoring.ledger.parse import Batch
from agentops_monitoring.ledger.payload import unpack
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.requests import Requests
from agentops_monitoring.ledger.rollup import Increments
from agentops_monitoring.ledger.shards import KEY, Shards
from agentops_monitoring.ledger.standing import OUTLOOK
from agentops_monitoring.transport import say

EVERY_S = 5.0
"""How often an ingest looks at the spend of days and months, at most; each minute gauges does."""
SWEPT_EVERY_S = 60.0
LATE = timedelta(hours=6)
"""How long after its end a period is looked at each minute: so long Lambda keeps what it has to deliver,
https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-configuring.html."""
_MAX_KNOWN = 50_000


class Watch:
    """Finds the thresholds that are crossed, and has each told once.

    Parameters
    ----------
    client
        A DynamoDB client.
    tables
        Names of the tables.
    held
        The budgets.
    publish
        SNS's Publish, the topic apart.
    shards
        Over how many items each rollup is spread; as the ledger says when left out.
    every_s
        How often to look at the spend of days and months, at most; 0 where nobody else does.
    """

    def __init__(
        self,
        client: Any,
        tables: schema.Tables,
        held: Sequence[Budget],
        publish: Callable[..., Any],
        *,
        shards: int | None = None,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.held = tuple(held)
        self._clock = clock
        self._every_s = every_s
        self._table = tables.ledger
        self.requests = Requests(client, attempts=5)
        self.shards = Shards(lambda: self.requests.get(self._table, [KEY]), shards)
        self._reader = LedgerReader(client, tables, shards=shards)
        self._publish = publish
        self._outbox = Outbox(self.requests, tables.ledger, self._send, clock)
        self._known: set[str] = set()
        """Marks that are there, for good."""
        self._looked = self._swept = 0.0
        self._of_workflows = any(each.period == LIFE for each in held)

    @classmethod
    def from_environment(cls, client: Any, tables: schema.Tables, *, alarmed: bool) -> Watch | None:
        """Return what watches the budgets of the environment variables; None where no topic is named.

        Parameters
        ----------
        alarmed
            Whether a CloudWatch alarm tells when the total of a day is spent, which has a plane, whose
            gauges looks each minute.

        Raises
        ------
        ValueError
            A budget makes no sense.
        """
        topic = os.environ.get("COST_ALERT_TOPIC_ARN")
        if not topic:
            return None
        held = budgets.configured(alarmed=alarmed)
        return cls(client, tables, held, _publisher(topic), every_s=EVERY_S if alarmed else 0)

    def workflows(self, batch: Batch) -> set[str]:
        """Return the workflows of a batch whose spend may matter; no others are in it."""
        if not self._of_workflows:
            return set()
        events = [*batch.events, *(part.event for part in batch.parts)]
        found = {event.workflow_id for event in events}
        keys = {schema.invocation_pk(batch.stream, report.request_id) for report in batch.reports}
        for item in self.requests.get(self._table, [(key, schema.STATE) for key in keys]):
            found |= Invocation(int(item["ver"]["N"]), unpack(item, "state")).workflows
        return found

    def after(
        self, increments: Increments, workflows: Iterable[str] = (), *, deadline: float | None = None
    ) -> None:
        """Look at what a batch has spent.

        Parameters
        ----------
        increments
            What it added to the counters.
        workflows
            Workflows to look at even if it did not add to them.
        deadline
            When to give up, on the monotonic clock.

        Raises
        ------
        LedgerBusy
            The table is busy, or no time is left.
        """
        self.requests.deadline = deadline
        found = list(self._workflow_cases(increments, workflows))
        at = self._clock()
        now = datetime.fromtimestamp(at, UTC)
        spent = [(bucket, sk) for bucket, sk in increments if bucket[:2] in ("D#", "M#")]
        touched = list(self._touched_cases(spent, now)) if spent else []
        if 0 <= at - self._looked < self._every_s:
            # At what ended long ago nobody else looks.
            touched = [case for case in touched if schema.end_of(case.period) + LATE <= now]
        elif touched:
            self._looked = at
        # Of what all is told nothing is left to tell.
        found = [case for case in (*found, *touched) if f"{case.period}#{case.id}#100" not in self._known]
        is_sent = True
        for alert, over_alarm in self._crossed(self.spent(found), now):
            self.requests.check_time()
            # After one that cannot be sent the others wait, too: each may take as long to fail.
            if not self._claim(alert, over_alarm=over_alarm) or not is_sent:
                continue
            # What fails stays in the outbox for a sweeper: no batch must be delivered again for it.
            try:
                self._outbox.deliver(alert)
            except Exception as error:  # noqa: BLE001
                is_sent = False
                say(f"alert {alert.key} could not be sent, and will be sent later: {error!r}")

    def sweep(self) -> list[Exception]:
        """Send what others left unsent, at most once a minute; return why some still could not be sent."""
        if 0 <= self._clock() - self._swept < SWEPT_EVERY_S:
            return []
        self._swept = self._clock()
        return self._outbox.sweep()

    def everything(
        self, now: datetime | None = None, shown: Mapping[str, float] | None = None
    ) -> dict[Case, Decimal]:
        """Look at all budgets of days and months, and at what others left unsent; return what is spent.

        Parameters
        ----------
        now
            The time; the clock's when left out.
        shown
            USD of this day that alarms have been shown, by agent, of all of them by an empty name; what is
            spent when left out.

        Raises
        ------
        Exception
            What keeps an alert from being sent; everything else is done nevertheless.
        """
        self.requests.deadline = None
        now = now or datetime.fromtimestamp(self._clock(), UTC)
        found = [case for kind in PERIODS for at in (now, now - LATE) for case in self._cases(kind, at)]
        spent = self.spent(list(dict.fromkeys(found)))
        open_ = {case: usd for case, usd in spent.items() if schema.end_of(case.period) > now}
        failures: list[Exception] = []
        for case, usd in open_.items():
            if case.budget.alarm:
                seen = float(usd) if shown is None else shown.get(case.name, 0.0)
                with _keeping(failures):
                    self._leave_to_alarm(case, seen)
        for alert, over_alarm in self._crossed(spent, now):
            with _keeping(failures):
                if self._claim(alert, over_alarm=over_alarm):
                    self._outbox.deliver(alert)
        with _keeping(failures):
            failures += self._outbox.sweep()
        if failures:
            raise failures[0]
        return open_

    def expect(self, case: Case, spent: Decimal, forecast: dict[str, Any]) -> None:
        """Tell that a budget is expected to be exceeded, unless that was told in its period."""
        alert = Alert.of(case, FORECAST, spent, datetime.fromtimestamp(self._clock(), UTC), forecast)
        if self._claim(alert):
            self._outbox.deliver(alert)

    def keep_outlook(self, case: Case, forecast: dict[str, Any]) -> None:
        """Keep what is expected of a budget, for who shows it."""
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="minutes")
        item = {
            "pk": {"S": schema.alert_pk(case.period)},
            "sk": {"S": f"{case.id}#{OUTLOOK}"},
            "outlook": {"S": json.dumps(forecast | {"at": at}, separators=(",", ":"))},
            "expires_at": {"N": str(int(self._clock()) + schema.ALERTS_TTL_S)},
        }
        self.requests.send("put_item", TableName=self._table, Item=item)

    def spent(self, found: Sequence[Case]) -> dict[Case, Decimal]:
        """Read what is spent of budgets."""
        keys = {case: case.keys(self.shards()) for case in found}
        amounts = self.read(dict.fromkeys(key for each in keys.values() for key in each))
        return {
            case: sum((amounts[key] for key in each if key in amounts), Decimal(0))
            for case, each in keys.items()
        }

    def read(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Decimal]:
        """Read what items say was spent; those that do not exist are left out."""
        return {
            (item["pk"]["S"], item["sk"]["S"]): budgets.spent_of(item)
            for item in self.requests.get(self._table, keys)
        }

    def _workflow_cases(self, increments: Increments, workflows: Iterable[str]) -> Iterator[Case]:
        if self._of_workflows:
            touched = [bucket for bucket, sk in increments if sk == schema.SPEND]
            for period in dict.fromkeys([*touched, *map(schema.workflow_bucket, workflows)]):
                yield from budgets.cases(self.held, period, LIFE, workflow=period[3:])

    def _touched_cases(self, spent: Sequence[tuple[str, str]], now: datetime) -> Iterator[Case]:
        agents: dict[str, list[str]] = {}
        for period, sk in spent:
            names = schema.parse_key(sk)[1]
            agents.setdefault(period, []).extend(names)
        for kind in PERIODS:
            current = budgets.period_at(kind, now)
            # What comes late may exceed yesterday's; a replay of older days is no news.
            before = budgets.period_at(kind, datetime.combine(budgets.day_of(current), now.timetz()) - _DAY)
            for period in (current, before):
                for case in budgets.cases(self.held, period, kind, agents=agents.get(period, ())):
                    if period in agents and (not case.name or case.name in agents[period]):
                        yield case

    def _cases(self, kind: str, at: datetime) -> Iterator[Case]:
        period = budgets.period_at(kind, at)
        agents: list[str] = []
        if any(each.agent == EACH and each.period == kind for each in self.held):
            day = budgets.day_of(period)
            found = self._reader.spend(day) if kind == DAY else self._reader.month_spend(day.year, day.month)
            agents = sorted(found.agents)
        yield from budgets.cases(self.held, period, kind, agents=agents)

    def _leave_to_alarm(self, case: Case, shown: float) -> None:
        mark = f"{case.period}#{case.id}#"
        if mark + "alarm" not in self._known:
            self._outbox.leave_to_alarm(case)
            self._know(mark + "alarm")
        # As the alarm compares them.
        if shown >= float(case.budget.usd) and mark + "alarmed" not in self._known:
            self._outbox.alarmed(case, _below(100))
            self._know(mark + "alarmed")

    def _crossed(self, spent: Mapping[Case, Decimal], now: datetime) -> Iterator[tuple[Alert, bool]]:
        """Return what is the ledger's to tell, each with whether it is so although there is an alarm."""
        for case, usd in spent.items():
            reached = case.reached(usd)
            if not reached:
                continue
            late = case.budget.period != LIFE and schema.end_of(case.period) <= now
            by_alarm = reached == 100 and case.budget.alarm
            # An alarm knows nothing of what comes late for a day that is over.
            if late or not by_alarm:
                yield Alert.of(case, str(reached), usd, now), by_alarm

    def _claim(self, alert: Alert, *, over_alarm: bool = False) -> bool:
        if alert.key in self._known:
            return False
        lower = [] if alert.threshold == FORECAST else _below(int(alert.threshold))
        claimed = self._outbox.claim(alert, lower, over_alarm=over_alarm)
        if claimed is not None:
            self._know(alert.key)
        return bool(claimed)

    def _know(self, mark: str) -> None:
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known.add(mark)

    def _send(self, alert: Alert) -> None:
        environment, now = settings.load().environment, datetime.fromtimestamp(self._clock(), UTC)
        written = letter(alert, causes(self._reader, alert, now), environment, dashboard(environment))
        self._publish(**message(written))


_DAY = timedelta(days=1)


def _below(percent: int) -> list[str]:
    return [str(each) for each in PERCENTS if each < percent]


@contextmanager
def _keeping(failures: list[Exception]) -> Iterator[None]:
    """Keep what fails for later: one alert must not hold up the others."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        failures.append(error)


def dashboard(environment: str) -> str:
    """Return the address of the cost dashboard."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    name = os.environ.get("AGENTOPS_COST_DASHBOARD")
    if not name:
        suffix = "" if environment == settings.DEFAULT_ENVIRONMENT else f"-{environment}"
        name = f"AgentOps-Monitoring-Cost{suffix}"
    return f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#dashboards:name={name}"


def _publisher(topic: str) -> Callable[..., Any]:
    client: Any = None

    def publish(**arguments: Any) -> Any:
        nonlocal client
        if client is None:
            from botocore.config import Config
            from botocore.session import Session

            retries: Any = {"mode": "standard", "total_max_attempts": 3}
            config = Config(retries=retries, connect_timeout=3, read_timeout=10)
            region = topic.split(":")[3] if topic.count(":") >= 5 else None
            client = Session().create_client("sns", region_name=region, config=config)
        return client.publish(TopicArn=topic, **arguments)

    return publish

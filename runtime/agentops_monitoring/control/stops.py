"""Stops an agent's function and lets it run again, whoever asks how often, and whatever fails in between.

Stopped is reserved concurrency 0. The former value is kept in the ledger before it is changed, in a versioned
item, so that a stop that is delivered again finds it and does not take the 0 for it. While the item says

- `stopped`, the function is to have no concurrency;
- `resuming`, it has its former concurrency back, and what it missed is being given to it;
- `running`, it is on its own; a later breach stops it again, one that was dealt with does not.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from agentops_monitoring.control.redrive import Redrive, Redriven
from agentops_monitoring.control.stoppable import Target
from agentops_monitoring.ledger import schema

STOPPED, RESUMING, RUNNING = "stopped", "resuming", "running"
_ATTEMPTS = 8
"""At an item that others change too; each loses to one that got further."""
_NOT_FIRST = "another command or alarm came first; try again"


class Breach(NamedTuple):
    """An alarm's change to ALARM."""

    alarm: str
    reason: str
    at: datetime
    """The change's own time: the same in each delivery."""
    day: date
    """UTC; of the spend that it is about. An alarm looks back: a minute after midnight that is yesterday."""


class Stop(NamedTuple):
    """What the ledger knows of a stopped agent."""

    status: str
    alarm: str
    reason: str
    breach_at: datetime
    since: datetime
    """By the clock of the function that stopped it."""
    function: str
    queue_url: str
    failed_alarm: str
    former: int | None
    """Reserved concurrency before; None when there was none."""
    version: int


class Resumed(NamedTuple):
    """What a resumption came to."""

    agent: str
    state: str
    """`resumed`, `not stopped`, `stopped` (not due yet), `unfinished` or `refused`."""
    concurrency: int | None = None
    """That the function has now; None when it has none reserved."""
    redriven: int = 0
    others: int = 0
    """Messages of its queue that have other reasons and stay."""
    reason: str = ""


class Stops:
    """Stops and resumes agents.

    Parameters
    ----------
    dynamodb, lambda_, cloudwatch
        Clients.
    table
        The ledger's.
    redrive
        Gives a function the events that it missed.
    now
        The time; tests have their own.
    """

    def __init__(
        self,
        dynamodb: Any,
        lambda_: Any,
        cloudwatch: Any,
        table: str,
        redrive: Redrive,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._dynamodb = dynamodb
        self._lambda = lambda_
        self._cloudwatch = cloudwatch
        self._table = table
        self._redrive = redrive
        self._now = now

    def find(self, agent: str) -> Stop | None:
        """Return what is known of an agent's last stop; None when it was never stopped, or long ago."""
        found = self._dynamodb.get_item(TableName=self._table, Key=_key(agent), ConsistentRead=True)
        return _read(found["Item"]) if "Item" in found else None

    def stop(self, target: Target, breach: Breach) -> bool:
        """Stop an agent; return False when that breach stops nothing any more.

        It has been dealt with (and the agent was resumed since), or it is of a UTC day that is over.
        """
        if breach.day < self._now().date():
            return False
        for _ in range(_ATTEMPTS):
            known = self.find(target.agent)
            if known is not None and breach.at <= known.breach_at and known.status != STOPPED:
                return False
            if known is None or known.status == RUNNING:
                former = self._concurrency(target.function)
                stop = Stop(
                    STOPPED, breach.alarm, breach.reason, breach.at, self._now(), target.function,
                    target.queue_url, target.failed_alarm, former, 0 if known is None else known.version,
                )  # fmt: skip
            else:
                # A second alarm, a second delivery, or a breach before all was given back: the first
                # stop's former value and time hold, the latest breach counts as dealt with.
                stop = known._replace(status=STOPPED, breach_at=max(known.breach_at, breach.at))
            if self._write(target.agent, stop, known):
                self._settle_with_alarm(target.agent, stop._replace(version=stop.version + 1))
                return True
        raise _too_often(target.agent)

    def resume(
        self,
        agent: str,
        *,
        before: datetime | None = None,
        deadline: float = float("inf"),
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Resumed:
        """Give an agent its concurrency back, and the events that it was sent meanwhile.

        What an earlier attempt left undone is done; where nothing is, nothing happens.

        Parameters
        ----------
        before
            Only if its breach was on a UTC day before this time's; whatever is unfinished is finished anyway.
            Without it, an agent that runs is given what was refused before Lambda had heard of its
            resumption everywhere.
        deadline, dry_run, progress
            As in `Redrive`.
        """
        known = self.find(agent)
        if known is None or (known.status == RUNNING and before is not None):
            return Resumed(agent, "not stopped")
        if before is not None and known.status == STOPPED and known.breach_at.date() >= before.date():
            return Resumed(agent, "stopped")
        if not dry_run and known.status == STOPPED:
            resuming = known._replace(status=RESUMING)
            if not self._write(agent, resuming, known):
                return Resumed(agent, "unfinished", reason=_NOT_FIRST)
            known = resuming._replace(version=known.version + 1)
        settled = known
        try:
            if known.status == RUNNING:
                concurrency = self._concurrency(known.function)
            elif dry_run:
                concurrency = known.former
            else:
                settled, concurrency = self._settle(agent, known)
        except self._lambda.exceptions.ResourceNotFoundException:
            if known.status != RUNNING:
                self._write(agent, known._replace(status=RUNNING), known)
            return Resumed(agent, "not stopped", reason=f"there is no function {known.function} any more")
        except self._lambda.exceptions.InvalidParameterValueException as error:
            # Others have reserved what was free meanwhile: an account keeps 100 unreserved.
            return Resumed(agent, "refused", 0, reason=str(error))
        if settled.version != known.version:
            return Resumed(agent, "unfinished", reason=_NOT_FIRST)
        if concurrency == 0:
            given = Redriven(0, 0, 0)  # it would come back at once
        else:
            given = self._redrive(
                known.queue_url, known.function, known.since, deadline=deadline, dry_run=dry_run,
                progress=progress, stopped=lambda: self._is_changed(agent, known),
            )  # fmt: skip
        if known.status == RUNNING and not given.accepted and not given.reason:
            return Resumed(agent, "not stopped")
        reason = given.reason
        if known.status != RUNNING and not dry_run and not reason:
            reason = self._finish(agent, known, given)
        state = "unfinished" if reason else "resumed"
        return Resumed(agent, state, concurrency, given.accepted, given.others, reason)

    def _finish(self, agent: str, known: Stop, given: Redriven) -> str:
        """Leave the agent on its own; return why not, when it was stopped again."""
        self._cloudwatch.enable_alarm_actions(AlarmNames=[known.failed_alarm])
        if given.others_since:
            # Failures of another kind that nobody was told of: the alarm turns anew, and mails.
            with suppress(self._cloudwatch.exceptions.ResourceNotFound):  # gone with its agent
                self._cloudwatch.set_alarm_state(
                    AlarmName=known.failed_alarm,
                    StateValue="OK",
                    StateReason=f"Agent {agent} was resumed; {given.others_since} events failed meanwhile.",
                )
        if self._write(agent, known._replace(status=RUNNING), known):
            return ""
        seen = self.find(agent)
        if seen is None or seen.status != STOPPED:
            return ""
        self._settle_with_alarm(agent, seen)
        return _NOT_FIRST

    def _is_changed(self, agent: str, known: Stop) -> bool:
        seen = self.find(agent)
        return seen is None or seen.version != known.version

    def _settle(self, agent: str, known: Stop) -> tuple[Stop, int | None]:
        """Make the function as its item says; return the item and the concurrency.

        Who changes an item settles it, and looks at it once more: so of two at once the later change of the
        item decides, whichever call comes last.
        """
        for _ in range(_ATTEMPTS):
            if known.status == STOPPED:
                concurrency: int | None = 0
                self._lambda.put_function_concurrency(
                    FunctionName=known.function, ReservedConcurrentExecutions=0
                )
                # Its queue fills now, as it should. The breach was mailed; this is no second one.
                self._cloudwatch.disable_alarm_actions(AlarmNames=[known.failed_alarm])
            else:
                concurrency = self._restore(known)
            seen = self.find(agent)
            if seen is None or seen.version == known.version:
                return known, concurrency
            known = seen
        raise _too_often(agent)

    def _settle_with_alarm(self, agent: str, known: Stop) -> None:
        now, _ = self._settle(agent, known)
        if now.status != STOPPED:  # resumed meanwhile, and its alarm was let speak before it was silenced
            self._cloudwatch.enable_alarm_actions(AlarmNames=[now.failed_alarm])

    def _restore(self, known: Stop) -> int | None:
        """Set the former concurrency unless somebody has set another since; return what there is."""
        current = self._concurrency(known.function)
        if current != 0:
            return current
        if known.former is None:
            self._lambda.delete_function_concurrency(FunctionName=known.function)
        else:
            self._lambda.put_function_concurrency(
                FunctionName=known.function, ReservedConcurrentExecutions=known.former
            )
        return known.former

    def _concurrency(self, function: str) -> int | None:
        found = self._lambda.get_function_concurrency(FunctionName=function)
        reserved = found.get("ReservedConcurrentExecutions")
        return None if reserved is None else int(reserved)

    def _write(self, agent: str, stop: Stop, known: Stop | None) -> bool:
        """Replace an item; False when it is not as it was known."""
        item = {
            **_key(agent),
            **{
                name: {"S": value}
                for name, value in (
                    ("stop_status", stop.status),
                    ("alarm", stop.alarm),
                    ("reason", stop.reason),
                    ("breach_at", stop.breach_at.isoformat()),
                    ("since", stop.since.isoformat()),
                    ("function", stop.function),
                    ("queue_url", stop.queue_url),
                    ("failed_alarm", stop.failed_alarm),
                )
            },
            "version": {"N": str(stop.version + 1)},
            "former": {"NULL": True} if stop.former is None else {"N": str(stop.former)},
        }
        if stop.status == RUNNING:
            item["expires_at"] = {"N": str(int(self._now().timestamp()) + schema.raw_ttl_s())}
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
        if known is not None:
            condition = {
                "ConditionExpression": "#version = :version",
                "ExpressionAttributeNames": {"#version": "version"},
                "ExpressionAttributeValues": {":version": {"N": str(known.version)}},
            }
        try:
            self._dynamodb.put_item(TableName=self._table, Item=item, **condition)
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        return True


def _too_often(agent: str) -> RuntimeError:
    return RuntimeError(f"the item of agent {agent} changes too often")


def _key(agent: str) -> dict[str, dict[str, str]]:
    return {"pk": {"S": schema.stopped_pk(agent)}, "sk": {"S": schema.STATE}}


def _read(item: dict[str, Any]) -> Stop:
    def text(name: str) -> str:
        return str(item[name]["S"])

    return Stop(
        text("stop_status"), text("alarm"), text("reason"), datetime.fromisoformat(text("breach_at")),
        datetime.fromisoformat(text("since")), text("function"), text("queue_url"), text("failed_alarm"),
        int(item["former"]["N"]) if "N" in item["former"] else None, int(item["version"]["N"]),
    )  # fmt: skip

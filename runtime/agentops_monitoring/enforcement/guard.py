"""Holds the worst case of each model call of a process against its agent's budget."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from agentops_monitoring import arguments, invocation, settings
from agentops_monitoring.budget import BudgetExceeded, BudgetUnreachable
from agentops_monitoring.enforcement import bounds, prices
from agentops_monitoring.enforcement.budget import EVENT, EXACT, VARIABLE, Budget
from agentops_monitoring.enforcement.table import BudgetTable, Refused, Reservation, new_id
from agentops_monitoring.forks import at_fork
from agentops_monitoring.transport import say

if TYPE_CHECKING:
    from agentops_monitoring.instrument.model_calls import Call

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 1, 1, 2
"""Of a request to the table: the longest that a call waits, twice that of a table that does not answer."""
AGAIN_SECONDS = 10.0
"""For how long a table that did not answer is not asked again."""
MARGIN_SECONDS = 60
"""How much longer than its invocation a reservation lives: a clock may be wrong, and an answer late."""
OUTSIDE_SECONDS = 3600
"""How long it lives outside Lambda, where nothing says when its process will have ended."""
_MAX_UNSETTLED = 10_000
_ZERO = Decimal(0)


class Held:
    """What is held for one call, until `settle`.

    Parameters
    ----------
    guard
        What holds it.
    reservation
        In the table; None where the table could not be asked.
    asked
        The worst case in USD; None where nothing bounds it.
    """

    def __init__(self, guard: Guard, reservation: Reservation | None, asked: Decimal | None) -> None:
        self._guard = guard
        self._reservation = reservation
        self._asked = asked
        self._settled = False
        self._pid = os.getpid()
        self.note = ""
        """What the call's line is to say of the budget."""

    def drop(self) -> None:
        """Give back what is held for a call that nobody bills; never raises."""
        self.settle(_ZERO)

    def settle(self, cost: Decimal | None) -> None:
        """Book what the call cost; None is not known, and keeps the worst case. Once; never raises."""
        # A copy of it in a child process is not the child's to settle.
        if self._settled or self._pid != os.getpid():
            return
        self._settled = True
        with suppress(Exception):
            cost = self._asked if cost is None else cost
            if cost is not None:
                self._guard.book(self._reservation, cost)


class Guard:
    """The budget of this process's agent.

    Parameters
    ----------
    given
        The budget.
    agent
        Whose it is.
    connect
        Returns the budget's table, at the first call and after a fork.
    now
        The time, in seconds since 1970.
    """

    def __init__(
        self,
        given: Budget,
        agent: str,
        connect: Callable[[], BudgetTable],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.budget = given
        self.agent = agent
        self._connect = connect
        self._now = now
        self.renew()

    def renew(self) -> None:
        """Start over, as a forked child must: connections and what is to be settled are the parent's."""
        self._table: BudgetTable | None = None
        self._lock = threading.RLock()
        self._here = threading.local()
        # What is held, what it cost, and what else is owed that nothing was held for.
        self._unsettled: deque[tuple[Reservation, Decimal, Decimal]] = deque(maxlen=_MAX_UNSETTLED)
        # What is owed by day: of an outage much, to be booked at once.
        self._owed: deque[tuple[str, Decimal]] = deque(maxlen=_MAX_UNSETTLED)
        self._asked_again = 0.0

    def admit(self, call: Call, kind: str, path: str, body: object) -> Call:
        """Hold the worst case of a call that is about to be made, and return the call with it.

        Raises
        ------
        BudgetExceeded
            It does not fit, or nothing bounds it, and the budget blocks.
        BudgetUnreachable
            The table does not answer, and the budget is closed then.
        """
        now = int(self._now())
        day = _day(now)
        asked: Decimal | None = None
        try:
            asked = prices.worst_case(call.model, call.region, bounds.of_request(kind, path, body))
        except Exception as error:  # noqa: BLE001 - a request of a shape nobody foresaw
            known = isinstance(error, bounds.Unbounded)
            why = str(error) if known else f"its request cannot be read: {type(error).__name__}"
            self._exceeded(call, day, f"nothing bounds what a call of {call.model} may cost: {why}")
        return call._replace(held=self._hold(call, day, now, asked))

    def _hold(self, call: Call, day: str, now: int, asked: Decimal | None) -> Held:
        if not asked:
            return Held(self, None, asked)  # it costs nothing, or is booked when its cost is known
        wanted = Reservation(day, new_id(), asked, now + self._seconds(call))
        try:
            self._reserve(wanted, now)
        except Refused as refused:
            text = (
                f"the daily budget of agent {self.agent} is ${self.budget.daily_usd:f}: "
                f"${refused.spent:f} are spent and ${refused.reserved:f} reserved by calls under way, and a "
                f"call of {call.model} may cost ${asked:f}"
            )
            self._exceeded(call, day, text, asked, refused)
            with suppress(Exception):
                self._reserve(wanted, now, force=True)
                return Held(self, wanted, asked)
            return Held(self, None, asked)
        except Exception as error:  # noqa: BLE001 - no table, no permission, no network
            return self._unreachable(call, day, asked, error)
        return Held(self, wanted, asked)

    def _reserve(self, wanted: Reservation, now: int, *, force: bool = False) -> None:
        if self._now() < self._asked_again:
            raise TimeoutError("it did not answer a moment ago")
        try:
            with self._asking():
                self._flush()
                try:
                    self._connected().reserve(wanted, now, force=force)
                except Refused:
                    # What this process has settled in the background meanwhile may make room.
                    if not self._flush():
                        raise
                    self._connected().reserve(wanted, now, force=force)
        except Refused:
            raise
        except Exception:
            self._asked_again = self._now() + AGAIN_SECONDS
            raise

    def _connected(self) -> BudgetTable:
        with self._lock:
            if self._table is None:
                self._table = self._connect()
            return self._table

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Mark that this thread asks, where a signal's handler or the collector may interrupt it."""
        self._here.asking = True
        try:
            yield
        finally:
            self._here.asking = False

    def book(self, reservation: Reservation | None, cost: Decimal) -> None:
        """Book what a call cost, in the background where an event loop must not wait."""
        if reservation is not None:
            self._unsettled.append((reservation, cost, _ZERO))
        elif cost:
            self._owed.append((_day(int(self._now())), cost))
        asyncio = sys.modules.get("asyncio")
        if asyncio is not None:
            with suppress(RuntimeError):  # no loop runs in this thread
                # In its own executor, which `asyncio.run` waits for at its end.
                asyncio.get_running_loop().run_in_executor(None, self._flush_quietly)
                return
        self._flush_quietly()

    def _flush_quietly(self) -> None:
        if self._now() < self._asked_again or getattr(self._here, "asking", False):
            return  # the next call does it
        try:
            with self._asking():
                self._flush()
        except Exception as error:  # noqa: BLE001 - it is tried again before the next call
            self._asked_again = self._now() + AGAIN_SECONDS
            say(f"the budget was not settled yet: {type(error).__name__}: {error}")

    def _flush(self) -> int:
        """Book what waits for it; returns how many there were."""
        settled = 0
        while True:
            waiting = self._waiting()
            if waiting is None:
                return settled
            held, cost, owed = waiting
            try:
                if owed:
                    # Under a mark of its own, so that asking twice books it once.
                    self._connected().reserve(held, held.until, owed=owed, force=True)
                    owed = _ZERO
                self._connected().settle(held, cost)
            except BaseException:
                self._unsettled.appendleft((held, cost, owed))
                raise
            settled += 1

    def _waiting(self) -> tuple[Reservation, Decimal, Decimal] | None:
        with suppress(IndexError):
            return self._unsettled.popleft()
        owed = _ZERO
        with suppress(IndexError):  # by whichever thread comes to its end
            day, owed = self._owed.popleft()
            while self._owed[0][0] == day:
                owed = EXACT.add(owed, self._owed.popleft()[1])
        if not owed:
            return None
        return Reservation(day, new_id(), _ZERO, int(self._now()) + OUTSIDE_SECONDS), _ZERO, owed

    def _seconds(self, call: Call) -> int:
        with suppress(Exception):
            current = invocation.of_context(call.context)
            if current is not None:
                left_ms = current.lambda_context.get_remaining_time_in_millis()  # type: ignore[attr-defined]
                return int(left_ms) // 1000 + MARGIN_SECONDS
        return OUTSIDE_SECONDS

    def _exceeded(
        self, call: Call, day: str, text: str, asked: Decimal | None = None, refused: Refused | None = None
    ) -> None:
        error = BudgetExceeded(
            text,
            agent=self.agent,
            day=day,
            model=call.model,
            limit_usd=self.budget.daily_usd,
            spent_usd=None if refused is None else refused.spent,
            reserved_usd=None if refused is None else refused.reserved,
            asked_usd=asked,
        )
        self._record(call, error)
        if self.budget.blocks:
            raise error

    def _unreachable(self, call: Call, day: str, asked: Decimal, error: Exception) -> Held:
        text = f"the budget of agent {self.agent} cannot be reached: {type(error).__name__}: {error}"
        if self._said != self._asked_again:
            self._said = self._asked_again
            say(f"{text}; {'calls are refused' if self.budget.closed else 'calls are made all the same'}")
        if self.budget.closed:
            unreachable = BudgetUnreachable(
                text,
                agent=self.agent,
                day=day,
                model=call.model,
                limit_usd=self.budget.daily_usd,
                asked_usd=asked,
            )
            self._record(call, unreachable)
            raise unreachable
        held = Held(self, None, asked)
        held.note = f"the budget could not be asked: {type(error).__name__}"
        return held

    _said = -1.0

    def _record(self, call: Call, error: BudgetExceeded) -> None:
        data: dict[str, Any] = {
            "day": error.day,
            "gen_ai.request.model": error.model,
            "gen_ai.provider.name": call.provider,
            "reason": str(error),
            "refused": self.budget.blocks or isinstance(error, BudgetUnreachable),
        }
        amounts = ("limit_usd", "spent_usd", "reserved_usd", "asked_usd")
        data |= {name: _text(getattr(error, name)) for name in amounts}
        call.monitor.emit(EVENT, data, context=call.context)


def _day(now: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(now))


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"


def from_environment(env: Mapping[str, str] | None = None) -> Guard:
    """Return the guard of the budget that `AGENTOPS_BUDGET` names.

    Raises
    ------
    ValueError
        It makes no sense. Whoever sets a budget wants one, so the agent must not start without it.
    """
    given = Budget.from_text((os.environ if env is None else env)[VARIABLE])
    configured = settings.load(env)
    agent = arguments.agent_name(configured.agent_name)

    def connect() -> BudgetTable:
        return BudgetTable(_client(), configured.ledger_table, agent, given.daily_usd)

    guard = Guard(given, agent, connect)
    at_fork(after_in_child=guard.renew)
    return guard


def _client() -> Any:
    from botocore.config import Config
    from botocore.session import Session

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=50,
    )
    # A session of its own: the default one is the agent's.
    return Session().create_client("dynamodb", config=config)

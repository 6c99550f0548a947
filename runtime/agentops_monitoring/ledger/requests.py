"""Requests to DynamoDB that repeat with jitter while the tables are busy, and end in time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

_FIRST_DELAY_S, _LAST_DELAY_S = 0.02, 1.0
_BUSY = frozenset(
    (
        "InternalServerError", "LimitExceededException", "ProvisionedThroughputExceededException",
        "RequestLimitExceeded", "ServiceUnavailable", "ThrottlingException", "TransactionConflictException",
        "TransactionInProgressException",
    )
)  # fmt: skip
_STALE_S = 600
"""How long a request may be repeated: for as long as DynamoDB knows the token of a transaction
(https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html), and before a day
that was not over when it was made can be folded."""
# Limits of BatchGetItem and BatchWriteItem; both 16 MB as well, of which the first returns what fits.
_GET_KEYS, _PUT_ITEMS = 100, 25
_PUT_BYTES = 12_000_000


class LedgerBusy(RuntimeError):
    """The tables did not take a batch in the attempts it had. Deliver it again: what is in counts once."""


class Requests:
    """Sends requests.

    Parameters
    ----------
    client
        A DynamoDB client.
    attempts
        How often a request is tried without any progress.
    clock
        The time in seconds; it goes on while the process sleeps.
    """

    def __init__(
        self,
        client: Any,
        *,
        attempts: int = 10,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self.attempts = attempts
        self._sleep = sleep
        self._jitter = jitter
        self._clock = clock
        self.deadline: float | None = None
        """When to give up, on the monotonic clock."""
        self.made = 0
        """Requests so far."""

    def send(self, operation: str, **arguments: Any) -> Any:
        """Send a request that may be repeated without effect.

        Raises
        ------
        LedgerBusy
            The table stays busy or out of reach, or time ran out.
        botocore.exceptions.ClientError
            It refuses.
        """
        attempt = 0
        made_at = self._clock()
        while True:
            attempt += 1
            self.made += 1
            try:
                return getattr(self._client, operation)(**arguments)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code", "") not in _BUSY:
                    raise
                failure: Exception = error
            except BotoCoreError as error:
                failure = error
            if attempt >= self.attempts:
                raise LedgerBusy(str(failure)) from failure
            self.wait(attempt)
            if self._clock() - made_at > _STALE_S:
                raise LedgerBusy("the request is too old to repeat it") from failure

    def get(self, table: str, keys: Iterable[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        """Return the items that exist, consistently, in any order."""
        rest = iter(keys)
        while some := list(islice(rest, _GET_KEYS)):
            waiting: Any = [{"pk": {"S": pk}, "sk": {"S": sk}} for pk, sk in some]
            attempt = 0
            while waiting:
                request = {table: {"Keys": waiting, "ConsistentRead": True}}
                answer = self.send("batch_get_item", RequestItems=request)
                yield from answer["Responses"].get(table, ())
                left = answer.get("UnprocessedKeys", {}).get(table, {}).get("Keys", [])
                attempt = self._progress(attempt, waiting, left)
                waiting = left

    def put(self, table: str, items: Iterable[dict[str, Any]]) -> None:
        """Put items, whatever is there."""
        for some in _portions(items):
            self._write(table, [{"PutRequest": {"Item": item}} for item in some])

    def delete(self, table: str, keys: Iterable[tuple[str, str]]) -> None:
        """Delete items, if they are there."""
        rest = iter(keys)
        while some := list(islice(rest, _PUT_ITEMS)):
            named = [{"pk": {"S": pk}, "sk": {"S": sk}} for pk, sk in some]
            self._write(table, [{"DeleteRequest": {"Key": key}} for key in named])

    def _write(self, table: str, waiting: Any) -> None:
        attempt = 0
        while waiting:
            answer = self.send("batch_write_item", RequestItems={table: waiting})
            left = answer.get("UnprocessedItems", {}).get(table, [])
            attempt = self._progress(attempt, waiting, left)
            waiting = left

    def _progress(self, attempt: int, before: Sequence[Any], left: Sequence[Any]) -> int:
        if not left:
            return 0
        attempt = 1 if len(left) < len(before) else attempt + 1
        if attempt > self.attempts:
            raise LedgerBusy(f"{len(left)} items stay unprocessed")
        self.wait(attempt)
        return attempt

    def wait(self, attempt: int) -> None:
        """Wait before another attempt, longer each time, by chance."""
        self.check_time()
        self._sleep(self._jitter() * min(_LAST_DELAY_S, _FIRST_DELAY_S * 2**attempt))

    def check_time(self) -> None:
        """Raise when no time is left."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise LedgerBusy("no time is left")


def _portions(items: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    portion: list[dict[str, Any]] = []
    size = 0
    for item in items:
        contents = (next(iter(value.values())) for value in item.values())
        length = sum(1 if isinstance(each, bool) else len(each) for each in contents)
        if portion and (len(portion) == _PUT_ITEMS or size + length > _PUT_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(item)
        size += length
    if portion:
        yield portion

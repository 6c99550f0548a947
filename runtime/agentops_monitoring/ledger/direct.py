"""The ledger for processes whose stdout nobody reads: they write their own lines, at once or by a replay."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple

from botocore.config import Config
from botocore.exceptions import ClientError, NoCredentialsError, NoRegionError, PartialCredentialsError
from botocore.session import Session

from agentops_monitoring.direct import Hopeless
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.events import Reject
from agentops_monitoring.ledger.parse import Batch, read_lines
from agentops_monitoring.ledger.writer import LedgerBusy, LedgerWriter, WriteResult
from agentops_monitoring.outbox import MAX_BATCH
from agentops_monitoring.pricing import overrides
from agentops_monitoring.settings import Settings
from agentops_monitoring.spill import SpillFile
from agentops_monitoring.transport import say

if os.environ.get("COST_ALERT_TOPIC_ARN"):
    # Here, while no fork can come in between, and only where somebody is to be told.
    from agentops_monitoring.ledger.watch import Watch

for _name in ("_strptime", "encodings.idna"):
    import_module(_name)  # botocore would load them with a request, while the process may fork

REPLAY_SECONDS = 60.0
"""How long a replay tries one batch."""
_MOST_COMPLAINTS = 20
_CONFIGURATION = (NoCredentialsError, NoRegionError, PartialCredentialsError)


def line_writer(settings: Settings) -> Callable[[Sequence[str], float], list[str]]:
    """Return a function that writes lines by a deadline of the monotonic clock, and raises when it could not.

    It returns the lines that no ledger takes.

    Parameters
    ----------
    settings
        The process's settings: names of the tables, and of the log stream in a Lambda function.

    Raises
    ------
    Hopeless
        No region, no credentials.
    """
    writer = ledger_writer(settings)
    watch = _watch(settings)

    def write(lines: Sequence[str], deadline: float) -> list[str]:
        rejects: list[Reject] = []
        with _telling_the_hopeless():
            overrides.refresh()  # before reading, which prices
            for batch in batches(lines, settings.log_stream):
                result = writer.write(batch, deadline=deadline)
                rejects += result.rejects
                if watch is not None:
                    watch(result, deadline)
        for reject in rejects:
            say(f"not for the ledger: {reject.reason}: {reject.source.message[:200].rstrip()}")
        return [reject.source.message for reject in rejects]

    return write


def ledger_writer(settings: Settings) -> LedgerWriter:
    """Return a writer for the tables that the settings name.

    Raises
    ------
    Hopeless
        No region, no credentials.
    """
    return LedgerWriter(_client(), _tables(settings))


def _tables(settings: Settings) -> schema.Tables:
    return schema.Tables(settings.monitoring_table, settings.decisions_table, settings.ledger_table)


def _client() -> Any:
    retries: Any = {"mode": "standard", "total_max_attempts": 2}
    config = Config(retries=retries, connect_timeout=3, read_timeout=10)
    with _telling_the_hopeless():
        # A session of its own: the default one is the agent's, and no session is for two threads. Without
        # boto3, whose own imports fail once the interpreter ends, as at the end of a short script.
        return Session().create_client("dynamodb", config=config)


def _watch(settings: Settings) -> Callable[[WriteResult, float], None] | None:
    """Return what looks at budgets after a batch; None where `COST_ALERT_TOPIC_ARN` names nobody to tell.

    It never raises: the events are in the ledger, and whoever looks next sees the same.
    """
    if not os.environ.get("COST_ALERT_TOPIC_ARN"):
        return None
    told: set[str] = set()

    def complain(error: Exception) -> None:
        if (what := f"budgets: {type(error).__name__}: {error}") not in told and len(told) < _MOST_COMPLAINTS:
            told.add(what)
            say(what)

    try:
        watch = Watch.from_environment(_client(), _tables(settings), alarmed=False)
    except ValueError as error:
        complain(error)
        return None

    def look(result: WriteResult, deadline: float) -> None:
        try:
            if watch is not None:
                watch.after(result.increments, deadline=deadline)
                for failure in watch.sweep():
                    complain(failure)
        except Exception as error:  # noqa: BLE001
            complain(error)

    return look


@contextmanager
def _telling_the_hopeless() -> Iterator[None]:
    try:
        yield
    except LedgerBusy as error:
        if isinstance(error.__cause__, _CONFIGURATION):
            raise Hopeless(str(error)) from error
        raise
    except _CONFIGURATION as error:
        raise Hopeless(str(error)) from error
    except ClientError as error:
        # The writer repeats by itself what passes; a token that has expired is renewed by its owner.
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        code = error.response.get("Error", {}).get("Code", "")
        if status < 500 and not code.startswith(("Expired", "RequestExpired", "Throttl", "Transaction")):
            raise Hopeless(str(error)) from error
        raise


def batches(lines: Sequence[str], stream: str) -> Iterator[Batch]:
    """Read lines into one batch per process that wrote them.

    Parameters
    ----------
    lines
        The monitor's lines.
    stream
        The process's log stream, if it has one. Otherwise what is drawn with each process stands in for it:
        the same name whether its lines come at once or by a replay.
    """
    everything = read_lines(lines, stream)
    if stream:
        yield everything
        return
    by_process: dict[str, Batch] = {}

    def of(nonce: str) -> Batch:
        return by_process.setdefault(nonce, Batch(f"direct/{nonce}"))

    for event in everything.events:
        of(event.nonce).events.append(event)
    for part in everything.parts:
        of(part.event.nonce).parts.append(part)
    if everything.rejects:
        of("").rejects.extend(everything.rejects)
    yield from by_process.values()


class Replayed(NamedTuple):
    """What became of a file."""

    path: str
    state: str
    """`written` and deleted; `kept` with what the ledger refuses; `in use` by a process that writes it
    itself; `unreadable`, for a reason of the file's own; `failed`, for one that every file would meet, and as
    it was; `found`, by a dry run."""
    events: int = 0
    """Events that are in the ledger now and were not before; of a dry run, events in the file."""
    duplicates: int = 0
    """Events that were in the ledger already."""
    refused: int = 0
    """Lines that the ledger never takes."""
    torn: bool = False
    """Whether the last line was cut off, as its process was killed: that call had not returned."""
    reason: str = ""
    """Why it failed, or why the first line was refused."""


def replay(path: str, writer: LedgerWriter | None) -> Replayed:
    """Write a file's lines to the ledger, and delete it; what is in already changes nothing.

    Parameters
    ----------
    path
        The file.
    writer
        Where to; None for a dry run.
    """
    try:
        file = SpillFile.open(path)
    except OSError as error:
        return Replayed(path, "unreadable", reason=str(error))
    if file is None:
        return Replayed(path, "in use")
    tally = WriteResult()
    kept: list[str] = []
    try:
        while lines := file.read(MAX_BATCH):
            texts = [line.decode("utf-8", "replace") for line in lines]
            strange = [text for text in texts if "agentops.event" not in text]
            kept += strange
            with _telling_the_hopeless():
                if writer is not None:
                    overrides.refresh()
                for batch in batches([text for text in texts if "agentops.event" in text], ""):
                    if writer is None:
                        ids = {event.id for event in batch.events} | {part.event.id for part in batch.parts}
                        result = WriteResult(events=len(ids), rejects=batch.rejects)
                    else:
                        result = writer.write(batch, deadline=time.monotonic() + REPLAY_SECONDS)
                    tally.events += result.events
                    tally.duplicates += result.duplicates
                    tally.rejects += result.rejects
                    kept += [reject.source.message for reject in result.rejects]
            file.offset += sum(map(len, lines))
        torn = file.left > 0
        if writer is not None:
            _keep(file, kept)
    except (LedgerBusy, Hopeless, ClientError, OSError) as error:
        state = "unreadable" if isinstance(error, OSError) else "failed"
        return Replayed(path, state, tally.events, tally.duplicates, reason=str(error))
    finally:
        file.release()
    reason = tally.rejects[0].reason if tally.rejects else "not a line of the monitor" if kept else ""
    state = "found" if writer is None else "kept" if kept else "written"
    return Replayed(path, state, tally.events, tally.duplicates, len(kept), torn, reason)


def _keep(file: SpillFile, lines: Sequence[str]) -> None:
    """Leave nothing in a file but some of its lines, whatever happens meanwhile."""
    if not lines:
        file.delete()
        return
    beside = f"{file.path}.new"
    fd = os.open(beside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w", encoding="utf-8") as target:
        target.writelines(lines)
    os.replace(beside, file.path)

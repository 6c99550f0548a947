"""`replay --dlq`, `--from-logs`, `--later`: through the plane's ingest function."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from agentops_monitoring.cli import plane as aws
from agentops_monitoring.cli.exits import DONE, NOT_ALL
from agentops_monitoring.cli.plane import Plane
from agentops_monitoring.cli.progress import Progress
from agentops_monitoring.ledger import intervals, schema
from agentops_monitoring.ledger.gaps import Gaps
from agentops_monitoring.ledger.later import LaterLines, later_pages, payload_of
from agentops_monitoring.ledger.replay import (
    Answer,
    DeadLetterQueue,
    Deliver,
    Page,
    by_function,
    deliver_all,
    encode,
    filter_of,
    log_pages,
)

_READ_TIMEOUT_S = 120
"""Ingest ends within a minute."""
_AGO = re.compile(r"(\d{1,6})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


class WrongUsage(ValueError):
    """The arguments make no sense; the text says why."""


def replay(parsed: argparse.Namespace) -> int:
    """Replay one source; return the exit code.

    Raises
    ------
    WrongUsage
        The arguments make no sense.
    NoPlane
        The plane, or the queue, is not there.
    botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError
        AWS refuses, or is out of reach.
    """
    plane = Plane(parsed.environment)
    deliver = None
    if not parsed.dry_run:
        deliver = by_function(aws.client("lambda", read_timeout=_READ_TIMEOUT_S), plane.ingest)
    if parsed.dlq is not None:
        return _dead_letters(parsed, plane, deliver)
    return _later(parsed, plane, deliver) if parsed.later else _logs(parsed, plane, deliver)


def _dead_letters(parsed: argparse.Namespace, plane: Plane, deliver: Deliver | None) -> int:
    url = plane.queue_url(parsed.dlq)
    queue = DeadLetterQueue(aws.client("sqs"), url, deliver)
    rows: dict[tuple[str, str], Counter[str]] = {}
    reasons: Counter[str] = Counter()
    total, messages = Answer(), 0
    with Progress("messages", queue.size()) as progress:
        for letter in queue.replay():
            row = rows.setdefault((letter.kind, letter.state), Counter())
            row.update(letters=1, messages=letter.messages, lines=letter.lines)
            row.update(events=letter.answer.events, known=letter.answer.known, refused=letter.answer.refused)
            total = total.plus(letter.answer)
            messages += letter.messages
            if letter.reason and (letter.state != "replayed" or letter.answer.refused):
                reasons[letter.reason] += 1
            progress.show(messages, f"{messages:,} messages")
    left = sum(row["letters"] for (_, state), row in rows.items() if state in ("failed", "left"))
    if parsed.json:
        table = [{"kind": kind, "state": state, **row} for (kind, state), row in sorted(rows.items())]
        _print_json({"queue": url, "letters": table, "reasons": dict(reasons), **_counts(total)})
    else:
        columns = ("letters", "messages", "lines", "events", "known", "refused")
        if rows:
            print(f"{'letters of':16} {'state':9}" + "".join(f"{name:>10}" for name in columns))
        for (kind, state), row in sorted(rows.items()):
            print(f"{kind:16} {state:9}" + "".join(f"{row[name]:10,}" for name in columns))
        for reason, count in reasons.most_common(10):
            print(f"{count:,} × {reason}")
        print(_summary(total, deliver) if rows else f"nothing waits in {url.rpartition('/')[2]}")
    return NOT_ALL if left or total.refused else DONE


class _Source(NamedTuple):
    """Lines to deliver."""

    group: str
    streams: tuple[str, ...]
    """All of the group's when empty."""
    start_ms: int
    end_ms: int


def _logs(parsed: argparse.Namespace, plane: Plane, deliver: Deliver | None) -> int:
    skipped: list[str] = []
    gaps = None
    if parsed.log_group:
        span = _span(parsed.start, parsed.end)
        sources = [_Source(group, (), *span) for group in parsed.log_group]
    else:
        gaps = Gaps(aws.client("dynamodb"), plane.tables.ledger)
        sources = _with_gaps(gaps, skipped)
    logs = aws.client("logs")
    rows: dict[str, Counter[str]] = {}
    total = Answer()
    waiting = deque(sources)
    while waiting:
        group, streams, start_ms, end_ms = waiting.popleft()
        try:
            name = filter_of(logs, group, plane.environment)
            if name is None:
                skipped.append(f"{group} has no subscription filter of environment {plane.environment}")
                continue
            pages = log_pages(logs, group, name, start_ms=start_ms, end_ms=end_ms, streams=streams)
            row = rows.setdefault(group, Counter())
            with Progress("lines", end_ms - start_ms) as progress:
                for page, answer in _answers(pages, deliver):
                    row.update(lines=len(page.payload["logEvents"]), **_counts(answer))
                    total = total.plus(answer)
                    progress.show(page.through_ms - start_ms, f"{row['lines']:,} lines of {group}")
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "ResourceNotFoundException":
                raise
            if len(streams) > 1:  # one that is gone hides all others
                waiting.extend(_Source(group, (each,), start_ms, end_ms) for each in streams)
            else:
                skipped.append(f"{' '.join((group, *streams))} is not there (any more)")
        if total.error:
            break
    missing = None
    if gaps is not None:
        missing = sum(intervals.size(gap.missing) for gap in gaps.all())
    _print_sources(parsed, rows, skipped, total, deliver, missing)
    return NOT_ALL if skipped or total.error or total.refused or missing else DONE


def _with_gaps(gaps: Gaps, skipped: list[str]) -> list[_Source]:
    """Return the streams of processes of which the ledger lacks events."""
    streams: dict[str, set[str]] = {}
    for gap in gaps.all():
        if gap.missing and gap.log_group:
            streams.setdefault(gap.log_group, set()).add(gap.log_stream)
        elif gap.missing:
            skipped.append(
                f"process {gap.nonce} of {gap.agent} lacks {intervals.size(gap.missing):,} events and has no "
                "log: what it could not write is in its files, see replay PATH"
            )
    now = time.time()
    span = int((now - schema.raw_ttl_s()) * 1000), int(now * 1000)
    return [
        _Source(group, tuple(some), *span)
        for group, names in sorted(streams.items())
        # https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html
        for some in _portions(sorted(names), 100)
    ]


def _later(parsed: argparse.Namespace, plane: Plane, deliver: Deliver | None) -> int:
    lines = LaterLines(aws.client("dynamodb"), plane.tables.ledger)
    rows: dict[str, Counter[str]] = {}
    total = Answer()
    kept = list(lines.all(datetime.now(UTC)))
    done = 0
    with Progress("lines", len(kept)) as progress:
        for some in later_pages(kept):
            row = rows.setdefault(str(some[0].frame.get("logGroup", "")), Counter())
            answer = Answer() if deliver is None else deliver(encode(payload_of(some)))
            row.update(lines=len(some), **_counts(answer))
            total = total.plus(answer)
            done += len(some)
            progress.show(done)
            if answer.error:
                break  # the rest would meet the same
            if deliver is not None and not answer.later:
                lines.delete(some)
    left = len(kept) - done + total.later if deliver else 0
    _print_sources(parsed, rows, [], total, deliver)
    return NOT_ALL if left or total.error or total.refused else DONE


def _portions(names: list[str], size: int) -> Iterator[list[str]]:
    rest = iter(names)
    while some := list(islice(rest, size)):
        yield some


def _answers(pages: Iterable[Page], deliver: Deliver | None) -> Iterator[tuple[Page, Answer]]:
    if deliver is None:
        return ((page, Answer()) for page in pages)
    return deliver_all(pages, deliver)


def _span(start: str | None, end: str | None) -> tuple[int, int]:
    now = datetime.now(UTC)
    first = _time(start, now) if start else now - timedelta(hours=24)
    last = _time(end, now) if end else now
    if first >= last:
        raise WrongUsage("--start is not before --end")
    oldest = now - timedelta(seconds=schema.raw_ttl_s())
    if first < oldest:
        raise WrongUsage(
            f"--start is before {oldest:%Y-%m-%d}: of events that old the ledger no longer knows that it has "
            "counted them, and would count them again"
        )
    return int(first.timestamp() * 1000), int(last.timestamp() * 1000)


def _time(text: str, now: datetime) -> datetime:
    try:
        if ago := _AGO.fullmatch(text):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise WrongUsage(f"{text!r} is neither a time, such as 2026-11-22T08:00, nor one like 36h") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _print_sources(
    parsed: argparse.Namespace,
    rows: dict[str, Counter[str]],
    skipped: list[str],
    total: Answer,
    deliver: Deliver | None,
    missing: int | None = None,
) -> None:
    if parsed.json:
        table = [{"source": source, **row} for source, row in rows.items()]
        told = {} if missing is None else {"missing": missing}
        _print_json({"sources": table, "skipped": skipped, "error": total.error, **_counts(total), **told})
        return
    columns = ("lines", "events", "known", "refused", "later")
    if rows:
        width = max(len(source) for source in rows)
        print(f"{'source':{width}}" + "".join(f"{name:>10}" for name in columns))
        for source, row in rows.items():
            print(f"{source:{width}}" + "".join(f"{row[name]:10,}" for name in columns))
    for text in skipped:
        print(text)
    print(_summary(total, deliver))
    if missing is not None:
        print(f"{missing:,} events are missing" if missing else "no event is missing")


def _counts(answer: Answer) -> dict[str, int]:
    return {name: getattr(answer, name) for name in ("events", "known", "refused", "later")}


def _summary(total: Answer, deliver: Deliver | None) -> str:
    if deliver is None:
        return "a dry run: nothing was written"
    parts = [f"{total.events:,} events and reports are new in the ledger, {total.known:,} were there"]
    if total.refused:
        parts.append(f"{total.refused:,} lines were refused and are in the dead letters")
    if total.later:
        parts.append(f"{total.later:,} lines wait for an upgrade of the plane")
    if total.error:
        parts.append(f"the rest was not tried: {total.error}")
    return "; ".join(parts)


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps({**document, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}, indent=2))

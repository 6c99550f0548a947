"""`replay PATH`: files that agents left because they could not reach the ledger."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentops_monitoring import settings
from agentops_monitoring.cli.exits import DONE, NOT_ALL, USAGE
from agentops_monitoring.spill import SUFFIX, SpillFolder

if TYPE_CHECKING:
    from agentops_monitoring.ledger.direct import Replayed


def replay(parsed: argparse.Namespace) -> int:
    """Write files to the ledger and delete them; return the exit code."""
    from botocore.exceptions import BotoCoreError

    from agentops_monitoring.direct import Hopeless
    from agentops_monitoring.ledger import direct

    configured = settings.load()
    table = configured.monitoring_table
    default = None if parsed.paths else SpillFolder.from_environment(table)
    missing = [path for path in parsed.paths if not os.path.exists(path)]
    if missing or not (parsed.paths or default):
        print(f"no such file or folder: {', '.join(missing)}" if missing else "name a PATH", file=sys.stderr)
        return USAGE
    files: list[str] = []
    others = 0
    for path in [default.path] if default else parsed.paths:
        if not default and not os.path.isdir(path):
            files.append(path)
            continue
        folder = default or SpillFolder(path, table)
        try:
            found = folder.files()
            names = os.listdir(path) if os.path.exists(path) else []
        except OSError as error:
            print(error, file=sys.stderr)
            return NOT_ALL
        others += sum(name.endswith(SUFFIX) for name in names) - len(found)
        files += found
    done: list[Replayed] = []
    try:
        writer = None if parsed.dry_run or not files else direct.ledger_writer(configured)
    except (Hopeless, BotoCoreError) as error:  # a profile that is not there, a login that has ended
        print(f"the ledger is out of reach: {error}", file=sys.stderr)
        return NOT_ALL
    for path in files:
        done.append(direct.replay(path, writer))
        if done[-1].state == "failed" and writer is not None:
            break  # the next one would meet the same
    untried = len(files) - len(done)
    left = untried + sum(each.state in ("kept", "failed", "unreadable") for each in done)
    if parsed.json:
        document = {"table": table, "files": [each._asdict() for each in done], "untried": untried}
        print(json.dumps({**document, "of_other_tables": others}, indent=2))
    else:
        _print_table(table, done, untried, others)
    return NOT_ALL if left else DONE


def _print_table(table: str, done: Sequence[Replayed], untried: int, others: int) -> None:
    if done:
        width = max(len(os.path.basename(each.path)) for each in done)
        print(f"{'file':{width}}  {'state':10} {'events':>8} {'known':>8} {'refused':>8}")
        for each in done:
            name = os.path.basename(each.path)
            print(
                f"{name:{width}}  {each.state:10} {each.events:8,} {each.duplicates:8,} {each.refused:8,}"
                + ("  last line torn" if each.torn else "")
                + (f"  {each.reason}" if each.reason else "")
            )
    events = sum(each.events for each in done)
    print(
        f"{events:,} events from {_files(len(done))}, for {table}" if done else f"nothing waits for {table}"
    )
    if untried:
        print(f"{_files(untried)} not tried")
    if others:
        print(f"{_files(others)} {'is' if others == 1 else 'are'} for other tables")


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"

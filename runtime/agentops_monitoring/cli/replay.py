"""`agentops-monitoring replay`: into the ledger what did not get there. Repeating it changes nothing."""

from __future__ import annotations

import argparse
import sys

from agentops_monitoring.cli.exits import NOT_ALL, USAGE


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "replay",
        help="write to the ledger what did not get there",
        description="Write to the ledger what did not get there: from files that agents left (PATH), from "
        "the dead-letter queue, from log groups, or what ingest kept of a later version. What is in the "
        "ledger already does not count twice.",
        epilog="Files go to the tables that MONITORING_TABLE_NAME, DECISIONS_TABLE_NAME and "
        "LEDGER_TABLE_NAME name; all else goes through the ingest function of the plane of --environment. "
        "Exit code 0: all is in the ledger. 1: something is left. 2: wrong usage. 130: interrupted.",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="files, or folders with files for these tables (default: AGENTOPS_SPILL_DIR)",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--dlq",
        nargs="?",
        const="",
        metavar="QUEUE",
        help="the dead-letter queue: the plane's own, or one by name or URL",
    )
    source.add_argument(
        "--from-logs",
        action="store_true",
        help="log groups: those of --log-group, or else the streams in which the ledger lacks events",
    )
    source.add_argument(
        "--later", action="store_true", help="lines of a later version, after ingest was upgraded"
    )
    parser.add_argument("--log-group", action="append", default=[], metavar="GROUP", help="repeatable")
    for name, default in (("start", "24 hours ago"), ("end", "now")):
        parser.add_argument(
            f"--{name}",
            metavar="TIME",
            help=f"with --log-group: a time in UTC (2026-11-22T08:00), or how long ago (90m, 36h, 7d); "
            f"default: {default}",
        )
    parser.add_argument("--environment", metavar="NAME", help="of the plane (default: ENVIRONMENT)")
    parser.add_argument("--dry-run", action="store_true", help="say what there is, and write nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    through_ingest = parsed.dlq is not None or parsed.from_logs or parsed.later
    if through_ingest and parsed.paths:
        print("name either a PATH or another source", file=sys.stderr)
        return USAGE
    if (parsed.log_group or parsed.start or parsed.end) and not (parsed.from_logs and parsed.log_group):
        print("--log-group, --start and --end go with --from-logs --log-group", file=sys.stderr)
        return USAGE
    if not through_ingest:
        from agentops_monitoring.cli import files

        return files.replay(parsed)
    from botocore.exceptions import BotoCoreError, ClientError

    from agentops_monitoring.cli.plane import NoPlane
    from agentops_monitoring.cli.through_ingest import WrongUsage, replay

    try:
        return replay(parsed)
    except WrongUsage as error:
        print(error, file=sys.stderr)
        return USAGE
    except (NoPlane, BotoCoreError, ClientError) as error:
        print(f"not all was tried: {error}", file=sys.stderr)
        return NOT_ALL

"""`agentops-monitoring reconcile`: what AWS has counted on a day, beside what the ledger has."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from agentops_monitoring.cli.exits import DONE, NOT_ALL, USAGE

if TYPE_CHECKING:
    from agentops_monitoring.ledger.reconcile import Compared


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "reconcile",
        help="hold a day against AWS's own counts",
        description="Shows what AWS/Lambda and AWS/Bedrock have counted on a UTC day, beside what the ledger "
        "has, and what a difference may come from. It changes nothing.",
        epilog="Needs cloudwatch:GetMetricData, cloudwatch:ListMetrics, and dynamodb:Query on the ledger. "
        "Exit code 0: the ledger lacks no invocation. 1: it lacks some, or AWS did not tell. 2: wrong usage.",
    )
    parser.add_argument(
        "--day", metavar="DATE", help="such as 2026-11-22, of the last two weeks (default: yesterday)"
    )
    parser.add_argument("--environment", metavar="NAME", help="of the plane (default: ENVIRONMENT)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    try:
        day = date.fromisoformat(parsed.day) if parsed.day else datetime.now(UTC).date() - timedelta(days=1)
    except ValueError:
        print(f"--day {parsed.day}: expected a date such as 2026-11-22", file=sys.stderr)
        return USAGE
    from botocore.exceptions import BotoCoreError, ClientError

    from agentops_monitoring.cli.plane import NoPlane, Plane, client
    from agentops_monitoring.ledger import schema
    from agentops_monitoring.ledger.reader import LedgerReader
    from agentops_monitoring.ledger.reconcile import LAMBDA, NotTold, reconcile

    plane = Plane(parsed.environment)
    try:
        cloudwatch = client("cloudwatch")
        reader = LedgerReader(schema.client(), plane.tables)
        found = reconcile(reader, cloudwatch, day, region=cloudwatch.meta.region_name)
    except ValueError as error:
        print(f"--day: {error}", file=sys.stderr)
        return USAGE
    except (NoPlane, NotTold, BotoCoreError, ClientError) as error:
        print(f"reconcile: {error}", file=sys.stderr)
        return NOT_ALL
    if parsed.json:
        document = {"environment": plane.environment, "day": day.isoformat()}
        print(json.dumps({**document, "compared": [_document(each) for each in found]}, indent=2))
    else:
        _print_table(plane.environment, day, found)
    return NOT_ALL if any(each.missing for each in found if each.kind == LAMBDA) else DONE


def _document(found: Compared) -> dict[str, Any]:
    return {**found._asdict(), "missing": found.missing, "remarks": found.remarks}


def _print_table(environment: str, day: date, found: Sequence[Compared]) -> None:
    if not found:
        print(f"nothing ran on {day}, by AWS's count and by the ledger's ({environment})")
        return
    rows = [["agent or model", "counted", "AWS", "ledger", "differs", ""]]
    for each in found:
        name, remark = each.name, "; ".join(each.remarks)
        for what, counted in each.aws.items():
            booked = each.ledger[what]
            change = f"{booked - counted:+,}" if booked != counted else ""
            rows.append([name, what.replace("_", " "), f"{counted:,}", f"{booked:,}", change, remark])
            name = remark = ""
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for name, what, *figures, remark in rows:
        names = [name.ljust(widths[0]), what.ljust(widths[1])]
        flush = [text.rjust(width) for text, width in zip(figures, widths[2:], strict=True)]
        print("  ".join([*names, *flush, remark]).rstrip())
    lacking = [each for each in found if each.missing]
    lacks = f"the ledger lacks some of {len(lacking)}" if lacking else "the ledger lacks nothing"
    print(f"{day}, {environment}: {lacks}")

"""`agentops-monitoring forget`: a workflow's data, deleted; what it was counted in stays exact."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from agentops_monitoring.cli.exits import DONE, NOT_ALL, USAGE

if TYPE_CHECKING:
    from agentops_monitoring.ledger.forget import Forget, Forgotten

OUT_OF_REACH = (
    "the agents' log groups, for as long as they keep lines (30 days, unless set otherwise)",
    "point-in-time recovery of the tables (35 days), backups of your own, and the tables' streams (24 hours)",
    "dead letters (14 days); replayed, they leave no more than keys either",
    "parts of a split line whose other parts never came (14 days), and files that agents left",
    "ids of user and session beside the state of its invocations (90 days)",
    "what was exported, as to AgentOps: it has to be deleted there",
)
"""What remains where this command does not reach, and for how long."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "forget",
        help="delete a workflow's data; every count and cost stays exact",
        description="Deletes the events and decisions of a workflow, and keeps their keys alone, so that its "
        "lines do not count twice when they are replayed. What arrives of it later counts, and leaves a key.",
        epilog="Needs dynamodb:BatchGetItem, BatchWriteItem, DeleteItem, GetItem, PutItem and Query on the "
        "three tables. Out of reach: " + "; ".join(OUT_OF_REACH) + ". "
        "Exit code 0: done. 1: not all of it. 2: wrong usage, or not confirmed. Repeating it does no harm.",
    )
    parser.add_argument("--workflow", required=True, metavar="ID", help="the workflow's id")
    parser.add_argument("--environment", metavar="NAME", help="of the plane (default: ENVIRONMENT)")
    parser.add_argument("--dry-run", action="store_true", help="say what there is, and delete nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    workflow_id = parsed.workflow
    if not 0 < len(workflow_id) <= 511:
        print("--workflow: an id has 1 to 511 characters", file=sys.stderr)
        return USAGE
    if not (parsed.dry_run or parsed.yes or _confirmed(workflow_id)):
        print("not confirmed: nothing was deleted", file=sys.stderr)
        return USAGE
    from botocore.exceptions import BotoCoreError, ClientError

    from agentops_monitoring.cli import plane as aws
    from agentops_monitoring.ledger.forget import Forget, Forgotten
    from agentops_monitoring.ledger.requests import LedgerBusy

    total = Forgotten()
    reason = ""
    try:
        forget = Forget(aws.client("dynamodb"), aws.Plane(parsed.environment).tables)
        if parsed.dry_run:
            for found in forget.sweep(workflow_id, dry_run=True):
                total = total.plus(found)
        else:
            for found in _forget(forget, workflow_id):
                total = total.plus(found)
    except aws.NoPlane as error:
        print(f"forget: {error}", file=sys.stderr)
        return NOT_ALL
    except (LedgerBusy, BotoCoreError, ClientError) as error:
        reason = str(error)
    if parsed.json:
        told = {"workflow": workflow_id, "dry_run": parsed.dry_run, **total._asdict()}
        print(json.dumps({**told, "error": reason, "out_of_reach": OUT_OF_REACH}, indent=2))
    elif any(total) or not reason:
        verb = "found" if parsed.dry_run else "deleted"
        print(f"{verb}: " + ", ".join(f"{count:,} {name}" for name, count in total._asdict().items()))
        print("out of reach:")
        for each in OUT_OF_REACH:
            print(f"  {each}")
    if reason:
        done = "not all of it" if any(total) else "nothing was deleted"
        print(f"forget: {done}: {reason}; run it again", file=sys.stderr)
        return NOT_ALL
    return DONE


def _confirmed(workflow_id: str) -> bool:
    if not sys.stdin.isatty():
        print("nobody is there to confirm: say --yes", file=sys.stderr)
        return False
    return input(f"Delete the data of workflow {workflow_id}? Type its id: ").strip() == workflow_id


def _forget(forget: Forget, workflow_id: str) -> Iterator[Forgotten]:
    from agentops_monitoring.cli.progress import Progress
    from agentops_monitoring.ledger import forget as module

    forget.mark(workflow_id)
    marked = time.monotonic()
    yield from forget.sweep(workflow_id)
    # Who read the workflow before it was marked may have written to it behind the sweep.
    with Progress("seconds", module.IN_FLIGHT_S) as progress:
        while (passed := time.monotonic() - marked) < module.IN_FLIGHT_S:
            progress.show(passed, "waiting for deliveries that were under way")
            time.sleep(min(0.5, module.IN_FLIGHT_S - passed))
    yield from forget.sweep(workflow_id)

"""`agentops-monitoring resume`: stopped agents run again, with what they were sent meanwhile."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from agentops_monitoring.cli.exits import DONE, NOT_ALL, USAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentops_monitoring.cli.plane import Plane
    from agentops_monitoring.control.stops import Resumed


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "resume",
        help="let agents run again that an alarm has stopped",
        description=(
            "Restores the concurrency that an agent's function had before an alarm stopped it, and invokes "
            "it with the events that were refused meanwhile, oldest first. Other failed events stay in its "
            "queue. Run it again after an interruption: what is done is not done twice."
        ),
        epilog="Exit code 0: nothing is left to do. 1: something is, or could not be done. 2: wrong usage.",
    )
    parser.add_argument("agents", nargs="*", metavar="AGENT", help="the agent's name")
    parser.add_argument("--all", action="store_true", help="every stopped agent of the environment")
    parser.add_argument("--environment", help="of the plane (default: ENVIRONMENT, or production)")
    parser.add_argument(
        "--rate", type=float, default=10.0, metavar="N", help="events a second at most, 2 to 100 (default 10)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("--json", action="store_true", help="print a JSON document")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Resume agents; return the exit code."""
    from botocore.exceptions import BotoCoreError, ClientError

    from agentops_monitoring.cli.plane import NoPlane, Plane
    from agentops_monitoring.control.redrive import FASTEST, SLOWEST

    if bool(parsed.agents) == parsed.all:
        print("resume: name the agents, or say --all", file=sys.stderr)
        return USAGE
    if not SLOWEST <= parsed.rate <= FASTEST:
        print(f"resume: --rate is {SLOWEST:g} to {FASTEST:g} events a second", file=sys.stderr)
        return USAGE
    try:
        return _resume(parsed, Plane(parsed.environment))
    except (NoPlane, BotoCoreError, ClientError) as error:
        print(f"resume: {error}", file=sys.stderr)
        return NOT_ALL


def _resume(parsed: argparse.Namespace, plane: Plane) -> int:
    from botocore.exceptions import BotoCoreError, ClientError

    from agentops_monitoring.cli.plane import client
    from agentops_monitoring.cli.progress import Progress
    from agentops_monitoring.control.redrive import Redrive
    from agentops_monitoring.control.stoppable import targets
    from agentops_monitoring.control.stops import RUNNING, Resumed, Stops
    from agentops_monitoring.ledger import schema

    lambda_ = client("lambda")
    redrive = Redrive(client("sqs"), lambda_, rate=parsed.rate)
    stops = Stops(schema.client(), lambda_, client("cloudwatch"), plane.tables.ledger, redrive)
    agents = parsed.agents

    def is_known(agent: str) -> bool:
        return stops.find(agent) is not None or any(
            each.agent == agent for each in targets(client("ssm"), plane.environment)
        )

    if parsed.all:
        found = {each.agent: stops.find(each.agent) for each in targets(client("ssm"), plane.environment)}
        agents = [agent for agent, stop in found.items() if stop is not None and stop.status != RUNNING]
    done = []
    try:
        for agent in agents:
            with Progress(f"events given to {agent}") as shown:
                try:
                    one = stops.resume(agent, dry_run=parsed.dry_run, progress=shown.show)
                    if one.state == "not stopped" and not is_known(agent):
                        one = Resumed(agent, "unknown", reason="no alarm stops an agent of that name")
                    done.append(one)
                except (BotoCoreError, ClientError) as error:  # the next agent may do better
                    done.append(Resumed(agent, "refused", reason=str(error)))
    finally:
        if parsed.json:
            whole = {"environment": plane.environment, "dry_run": parsed.dry_run}
            print(json.dumps({**whole, "agents": [each._asdict() for each in done]}, indent=2))
        else:
            _print_table(done, plane.environment, dry_run=parsed.dry_run)
    return DONE if all(each.state in ("resumed", "not stopped") for each in done) else NOT_ALL


def _print_table(done: Sequence[Resumed], environment: str, *, dry_run: bool) -> None:
    if not done:
        print(f"no agent of {environment} is stopped")
        return
    width = max(len(each.agent) for each in done)
    print(f"{'agent':{width}}  {'state':11} {'concurrency':>11} {'events':>8} {'others':>8}")
    for each in done:
        concurrency = "unreserved" if each.concurrency is None else f"{each.concurrency:,}"
        if each.state in ("not stopped", "refused", "unknown"):
            concurrency = ""
        print(
            f"{each.agent:{width}}  {each.state:11} {concurrency:>11} {each.redriven:8,} {each.others:8,}"
            + (f"  {each.reason}" if each.reason else "")
        )
    if dry_run:
        print("a dry run: nothing was changed")
    if any(each.others for each in done):
        print("others: failed events that no stop is the reason of; they stay in the agent's queue")
    if not dry_run and any(each.state == "resumed" for each in done):
        print("An alarm that is still in ALARM stops no agent again before the next UTC day.")

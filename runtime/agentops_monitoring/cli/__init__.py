"""The command `agentops-monitoring`. A subcommand loads what it needs when it is called."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from agentops_monitoring.cli import forget, reconcile, replay, resume
from agentops_monitoring.cli.exits import INTERRUPTED

_SUBCOMMANDS = (replay, resume, reconcile, forget)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    arguments
        Those of the process when left out.
    """
    parser = argparse.ArgumentParser(
        prog="agentops-monitoring", description="Monitoring for autonomous agents."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for subcommand in _SUBCOMMANDS:
        subcommand.add(commands)
    parsed = parser.parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except KeyboardInterrupt:
        print("interrupted: what is done stays, and running it again does the rest", file=sys.stderr)
        return INTERRUPTED

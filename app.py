#!/usr/bin/env python3
"""The CDK app: monitoring, agents and dashboards of one environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT / "constructs"), str(ROOT / "runtime")]
os.environ.setdefault("JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION", "1")


def main() -> int:
    """Synthesize; what the user can mend is one line on standard error."""
    from stacks.application import AppError, build

    try:
        app = build()
        app.finish()
    except AppError as error:
        for line in error.lines:
            print(f"error: {line}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

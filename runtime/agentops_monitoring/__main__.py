"""`python -m agentops_monitoring`: the command line."""

from __future__ import annotations

import sys

from agentops_monitoring.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""What the demo shows: console tables, the three dashboards as a page, figures for programs, the recount."""

from __future__ import annotations

import sys
from pathlib import Path

# `runtime/` is a source root that nothing installs here; the ledger is read with the runtime's own reader.
_RUNTIME = str(Path(__file__).resolve().parents[2] / "runtime")
if _RUNTIME not in sys.path:
    sys.path.append(_RUNTIME)

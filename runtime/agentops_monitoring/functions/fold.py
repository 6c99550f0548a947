"""Lambda entry point, each 15 minutes: days and months that are over, folded out of their hours."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from agentops_monitoring.ledger.fold import Fold

_RESERVE_S = 300.0
"""Time kept for the day that is being folded, and for the months."""


@lru_cache(maxsize=1)
def _fold() -> Fold:
    return Fold.from_environment()


def handler(event: Mapping[str, Any], context: Any) -> dict[str, int]:  # noqa: ARG001 - Lambda's signature
    """Fold what has to be; what there is no time for waits for the next run.

    Raises
    ------
    ExceptionGroup
        Some days or months could not be folded.
    """
    remaining = context.get_remaining_time_in_millis() / 1000 if context is not None else 900.0
    try:
        folded = _fold().run(datetime.now(UTC), deadline=time.monotonic() + remaining - _RESERVE_S)
    except ExceptionGroup as failed:
        for each in failed.exceptions:  # Lambda's own line on a group leaves out what is in it
            what = {"at": " ".join(each.__notes__), "why": str(each)}
            print(json.dumps({"level": "ERROR", "message": "fold", **what}), flush=True)
        raise
    return folded._asdict()

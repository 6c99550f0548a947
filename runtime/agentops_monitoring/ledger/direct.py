"""The ledger for processes whose stdout nobody reads: they write their own lines."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence

from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.writer import LedgerWriter
from agentops_monitoring.settings import Settings
from agentops_monitoring.transport import say


def line_writer(settings: Settings) -> Callable[[Sequence[str], float], None]:
    """Return a function that writes lines by a deadline of the monotonic clock, and raises when it could not.

    Parameters
    ----------
    settings
        The process's settings: names of the tables, and of the log stream in a Lambda function.
    """
    tables = schema.Tables(settings.monitoring_table, settings.decisions_table, settings.ledger_table)
    writer = LedgerWriter(schema.client(), tables)

    def write(lines: Sequence[str], deadline: float) -> None:
        name = settings.log_stream or f"direct/{platform.node()}/{os.getpid()}"
        for reject in writer.write_lines(lines, name, deadline=deadline).rejects:
            line = reject.source.message[:200]
            say(f"not for the ledger: {reject.reason}: {line}")

    return write

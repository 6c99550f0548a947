"""What a function's process runs: AWS's runtime interface client, its log records written in pieces.

On AWS records and standard output come through pipes of their own; here through one, which keeps their order.
A pipe keeps only writes of up to PIPE_BUF bytes whole, so no piece of a record is larger. Not a module of
``local.aws``: it runs with what the function has, and nothing else.
"""

from __future__ import annotations

import select
import sys
import time

from awslambdaric import __main__ as client
from awslambdaric import bootstrap

HEAD, MORE = 16, 0x80  # bytes before a piece: type, length, time; the type's bit of all pieces but the last


def _log(self: bootstrap.FramedTelemetryLogSink, msg: str, frame_type: bytes | None = None) -> None:
    kind = int.from_bytes(frame_type or bootstrap._DEFAULT_FRAME_TYPE, "big")
    text, at, size = msg.encode(), time.time_ns() // 1000, select.PIPE_BUF - HEAD
    for start in range(0, len(text) or 1, size):
        piece = text[start : start + size]
        more = MORE if start + size < len(text) else 0
        head = (kind | more).to_bytes(4, "big") + len(piece).to_bytes(4, "big") + at.to_bytes(8, "big")
        self.file.write(head + piece)


if __name__ == "__main__":
    bootstrap.FramedTelemetryLogSink.log = _log
    client.main(sys.argv)

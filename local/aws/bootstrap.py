"""What a function's process runs: AWS's runtime interface client, its log records written in pieces.

On AWS records and standard output come through pipes of their own; here through one, which keeps their order.
A pipe keeps only writes of up to PIPE_BUF bytes whole, so no piece of a record is larger. Not a module of
``local.aws``: it runs with what the function has, and nothing else.

Code, layers and runtime are read-only on AWS; here, where environments share them, Python refuses to write
there (other programs that a function starts can).
"""

from __future__ import annotations

import errno
import os
import select
import site
import sys
import time
from typing import Any

from awslambdaric import __main__ as client
from awslambdaric import bootstrap

HEAD, MORE = 16, 0x80  # bytes before a piece: type, length, time; the type's bit of all pieces but the last

CODE = os.path.dirname(os.environ["LAMBDA_TASK_ROOT"]) + os.sep
MAY_WRITE = (os.environ["TMPDIR"], "__pycache__")


def _read_only(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "os.mkdir" or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        path = "" if isinstance(arguments[0], int) else os.path.abspath(os.fsdecode(arguments[0]))
        if path.startswith(CODE) and not any(place in path for place in MAY_WRITE):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)


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
    site.setquit()  # what -S leaves out
    sys.addaudithook(_read_only)
    client.main(sys.argv)

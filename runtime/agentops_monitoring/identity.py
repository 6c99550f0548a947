"""Who wrote a line: a nonce per process, a counter, and the proof that the process drew that nonce."""

from __future__ import annotations

import os
import threading
from itertools import count

# hashlib loads OpenSSL, several milliseconds and megabytes; this is the same function from CPython itself.
try:
    from _blake2 import blake2b
except ImportError:  # another Python than CPython
    from hashlib import blake2b

_KEY_BYTES = 64


def proof_of(nonce: str, log_stream: str) -> str:
    """Return the proof that the owner of a log stream drew a nonce.

    Anything an agent prints ends in the same log, what a model wrote included, and could imitate a line.
    But the stream's name holds a random id that only the process and the readers of the log know. The id
    stands at the name's end, behind the function's name, so the last 64 bytes (BLAKE2b's longest key) are
    the key.

    Parameters
    ----------
    nonce
        What stands before the `-` in an event's id.
    log_stream
        `AWS_LAMBDA_LOG_STREAM_NAME` in the process, `logStream` in a subscription's payload.
    """
    return blake2b(nonce.encode(), key=log_stream.encode()[-_KEY_BYTES:], digest_size=12).hexdigest()


def digest(text: str, size: int) -> str:
    """Return `size` bytes of a hash of any text, lone surrogates included, as hexadecimal digits."""
    return blake2b(text.encode("utf-8", "backslashreplace"), digest_size=size).hexdigest()


def new_span_id() -> str:
    """Return 16 random hexadecimal digits."""
    return os.urandom(8).hex()


class _Process:
    __slots__ = ("counter", "fields", "nonce", "workflow_id")

    def __init__(self) -> None:
        self.nonce = os.urandom(12).hex()
        self.counter = count(1)
        self.workflow_id = os.urandom(16).hex()
        log_stream = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME", "")
        # Outside Lambda the same process writes to the ledger, and nobody has to be convinced.
        self.fields = f'"proof":"{proof_of(self.nonce, log_stream)}"' if log_stream else '"proof":null'


_process: _Process | None = None
_lock = threading.Lock()


def _current() -> _Process:
    global _process
    process = _process
    if process is None:
        with _lock:
            process = _process
            if process is None:
                process = _process = _Process()
    return process


def next_event() -> tuple[str, int, str]:
    """Return the next event's id, its number within the process, and the rendered proof."""
    process = _process or _current()
    number = next(process.counter)
    return f"{process.nonce}-{number}", number, process.fields


def process_workflow_id() -> str:
    """Return the workflow of what a process records outside any invocation."""
    return _current().workflow_id


def _forget() -> None:
    """Make the next event draw a new nonce: a clone that went on counting would look like a redelivery."""
    global _process, _lock
    _lock = threading.Lock()
    _process = None


os.register_at_fork(after_in_child=_forget)

if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
    try:
        from snapshot_restore_py import (  # type: ignore[import-not-found, unused-ignore]
            register_after_restore,
        )
    except ImportError:
        pass
    else:
        register_after_restore(_forget)

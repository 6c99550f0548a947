"""Who wrote a line: a nonce per process, a counter, and the proof that the process drew that nonce."""

from __future__ import annotations

import os
from _thread import allocate_lock  # threading itself loads more than all that is here
from itertools import count

from agentops_monitoring.forks import at_fork

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


class Process:
    """What the events of a process have in common; a forked child and a restored snapshot have their own."""

    __slots__ = ("events", "fields", "first_span", "nonce", "spans", "workflow_id")

    def __init__(self) -> None:
        self.nonce = os.urandom(12).hex()
        """What stands before the number in the ids of events."""
        self.events = count(1)
        """The numbers of events."""
        self.workflow_id = os.urandom(16).hex()
        """The workflow of what is recorded outside any invocation."""
        # Span ids count from a random start, which takes a fraction of the time that drawing each anew would.
        # From 2**60 on they have 16 digits; events' own spans and all others are 2**61 apart.
        self.first_span = (1 << 60) + (int.from_bytes(os.urandom(8)) >> 4)
        """Added to an event's number it is the event's own span."""
        self.spans = count(self.first_span + (1 << 61))
        log_stream = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME", "")
        # Outside Lambda the same process writes to the ledger, and nobody has to be convinced.
        self.fields = f'"proof":"{proof_of(self.nonce, log_stream)}"' if log_stream else '"proof":null'


drawn: Process | None = None
"""This process's identity; None until the first need of it. Read it, and ask `process` where it is None."""
_lock = allocate_lock()


def process() -> Process:
    """Return this process's identity, drawn at the first need of it."""
    return drawn or _draw()


def _draw() -> Process:
    global drawn
    with _lock:
        if drawn is None:
            drawn = Process()
        return drawn


def new_span_id() -> str:
    """Return 16 hexadecimal digits that no other span has."""
    return hex(next(process().spans))[2:]


def process_workflow_id() -> str:
    """Return the workflow of what a process records outside any invocation."""
    return process().workflow_id


def _forget() -> None:
    """Make the next event draw a new nonce: a clone that went on counting would look like a redelivery."""
    global drawn, _lock
    _lock = allocate_lock()
    drawn = None


at_fork(after_in_child=_forget)

if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
    try:
        from snapshot_restore_py import (  # type: ignore[import-not-found, unused-ignore]
            register_after_restore,
        )
    except ImportError:
        pass
    else:
        register_after_restore(_forget)

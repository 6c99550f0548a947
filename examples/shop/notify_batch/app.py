"""Send order notifications to a queue, many at a time."""

from __future__ import annotations

# Limits of the queue, for one batch.
MAX_ENTRIES = 10
MAX_BYTES = 262_144

BATCH_SIZE = 25


class TooManyEntries(Exception):
    """The queue refuses the batch: too many entries."""


class BatchTooLong(Exception):
    """The queue refuses the batch: too many bytes."""


class Queue:
    """A queue with the limits of the real one."""

    def __init__(self):
        self.batches = []

    def send_batch(self, entries):
        if len(entries) > MAX_ENTRIES:
            raise TooManyEntries("maximum number of entries per request are 10")
        if sum(len(entry.encode()) for entry in entries) > MAX_BYTES:
            raise BatchTooLong("batch requests cannot be longer than 262144 bytes")
        self.batches.append(list(entries))


def send_all(messages, queue):
    """Send every message, in order; returns the number of batches."""
    for start in range(0, len(messages), BATCH_SIZE):
        queue.send_batch(messages[start : start + BATCH_SIZE])
    return len(queue.batches)


def handler(event, _context):
    messages = [f"{event['template']} {order}" for order in event["orders"]]
    return {"messages": len(messages), "batches": send_all(messages, Queue())}

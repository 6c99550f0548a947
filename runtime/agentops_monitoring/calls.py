"""One count for a model call that is seen twice: by our instrumentation, and in its agent's own report."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from agentops_monitoring.forks import at_fork

if TYPE_CHECKING:
    from agentops_monitoring.trace import TraceContext

_MAX_CALLS = 256
_SAME_CALL_S = 900
"""For how long a report without an id may mean a call of the same tokens: as an invocation may last."""

Counts = tuple[int | None, ...]
"""In the order of `TokenUsage`; None is not known."""


class Call:
    """A model call that was counted, waiting for the other one who saw it."""

    __slots__ = ("at", "counts", "event_id", "ids", "model", "priced", "region")

    def __init__(
        self, ids: tuple[str, ...], model: str, region: str | None, counts: Counts, priced: bool
    ) -> None:
        self.ids = ids
        """What the answer is known by: nothing, its own id, or that of its request as well."""
        self.model = model
        self.region = region
        self.counts = counts
        self.priced = priced
        self.at = time.monotonic()
        self.event_id: str | None = None


class _Log:
    """The calls of one invocation that nobody has claimed yet."""

    __slots__ = ("reported", "seen")

    def __init__(self) -> None:
        self.seen: list[Call] = []
        self.reported: list[Call] = []


# Re-entrant, since a signal's handler may report a call while its own thread is in here.
_lock = threading.RLock()


def _renew() -> None:
    # A fork may have copied the lock while another thread held it.
    global _lock
    _lock = threading.RLock()


at_fork(after_in_child=_renew)


def counted_before(context: TraceContext, auto: bool, call: Call) -> Call | None:
    """Return the call that this one is and that has been counted, once; else note this one."""
    calls = context.calls
    with _lock:
        if calls:
            log = calls[0]
        else:
            log = _Log()
            calls.append(log)
        if not isinstance(log, _Log):
            return None
        others, own = (log.reported, log.seen) if auto else (log.seen, log.reported)
        output = call.counts[1]
        for other in others:
            # Nearly all are other calls: told here, for a process that lives long has many of them.
            if other.counts[1] != output and not (call.ids and _share(other.ids, call.ids)):
                continue
            # A price that the counted one lacks must not get lost.
            if (other.priced or not call.priced) and _same(other, call, auto):
                others.remove(other)
                return other
        own.append(call)
        if len(own) > _MAX_CALLS:
            del own[0]
    return None


def _same(one: Call, two: Call, two_is_auto: bool) -> bool:
    if one.ids and two.ids:
        return _share(one.ids, two.ids)
    seen, reported = (two, one) if two_is_auto else (one, two)
    return (
        same_tokens(seen.counts, reported.counts)
        and abs(two.at - one.at) <= _SAME_CALL_S
        and _same_model(one, two)
    )


def _share(one: tuple[str, ...], two: tuple[str, ...]) -> bool:
    for each in two:  # noqa: SIM110 - a generator costs more than the whole comparison
        if each in one:
            return True
    return False


def same_tokens(seen: Counts, reported: Counts) -> bool:
    """Whether a report means the tokens that were seen."""
    if seen == reported:
        return None not in seen
    if None in seen or None in reported or seen[1] != reported[1]:
        return False
    # Whoever reports by hand often leaves out what was cached, or takes it for a part of the input.
    prompt = sum(count or 0 for count in seen) - (seen[1] or 0)
    return reported[0] in (seen[0], prompt) and (reported[2:] == seen[2:] or not any(reported[2:]))


def _same_model(one: Call, two: Call) -> bool:
    if one.model == two.model or _bare(one.model) == _bare(two.model):
        return True
    from agentops_monitoring import pricing

    # A name of the account's own, which its prices say the meaning of.
    region = one.region or two.region
    found = pricing.resolve(one.model, region=region)
    return found is not None and found == pricing.resolve(two.model, region=region)


def _bare(model: str) -> str:
    """Return what is left of a name without where it runs, whose it is and of what date.

    "claude-3-opus" is what an agent calls what it asks Bedrock for as
    "us.anthropic.claude-3-opus-20240229-v1:0".
    """
    name = model.strip().lower().rpartition("/")[2].partition(":")[0]
    while name.partition(".")[0].replace("-", "").isalpha() and "." in name:
        name = name.partition(".")[2]
    words = name.replace("@", "-").replace(".", "-").split("-")
    if len(words[-1]) == 2 and words[-1].startswith("v"):
        words.pop()
    if words[-1] == "latest" or (len(words[-1]) == 8 and words[-1].isdigit()):
        words.pop()
    elif [len(word) for word in words[-3:]] == [4, 2, 2] and "".join(words[-3:]).isdigit():
        del words[-3:]
    return "-".join(words)

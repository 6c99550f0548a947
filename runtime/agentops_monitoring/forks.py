"""What a fork has to know of: locks, ids and connections that parent and child must not share."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def at_fork(
    *,
    before: Callable[[], object] | None = None,
    after_in_parent: Callable[[], object] | None = None,
    after_in_child: Callable[[], object] | None = None,
) -> None:
    """Call back around each fork from now on; nothing to do where processes don't fork, as on Windows."""
    register = getattr(os, "register_at_fork", None)
    if register is not None:
        given = {"before": before, "after_in_parent": after_in_parent, "after_in_child": after_in_child}
        register(**{when: call for when, call in given.items() if call is not None})

"""Records what an agent's AWS clients do, through botocore's public hooks and without importing botocore."""

from __future__ import annotations

import sys
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING

from agentops_monitoring.instrument import importhook
from agentops_monitoring.transport import say

if TYPE_CHECKING:
    from agentops_monitoring.monitor import AgentOpsMonitor

_installed = False
_monitor: AgentOpsMonitor | None = None


def install() -> None:
    """Hook every botocore session from now on, whether botocore is imported yet or not. Idempotent."""
    global _installed
    if _installed:
        return
    _installed = True
    botocore = sys.modules.get("botocore")
    if botocore is None:
        importhook.when_imported("botocore", _hook)
    else:
        try:
            _hook(botocore)
        except Exception as error:  # noqa: BLE001 - the agent must start
            say(f"botocore is not instrumented: {type(error).__name__}")


def uninstall() -> None:
    """Undo `install`: sessions made from now on are left alone, those hooked already record nothing more."""
    global _installed, _monitor
    _installed, _monitor = False, None
    importhook.cancel("botocore")
    botocore = sys.modules.get("botocore")
    if botocore is None:
        return
    from agentops_monitoring.instrument import clients

    with suppress(AttributeError, ValueError):  # never registered
        botocore.unregister_initializer(clients.attach_to_session)


def active() -> bool:
    """Whether the hooks are to record."""
    return _installed


def monitor() -> AgentOpsMonitor:
    """Return the monitor that records what was seen without the agent's code."""
    global _monitor
    if _monitor is None:
        from agentops_monitoring.monitor import AgentOpsMonitor

        _monitor = AgentOpsMonitor()
    return _monitor


def _hook(botocore: ModuleType) -> None:
    if not _installed:
        return
    register = getattr(botocore, "register_initializer", None)
    if register is None:
        say("this botocore has no register_initializer, its calls are not recorded")
        return
    from agentops_monitoring.instrument import clients

    register(clients.attach_to_session)
    boto3 = sys.modules.get("boto3")
    session = getattr(boto3, "DEFAULT_SESSION", None)
    if session is not None:
        clients.attach_to_session(session._session)

"""Records what an agent does through the clients of AWS and of its models, without importing any of them."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module

from agentops_monitoring.instrument import importhook
from agentops_monitoring.transport import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from agentops_monitoring.enforcement.guard import Guard
    from agentops_monitoring.monitor import AgentOpsMonitor

guard: Guard | None = None
"""What enforces the agent's budget, where it has one."""
_installed = False
_monitor: AgentOpsMonitor | None = None
_undo: dict[str, Callable[[], None]] = {}


def install() -> None:
    """Hook botocore's sessions and the SDKs of models, whether imported yet or not. Idempotent.

    Raises
    ------
    ValueError
        The environment names a budget that makes no sense.
    ModuleNotFoundError
        It names one, and the bundle cannot enforce it.
    """
    global _installed, guard
    if _installed:
        return
    if os.environ.get("AGENTOPS_BUDGET"):
        from agentops_monitoring.enforcement.guard import from_environment

        guard = from_environment()
    _installed = True
    for name, hook in _HOOKS.items():
        if name not in sys.modules:
            importhook.when_imported(name, hook)
        else:
            try:
                hook(import_module(name))  # which waits for another thread that is still at it
            except Exception as error:  # noqa: BLE001 - the agent must start
                importhook.not_hooked(name, error)


def uninstall() -> None:
    """Undo `install`: what it hooked is as it was, or records nothing more where it is hooked for good."""
    global _installed, _monitor, guard
    _installed, _monitor, guard = False, None, None
    for name in _HOOKS:
        importhook.cancel(name)
    for name in list(_undo):
        with suppress(Exception):
            _undo.pop(name)()


def active() -> bool:
    """Whether the hooks are to record."""
    return _installed


def monitor() -> AgentOpsMonitor:
    """Return the monitor that records what is seen without the agent's code: that of the invocation."""
    global _monitor
    from agentops_monitoring import invocation, trace

    current = invocation.of_context(trace.current())
    if current is not None:
        return current.monitor
    if _monitor is None:
        from agentops_monitoring.monitor import AgentOpsMonitor

        try:
            _monitor = AgentOpsMonitor()
        except ValueError:  # in strict mode: for the agent's own monitor to say, not for its calls
            from agentops_monitoring import arguments, settings

            _monitor = AgentOpsMonitor(arguments.agent_name(settings.load().agent_name))
    return _monitor


def _hook_botocore(botocore: ModuleType) -> None:
    register = getattr(botocore, "register_initializer", None)
    if register is None:
        say("this botocore has no register_initializer, its calls are not recorded")
        return
    from agentops_monitoring.instrument import clients

    register(clients.attach_to_session)
    _undo["botocore"] = lambda: botocore.unregister_initializer(clients.attach_to_session)
    boto3 = sys.modules.get("boto3")
    session = getattr(boto3, "DEFAULT_SESSION", None)
    if session is not None:
        clients.attach_to_session(session._session)


def _hook_sdk(base_client: ModuleType) -> None:
    name = base_client.__name__.partition(".")[0]
    ours = import_module(f"agentops_monitoring.instrument.{name}")
    _undo[name] = ours.patch(base_client)


_HOOKS = {
    "botocore": _hook_botocore,
    "anthropic._base_client": _hook_sdk,
    "openai._base_client": _hook_sdk,
}

"""Calls back once a module has been imported, without importing it."""

from __future__ import annotations

import sys

from agentops_monitoring.transport import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_callbacks: dict[str, Callable[[ModuleType], None]] = {}


def when_imported(name: str, callback: Callable[[ModuleType], None]) -> None:
    """Call back with the module when it is imported the first time."""
    _callbacks[name] = callback
    if not any(finder is _FINDER for finder in sys.meta_path):
        sys.meta_path.insert(0, _FINDER)


def cancel(name: str) -> None:
    """Forget a callback."""
    _callbacks.pop(name, None)
    _remove_when_idle()


def not_hooked(name: str, error: Exception) -> None:
    """Say that a module is left alone."""
    say(f"{name.partition('.')[0]} is not instrumented: {type(error).__name__}")


def _remove_when_idle() -> None:
    if not _callbacks and _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)


class _Finder:
    """Lets the other finders find the module, and puts a loader in between that calls back."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _callbacks:
            return None
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(name, path, target) if find else None
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


_FINDER: Any = _Finder()


class _Loader:
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The original loader back in place first: resource readers look at it.
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        callback = _callbacks.pop(module.__name__, None)
        _remove_when_idle()
        if callback is not None:
            try:
                callback(module)
            except Exception as error:  # noqa: BLE001 - the agent's import must succeed
                not_hooked(module.__name__, error)

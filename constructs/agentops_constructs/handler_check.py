"""Whether the code that an agent is given holds its handler, told from the files alone."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from .bundling import MONITOR, AgentSource, agent_bundle

# What can give a module a name that its text does not hold.
_DYNAMIC = re.compile(
    r"import\s*\(?\s*\*|\b(__getattr__|globals|locals|vars|exec|eval|setattr|__dict__|modules|import_module)\b"
)
_DEFINED = re.compile(r"^(?:(?:async\s+)?def|class)\s+(\w+)|^(\w+)\s*(?::[^=\n]+)?=(?!=)", re.MULTILINE)


def check_handler(agent: str, source: AgentSource, handler: str) -> None:
    """Check that the agent's folder holds the module of its handler; nothing is imported.

    Parameters
    ----------
    agent
        For the message.
    source
        The agent's code.
    handler
        As Lambda takes it: `module.function`, `package.module.function` or `folder/file.function`.

    Raises
    ------
    ValueError
        There is no such file in the folder, or nothing in it could be the function.
    """
    module, _, function = handler.rpartition(".")
    module = module.replace("/", ".")
    if not module or not function:
        raise ValueError(f"agent {agent!r}: handler {handler!r}: expected module.function")
    if module.split(".")[0] == MONITOR:
        return
    files = _modules(source)
    if module not in files:
        raise ValueError(
            f"agent {agent!r}: handler {handler!r}: {_missing(source, module)}"
            + _did_you_mean(f"{near}.{function}" for near in _near(module, files))
        )
    file = files[module]
    if file.suffix != ".py":
        return
    text = file.read_text(encoding="utf-8", errors="replace")
    if not re.search(rf"\b{re.escape(function)}\b", text) and not _DYNAMIC.search(text):
        defined = {name for pair in _DEFINED.findall(text) for name in pair if name}
        near = difflib.get_close_matches(function, sorted(defined))
        raise ValueError(
            f"agent {agent!r}: handler {handler!r}: {file} has no {function!r}"
            + _did_you_mean(f"{module}.{name}" for name in near)
        )


def _modules(source: AgentSource) -> dict[str, Path]:
    """Return the folder's files by the names under which Lambda can import them."""
    found: dict[str, Path] = {}
    for place, path in agent_bundle(source).files():
        # Compiled modules have the platform in their names: fast.cpython-313-aarch64-linux-gnu.so
        name, _, ending = place.name.partition(".")
        if ending == "py" or ending.endswith("so"):
            parts = (*place.parent.parts, name)
            found[".".join(parts[:-1] if name == "__init__" and len(parts) > 1 else parts)] = path
    return {name: path for name, path in found.items() if name.split(".")[0] != MONITOR}


def _missing(source: AgentSource, module: str) -> str:
    package = PurePosixPath(source.package).parts
    parts = tuple(module.split("."))
    if parts[: len(package)] != package:
        return f"{source.path} is bundled as the package {source.package!r}, which is not in it"
    file = "/".join(parts[len(package) :] or ("__init__",)) + ".py"
    return f"there is no {file} in {source.path}"


def _near(module: str, known: Iterable[str]) -> list[str]:
    names = sorted(known)
    last = module.rpartition(".")[2]
    elsewhere = [name for name in names if name.rpartition(".")[2] == last]
    return list(dict.fromkeys([*elsewhere, *difflib.get_close_matches(module, names)]))[:3]


def _did_you_mean(near: Iterable[str]) -> str:
    names = " or ".join(near)
    return f"; did you mean {names}?" if names else ""

"""How the SDKs of models are patched: once, in any order of imports, and so that it can be undone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import anthropic._base_client
import openai._base_client
import pytest

from agentops_monitoring import instrument
from agentops_monitoring.instrument import stainless
from tests.fakes.anthropic_api import AnthropicApi
from tests.fakes.openai_api import OpenaiApi

RUNTIME = Path(__file__).parents[3] / "runtime"
MODULES = {"anthropic": anthropic._base_client, "openai": openai._base_client}


def methods(module: ModuleType) -> list[object]:
    kinds = (module.SyncAPIClient, module.AsyncAPIClient)
    return [kind.__dict__[name] for kind in kinds for name in ("request", "_process_response")]


@pytest.mark.parametrize("name", MODULES)
def test_patches_come_off_and_go_on_once(name: str) -> None:
    instrument.uninstall()
    original = methods(MODULES[name])
    for _ in range(2):
        instrument.install()
        patched = methods(MODULES[name])
        assert all(new is not old for new, old in zip(patched, original, strict=True))
        instrument.install()
        assert methods(MODULES[name]) == patched
        instrument.uninstall()
        assert all(now is old for now, old in zip(methods(MODULES[name]), original, strict=True))


class _Known:
    def request(self, cast_to: Any, options: Any) -> None: ...

    def _process_response(self, *, response: Any) -> None: ...


class _Renamed:
    def request(self, kind: Any, options: Any) -> None: ...

    def _process_response(self, *, response: Any) -> None: ...


class _Without:
    def request(self, cast_to: Any, options: Any) -> None: ...


@pytest.mark.parametrize(
    ("sync", "asynchronous"),
    [(_Known, _Renamed), (_Without, _Known), (_Known, None), (None, None), (_Known, SimpleNamespace)],
)
def test_a_version_that_is_not_known_is_left_alone_and_said_once(
    sync: Any, asynchronous: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    module: Any = ModuleType("openai._base_client")
    before = {kind: dict(kind.__dict__) for kind in (sync, asynchronous) if kind}
    for name, kind in (("SyncAPIClient", sync), ("AsyncAPIClient", asynchronous)):
        if kind:
            setattr(module, name, kind)
    stainless.patch(module, lambda client, options: None)()
    assert capsys.readouterr().err.splitlines() == [
        "agentops_monitoring: this version of openai is not known to the monitor, its calls are not recorded"
    ]
    assert {kind: dict(kind.__dict__) for kind in before} == before


def run(code: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONPATH": str(RUNTIME), "AGENTOPS_TRANSPORT": "stdout"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return answer.stdout


INSTALL = "from agentops_monitoring import instrument; instrument.install()"
IMPORT = "from anthropic import Anthropic; from openai import OpenAI"
IN_THREADS = """
import importlib, threading
names = ["anthropic", "openai"] * 3
threads = [threading.Thread(target=importlib.import_module, args=(name,)) for name in names]
for each in threads: each.start()
for each in threads: each.join()
"""
CLIENTS = "clients = Anthropic(api_key='k', base_url={}), OpenAI(api_key='k', base_url={})"
CALLS = """
asked = [{'role': 'user', 'content': 'x'}]
clients[0].messages.create(model='claude-haiku-4-5', max_tokens=9, messages=asked)
clients[1].chat.completions.create(model='gpt-4o-mini', messages=asked)
"""
ORDERS = {
    "before": [INSTALL, IMPORT, CLIENTS],
    "after": [IMPORT, CLIENTS, INSTALL],
    "twice": [INSTALL, IMPORT, INSTALL, "instrument.uninstall()", INSTALL, CLIENTS],
    "in threads": [INSTALL, IN_THREADS, IMPORT, CLIENTS],
}


@pytest.mark.parametrize("order", ORDERS)
def test_each_order_of_imports_counts_once(order: str, full_size: bool) -> None:
    if order != "before" and not full_size:  # an SDK that is imported already is what all the others patch
        pytest.skip("at full size: a process each, which imports both SDKs")
    with AnthropicApi() as one, OpenaiApi() as two:
        clients = CLIENTS.format(repr(one.url), repr(f"{two.url}/v1"))
        lines = [clients if line is CLIENTS else line for line in ORDERS[order]]
        written = run("\n".join([*lines, CALLS]))
    assert written.count("agentops.event") == len(one.served) + len(two.served) == 2
    assert written.count("claude-haiku-4-5") == written.count("gpt-4o-mini") == 1


def test_hooks_load_nothing_that_the_agent_does_not_use() -> None:
    loaded = run(
        "import sys; from agentops_monitoring import instrument; instrument.install()\n"
        "import http.client, email, uuid, wsgiref\n"
        "print(*sorted(sys.modules)); instrument.uninstall()\n"
        "print(any(type(each).__module__.startswith('agentops') for each in sys.meta_path))"
    )
    modules, left = loaded.splitlines()
    assert left == "False"
    ours = {name for name in modules.split() if name.startswith("agentops_monitoring.instrument")}
    assert ours == {"agentops_monitoring.instrument", "agentops_monitoring.instrument.importhook"}
    assert not {"openai", "anthropic", "httpx", "httpx2", "botocore"} & set(modules.split())

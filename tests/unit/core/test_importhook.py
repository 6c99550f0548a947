"""Hooks on modules that others import, as a function's process has them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import botocore
import pytest

from agentops_monitoring import instrument
from agentops_monitoring.instrument import clients, importhook

NAME = "hooked_module_fn"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / f"{NAME}.py"
    path.write_text("VALUE = 7\n")
    finders = list(sys.meta_path)
    yield path
    importhook.cancel(NAME)
    sys.modules.pop(NAME, None)
    assert sys.meta_path == finders


def test_a_module_calls_back_once_and_is_as_without_the_hook(module: Path) -> None:
    finders, seen = list(sys.meta_path), []
    importhook.when_imported(NAME, lambda module: seen.append(module.VALUE))
    found = importlib.import_module(NAME)
    assert seen == [7]
    # pkgutil, zipapps and coverage look at the loader's type.
    assert type(found.__loader__) is SourceFileLoader
    assert found.__spec__ is not None
    assert found.__spec__.loader is found.__loader__
    assert sys.meta_path == finders
    del sys.modules[NAME]
    importlib.import_module(NAME)
    assert seen == [7]


def test_an_import_succeeds_whatever_its_hook_does(module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(module: ModuleType) -> None:
        raise AttributeError("another version")

    importhook.when_imported(NAME, fail)
    assert importlib.import_module(NAME).VALUE == 7
    assert capsys.readouterr().err.count(f"{NAME} is not instrumented: AttributeError") == 1


def test_a_module_that_fails_at_first_calls_back_when_it_can_be_imported(module: Path) -> None:
    seen: list[str] = []
    importhook.when_imported(NAME, lambda module: seen.append(module.VALUE))
    module.write_text("raise KeyError('TABLE')")
    with pytest.raises(KeyError, match="TABLE"):
        importlib.import_module(NAME)
    module.write_text("VALUE = 'at last'\n")
    importlib.invalidate_caches()
    importlib.import_module(NAME)
    assert seen == ["at last"]


def test_uninstalling_leaves_botocore_as_it_was() -> None:
    was_active = instrument.active()
    instrument.uninstall()
    before = list(botocore._INITIALIZERS)  # type: ignore[attr-defined]
    instrument.install()
    assert clients.attach_to_session in botocore._INITIALIZERS  # type: ignore[attr-defined]
    instrument.uninstall()
    assert before == botocore._INITIALIZERS  # type: ignore[attr-defined]
    assert clients.attach_to_session not in before
    if was_active:
        instrument.install()

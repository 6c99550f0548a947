"""The corpus is whole: each fact has a probe, a source that says so, and something that rests on it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.contract.services.__main__ import page
from tests.contract.services.probes import FOLDER, Fact, documentation, facts

MODULES = sorted(path.stem for path in FOLDER.glob("test_*.py") if path.stem != "test_corpus")
FACTS = [fact for module in MODULES for fact in facts(module).values()]


@pytest.mark.parametrize("module", MODULES)
def test_each_probe_has_its_fact_and_each_fact_its_probe(module: str) -> None:
    probes = re.findall(r"^def (test_\w+)", (FOLDER / f"{module}.py").read_text(), re.MULTILINE)
    assert sorted(probes) == sorted(facts(module))


def test_no_fact_is_without_a_module() -> None:
    assert sorted(path.stem for path in (FOLDER / "facts").glob("*.toml")) == [
        module.removeprefix("test_") for module in MODULES
    ]


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_a_fact_names_its_source_and_what_rests_on_it(fact: Fact, root: Path) -> None:
    assert fact.source
    assert (root / fact.rests.partition(":")[0]).is_file(), fact.rests
    assert set(fact.deviates) <= {"local", "moto"}
    told = ""
    for source in fact.source:
        if source.startswith("botocore: "):
            service, _, operation = source.removeprefix("botocore: ").partition(".")
            told += documentation(service, operation)
        else:
            assert re.search(r": https://\S+$", source), source
    missing = [figure for figure in fact.figures if figure not in told]
    assert not missing, f"botocore's documentation does not say {missing}"
    assert bool(told) == bool(fact.figures)


def test_the_page_of_the_documentation_is_this_corpus(root: Path) -> None:
    assert (root / "docs" / "contract.md").read_text() == page(), "run `make docs`"

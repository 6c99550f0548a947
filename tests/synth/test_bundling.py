"""Function code without Docker: complete, deterministic, made once."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from aws_cdk import App, Stack
from aws_cdk import aws_lambda as lambda_

from agentops_constructs import AgentSource, bundling
from agentops_constructs.bundling import Bundle, BundlingError

# The machine in an ELF header: https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html
ELF_AARCH64 = 183
HANDLER = "def handler(event, context):\n    return {'doubled': 2 * event['n']}\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "inner").mkdir(parents=True)
    (folder / "app.py").write_text(HANDLER)
    (folder / "inner" / "data.json").write_text("{}")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "app.cpython-311.pyc").write_bytes(b"stale")
    return folder


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A package as an index would serve it, in a file: nothing here asks the network."""
    path = tmp_path / "wheels" / "tiny_helper-1.0-py3-none-any.whl"
    path.parent.mkdir()
    info = "tiny_helper-1.0.dist-info"
    files = {
        "tiny_helper.py": "ANSWER = 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny-helper\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ntiny = tiny_helper:main\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in files))
    return path


def content(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mode & 0o777,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(folder: Path, code: str, environment: Mapping[str, str]) -> str:
    """Run code that can import the standard library and the bundle, and nothing else of ours."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_an_agent_s_bundle_runs_its_handler_behind_the_wrapper(source: Path, tmp_path: Path) -> None:
    folder = bundling.agent_bundle(AgentSource(source, package="team")).build(tmp_path / "cache")

    printed = run(
        folder,
        "from agentops_monitoring.wrapper import handler\n"
        "class Context: aws_request_id = '11111111-2222-3333-4444-555555555555'\n"
        "print(handler({'n': 21}, Context())['doubled'])",
        {
            "AGENTOPS_HANDLER": "team.app.handler",
            "AGENTOPS_AGENT_NAME": "doubler",
            "AGENTOPS_TRANSPORT": "stdout",
            "AWS_LAMBDA_FUNCTION_NAME": "doubler",
            "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/22/[$LATEST]0123456789abcdef",
        },
    ).splitlines()

    assert "42" in printed
    events = [json.loads(line)["agentops.event"]["type"] for line in printed if line.startswith("{")]
    assert events == ["invocation_started", "invocation_completed"]


def test_an_agent_carries_nothing_of_the_plane(source: Path, tmp_path: Path) -> None:
    folder = bundling.agent_bundle(AgentSource(source)).build(tmp_path / "cache")

    monitor = folder / "agentops_monitoring"
    held = {path.relative_to(monitor).as_posix() for path in monitor.rglob("*")}
    assert not held & bundling.PLANE_ONLY
    assert {"wrapper.py", "monitor.py", "pricing"} <= held
    assert (folder / "app.py").read_text() == HANDLER
    assert not list(folder.rglob("*.pyc"))


def test_a_layer_is_laid_out_as_lambda_wants_it(tmp_path: Path) -> None:
    folder = bundling.layer_bundle().build(tmp_path / "cache")

    assert (folder / "python" / "agentops_monitoring" / "wrapper.py").is_file()


def test_the_plane_s_bundle_has_every_function(tmp_path: Path) -> None:
    folder = bundling.plane_bundle().build(tmp_path / "cache")

    functions = {path.stem for path in (folder / "agentops_monitoring" / "functions").glob("*.py")}
    assert {"ingest", "gauges", "analyze", "widgets"} <= functions


def test_equal_inputs_give_equal_bytes(source: Path, wheel: Path, tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text(f"tiny-helper @ {wheel.as_uri()}\n")
    bundle = Bundle("twice", {".": source}, requirements=pins, for_host=True)

    previous = os.umask(0o077)
    try:
        first = bundle.build(tmp_path / "first")
    finally:
        os.umask(previous)
    second = bundle.build(tmp_path / "second")

    assert content(first) == content(second)
    assert (first / "tiny_helper.py").is_file()
    assert not {path.name for path in first.rglob("*")} & {"RECORD", "INSTALLER", "bin", "__pycache__"}


def test_what_has_not_changed_is_not_installed_again(source: Path, wheel: Path, tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text(f"tiny-helper @ {wheel.as_uri()}\n")
    bundle = Bundle("cached", {".": source}, requirements=pins, for_host=True)
    folder = bundle.build(tmp_path / "cache")
    wheel.unlink()

    assert bundle.build(tmp_path / "cache") == folder


def test_a_change_of_the_sources_installs_nothing(source: Path, wheel: Path, tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text(f"tiny-helper @ {wheel.as_uri()}\n")
    bundle = Bundle("edited", {".": source}, requirements=pins, for_host=True)
    before = bundle.build(tmp_path / "cache")
    wheel.unlink()
    (source / "app.py").write_text(HANDLER + "\n")

    after = bundle.build(tmp_path / "cache")

    assert after != before
    assert (after / "tiny_helper.py").is_file()


def test_the_source_s_own_files_stay_whatever_they_are_called(source: Path, tmp_path: Path) -> None:
    (source / "bin").mkdir()
    (source / "bin" / "RECORD").touch()

    folder = bundling.agent_bundle(AgentSource(source)).build(tmp_path / "cache")

    assert (folder / "bin" / "RECORD").is_file()


def test_the_hash_covers_every_input(source: Path, tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text("tiny-helper==1.0\n")
    bundle = Bundle("hashed", {".": source}, requirements=pins)
    seen = [
        bundle.digest(),
        replace(bundle, architecture="x86_64").digest(),
        replace(bundle, for_host=True).digest(),
        replace(bundle, trees={"elsewhere": source}).digest(),
        replace(bundle, exclude={".": frozenset({"inner"})}).digest(),
    ]
    pins.write_text("tiny-helper==1.1\n")
    seen.append(bundle.digest())
    (source / "app.py").write_text(HANDLER + "\n")
    seen.append(bundle.digest())
    (source / "inner" / "data.json").rename(source / "inner" / "other.json")
    seen.append(bundle.digest())

    assert len(set(seen)) == len(seen)


def test_the_hash_ignores_caches_and_times(source: Path) -> None:
    bundle = Bundle("quiet", {".": source})
    before = bundle.digest()
    os.utime(source / "app.py", (1, 1))
    (source / "__pycache__" / "app.cpython-311.pyc").write_bytes(b"other")

    assert bundle.digest() == before


@pytest.mark.slow
def test_the_export_bundle_is_built_for_lambda_s_platform(tmp_path: Path) -> None:
    try:
        folder = bundling.export_bundle(for_host=False).build(tmp_path / "cache")
    except BundlingError as error:
        pytest.skip(f"no package index: {error}")

    libraries = list(folder.rglob("*.so"))
    assert libraries
    for library in libraries:
        assert int.from_bytes(library.read_bytes()[18:20], "little") == ELF_AARCH64, library.name
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 100_000_000


def test_a_package_that_can_t_be_installed_is_one_line(source: Path, tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text(f"tiny-helper @ {(tmp_path / 'no.whl').as_uri()}\n")

    with pytest.raises(BundlingError, match=r"pins\.txt") as caught:
        Bundle("broken", {".": source}, requirements=pins, for_host=True).build(tmp_path / "cache")

    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == [], "nothing half made is left"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        bundling.agent_bundle(AgentSource(tmp_path / "nowhere"))


def test_the_export_function_s_packages_are_pinned_exactly() -> None:
    pins = [
        line for line in bundling.EXPORT_REQUIREMENTS.read_text().splitlines() if not line.startswith("#")
    ]

    assert all(line.count("==") == 1 for line in pins)
    versions = dict(line.split("==") for line in pins)
    assert versions["agentops"] == "0.4.21"
    major, minor = versions["opentelemetry-exporter-otlp-proto-http"].split(".")[:2]
    assert (int(major), int(minor)) < (1, 45)


def test_a_stack_that_is_not_bundled_does_not_empty_one_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `cdk deploy --exclusively Deployed` bundles for that stack alone.
    monkeypatch.setenv("AGENTOPS_BUNDLE_CACHE", str(tmp_path / "cache"))
    context = {"aws:cdk:bundling-stacks": ["Deployed"]}
    app = App(outdir=str(tmp_path / "out"), context=context, analytics_reporting=False)
    for name in ("Other", "Deployed"):
        stack = Stack(app, name)
        lambda_.LayerVersion(stack, "Layer", code=bundling.code(stack, bundling.layer_bundle()))
    assembly = app.synth()

    template = json.loads(Path(assembly.get_stack_by_name("Deployed").template_full_path).read_text())
    (layer,) = [each for each in template["Resources"].values() if each["Type"].endswith("LayerVersion")]
    asset = layer["Properties"]["Content"]["S3Key"].removesuffix(".zip")
    assert (tmp_path / "out" / f"asset.{asset}" / "python" / "agentops_monitoring" / "wrapper.py").is_file()

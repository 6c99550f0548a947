"""Function code without Docker: sources and pinned wheels, copied to a folder that is named by what is in it.

A folder whose inputs have not changed is used again, so a second synth installs nothing. Equal inputs give
equal bytes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from aws_cdk import Stack
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

# The newest that the AgentOps SDK 0.4.21 declares.
PYTHON = "3.13"
RUNTIME = lambda_.Runtime.PYTHON_3_13
EXPORT_REQUIREMENTS = Path(__file__).with_name("export-requirements.txt")
MONITOR = "agentops_monitoring"
ENFORCEMENT = "enforcement"
# What only the plane's functions run, or nothing that is deployed; an agent's cold start should not carry it.
# Nor the direct way to the ledger, which leads there with the plane's modules only.
PLANE_ONLY = frozenset(
    {
        *("analysis", "cli", "control", "export", "functions", "ledger", "notify", "testing", "views"),
        ENFORCEMENT,  # but for agents with a budget
        *("__main__.py", "catalogue.py", "direct.py", "emf.py", "outbox.py", "spill.py"),
        "pricing/compute.py",  # an agent cannot know what its function costs
    }
)
# An eighth of its size, and read as it is.
PRICE_BOOK = "pricing/book.json"
_PLATFORMS = {
    "arm64": ("manylinux2014_aarch64", "manylinux_2_28_aarch64"),
    "x86_64": ("manylinux2014_x86_64", "manylinux_2_28_x86_64"),
}
_IGNORED_FOLDERS = frozenset({"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".git", ".venv"})
_IGNORED_SUFFIXES = frozenset({".pyc", ".pyo"})
# What an installer writes about itself, or with paths and times of this machine.
_INSTALLER_FILES = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", ".lock"})


class BundlingError(RuntimeError):
    """The packages of a function can't be installed; the message says which and why in one line."""


@dataclass(frozen=True, slots=True)
class AgentSource:
    """The folder that holds an agent's code; the monitor is bundled into its asset.

    Parameters
    ----------
    path
        The folder.
    package
        The import name under which the folder's content is bundled; at the asset's root by default.
    """

    path: Path
    package: str = ""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What goes into one asset.

    Parameters
    ----------
    name
        For people who look into the cache.
    trees
        Folders by their place in the asset.
    exclude
        Files, and folders directly under a tree's root, that stay out, by the tree's place.
    compress
        Places of files that are compressed by zlib: their readers see it.
    requirements
        A file of exact pins, installed without resolving; none by default.
    architecture
        `arm64` or `x86_64`: the platform that wheels are taken for.
    for_host
        Take wheels for this machine and this Python instead: the embedded AWS runs functions on them.
    """

    name: str
    trees: Mapping[str, Path]
    exclude: Mapping[str, frozenset[str]] = field(default_factory=dict)
    compress: frozenset[str] = frozenset()
    requirements: Path | None = None
    architecture: str = "arm64"
    for_host: bool = False

    def digest(self) -> str:
        """Return the hash over every input: sources, pins, platform, Python and this bundler."""
        seen = self._packages_digest()
        for place, tree in sorted(self.trees.items()):
            for relative, path in self._files(place, tree):
                seen.update(f"\0{place}/{relative.as_posix()}\0".encode())
                seen.update(path.read_bytes())
        return seen.hexdigest()

    def files(self) -> Iterator[tuple[PurePosixPath, Path]]:
        """Yield each source file's place in the asset, and the file; packages are not among them."""
        for place, tree in sorted(self.trees.items()):
            for relative, path in self._files(place, tree):
                yield PurePosixPath(place, relative.as_posix()), path

    def build(self, cache: Path, digest: str | None = None) -> Path:
        """Return the folder with the asset's content, made now or found in the cache."""

        def fill(folder: Path) -> None:
            if self.requirements:
                shutil.copytree(self._packages(cache), folder, copy_function=os.link, dirs_exist_ok=True)
            for place, tree in self.trees.items():
                for relative, path in self._files(place, tree):
                    target = folder / place / relative
                    target.parent.mkdir(parents=True, exist_ok=True)
                    if PurePosixPath(place, relative.as_posix()).as_posix() in self.compress:
                        target.write_bytes(zlib.compress(path.read_bytes(), 9))
                    else:
                        shutil.copyfile(path, target)

        return _once(cache / f"{self.name}-{(digest or self.digest())[:16]}", fill)

    def _packages(self, cache: Path) -> Path:
        # Apart from the sources, which change far more often.
        requirements = self.requirements
        assert requirements is not None

        def fill(folder: Path) -> None:
            _install(requirements, folder, self._target())
            _strip(folder)

        return _once(cache / f"packages-{self._packages_digest().hexdigest()[:16]}", fill)

    def _packages_digest(self) -> hashlib._Hash:
        seen = hashlib.sha256(Path(__file__).read_bytes())
        if self.requirements:
            seen.update(self.requirements.read_bytes())
            seen.update("\0".join([*self._target(), sysconfig.get_platform() * self.for_host]).encode())
        return seen

    def _files(self, place: str, tree: Path) -> Iterator[tuple[Path, Path]]:
        excluded = self.exclude.get(place, frozenset())
        for path in sorted(tree.rglob("*")):
            relative = path.relative_to(tree)
            if (
                path.is_file()
                and excluded.isdisjoint((relative.parts[0], relative.as_posix()))
                and not _IGNORED_FOLDERS.intersection(relative.parts)
                and path.suffix not in _IGNORED_SUFFIXES
            ):
                yield relative, path

    def _target(self) -> list[str]:
        if self.for_host:
            return [f"--python-version={sys.version_info.major}.{sys.version_info.minor}"]
        platforms = [f"--platform={each}" for each in _PLATFORMS[self.architecture]]
        return [*platforms, f"--python-version={PYTHON}", "--implementation=cp"]


def monitor_source() -> Path:
    """Return the folder of the runtime library, from the repository or from an installed wheel.

    Raises
    ------
    ModuleNotFoundError
        It is not on the path.
    """
    spec = importlib.util.find_spec(MONITOR)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{MONITOR} is not on the path", name=MONITOR)
    return Path(spec.submodule_search_locations[0])


def agent_bundle(source: AgentSource, *, budget: bool = False) -> Bundle:
    """Return an agent's code with the part of the monitor that an agent runs; more of it with a budget."""
    if not source.path.is_dir():
        raise ValueError(f"the agent's code is not a folder: {source.path}")
    return Bundle(
        name=f"agent-{source.package or source.path.name}",
        trees={source.package or ".": source.path, MONITOR: monitor_source()},
        exclude={MONITOR: _left_out(budget)},
        compress=frozenset({f"{MONITOR}/{PRICE_BOOK}"}),
    )


def layer_bundle(*, budget: bool = False) -> Bundle:
    """Return the part of the monitor that an agent runs, laid out as a layer."""
    place = f"python/{MONITOR}"
    return Bundle(
        name="layer",
        trees={place: monitor_source()},
        exclude={place: _left_out(budget)},
        compress=frozenset({f"{place}/{PRICE_BOOK}"}),
    )


def _left_out(budget: bool) -> frozenset[str]:
    return PLANE_ONLY - {ENFORCEMENT} if budget else PLANE_ONLY


def plane_bundle() -> Bundle:
    """Return the code of the plane's functions, which need nothing but boto3."""
    return Bundle(name="plane", trees={MONITOR: monitor_source()})


def export_bundle(*, for_host: bool) -> Bundle:
    """Return the code of the export function with the AgentOps SDK."""
    return Bundle(
        name="export",
        trees={MONITOR: monitor_source()},
        requirements=EXPORT_REQUIREMENTS,
        for_host=for_host,
    )


def code(scope: Construct, bundle: Bundle) -> lambda_.Code:
    """Return a bundle as Lambda code; without content where the stack needs no bundling."""
    digest = bundle.digest()
    cache = cache_folder()
    if Stack.of(scope).bundling_required:
        folder = bundle.build(cache, digest)
    else:
        folder = cache / "empty"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "empty").touch()
        # Under the bundle's hash it would take the place of the real content in a stack that is deployed.
        digest = hashlib.sha256(f"not bundled: {digest}".encode()).hexdigest()
    return lambda_.Code.from_asset(str(folder), asset_hash=digest)


def cache_folder() -> Path:
    """Return where bundles are kept: `AGENTOPS_BUNDLE_CACHE`, or build/cache/bundles."""
    return Path(os.environ.get("AGENTOPS_BUNDLE_CACHE") or Path("build", "cache", "bundles")).resolve()


def for_host(scope: Construct) -> bool:
    """Return whether wheels are taken for this machine: context or environment variable `bundle_for=host`."""
    chosen = scope.node.try_get_context("bundle_for") or os.environ.get("BUNDLE_FOR") or "lambda"
    if chosen not in ("lambda", "host"):
        raise ValueError(f"bundle_for must be 'lambda' or 'host', not {chosen!r}")
    return bool(chosen == "host")


def _install(requirements: Path, target: Path, platform: Iterable[str]) -> None:
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
        "--no-deps", "--no-compile", "--only-binary=:all:", f"--target={target}",
        f"--requirement={requirements}", *platform,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise BundlingError(f"pip could not install {requirements.name} for the export function: {last}")


def _strip(packages: Path) -> None:
    """Remove what an installer leaves of itself, and of this machine."""
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for path in sorted(packages.rglob("*"), reverse=True):
        if path.is_dir() and path.name in _IGNORED_FOLDERS:
            shutil.rmtree(path)
        elif path.name in _INSTALLER_FILES:
            path.unlink()


def _once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Return a folder of the cache, filled now unless it is there; nobody ever sees it half full."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fill(scratch)
        for path in (scratch, *scratch.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        try:
            scratch.rename(folder)
        except OSError:
            # Another synth was first; equal inputs gave equal bytes.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder

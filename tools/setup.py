"""Set up everything that `make` needs, once: two virtual environments and the CDK CLI.

Runs on a bare Python 3.11+, so it imports the standard library alone and checks the version before
anything newer is evaluated (so annotations are strings here). Each part leaves a stamp with a hash of its
inputs; what is up to date is skipped.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MINIMUM = (3, 11)
ROOT = Path(__file__).resolve().parents[1]
STAMPS = ROOT / "build" / "setup"
# `make` puts .venv on the PATH, so this may run on the very environment that it is about to make anew.
BASE = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
PYTHON = str(BASE if BASE.exists() else sys.executable)
# What pip says first is often a consequence; these say the cause.
CAUSES = (
    "Failed to establish",
    "Connection refused",
    "Name or service not known",
    "CERTIFICATE_VERIFY",
    "No space",
)
ENVIRONMENTS = (
    (".venv", "requirements.txt", "the app and its tests"),
    (".venv-local", "local/requirements.txt", "the embedded AWS"),
    (".venv-bench", "benchmarks/requirements.txt", "the benchmarks' peers"),
    (".venv-agentops", "benchmarks/requirements-agentops.txt", "the AgentOps SDK, for the benchmarks"),
)


class SetupError(Exception):
    """Set-up can't go on; the message is one line that says what to do."""


def _digest(inputs: "Sequence[str]") -> str:
    digest = hashlib.sha256(sys.version.encode() + str(ROOT).encode())
    for path in inputs:
        digest.update((ROOT / path).read_bytes())
    return digest.hexdigest()


def _run(command: "Sequence[str]", step: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        log = STAMPS / "failed.log"
        log.write_text(done.stdout + done.stderr)
        raise SetupError(
            f"{step} failed: {_reason(done.stdout + done.stderr)} (whole output: {log.relative_to(ROOT)}; "
            "check the network and the package index, then run the same command again)"
        )


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    causes = [line[line.index(cause) :] for cause in CAUSES for line in lines if cause in line]
    errors = [line for line in lines if "ERROR" in line]
    return (causes or errors or lines[-1:] or ["no output"])[0][:200]


def _venv(folder: str, requirements: str) -> None:
    """Make a virtual environment and install into it; a half-made one is thrown away first."""
    shutil.rmtree(ROOT / folder, ignore_errors=True)
    _run([PYTHON, "-m", "venv", folder], f"creating {folder}")
    pip = [f"{folder}/bin/python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _run([*pip, "-r", requirements], f"installing {requirements}")


def _cli() -> None:
    # npm is a script for `node`, which the wheel puts beside it.
    os.environ["PATH"] = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    _run([".venv/bin/npm", "ci", "--loglevel=error"], "installing the CDK CLI")


def _ensure(name: str, shown: str, inputs: "Sequence[str]", proof: str, build: "Callable[[], None]") -> None:
    stamp, digest = STAMPS / name, _digest(inputs)
    if (ROOT / proof).exists() and stamp.exists() and stamp.read_text() == digest:
        return
    started = time.monotonic()
    print(f"  setting up {shown} …", flush=True)
    stamp.unlink(missing_ok=True)
    build()
    stamp.write_text(digest)
    print(f"  {shown} ready in {time.monotonic() - started:.0f} s", flush=True)


def _ensure_venv(folder: str, requirements: str, shown: str) -> None:
    inputs = [requirements]
    lock = requirements.replace(".txt", ".lock")
    if (ROOT / lock).exists():
        inputs.append(lock)
    _ensure(folder.lstrip("."), shown, inputs, f"{folder}/bin/python", lambda: _venv(folder, requirements))


def _lock() -> None:
    """Resolve both requirement files anew, without their locks, and write the locks."""
    for requirements in ("requirements.txt", "local/requirements.txt"):
        source = ROOT / requirements
        with tempfile.TemporaryDirectory() as folder:
            free = Path(folder) / "requirements.txt"
            free.write_text(source.read_text().replace("-c requirements.lock\n", ""))
            _run([PYTHON, "-m", "venv", f"{folder}/venv"], "creating a venv")
            pip = [f"{folder}/venv/bin/python", "-m", "pip", "--disable-pip-version-check"]
            _run([*pip, "install", "--quiet", "-r", str(free)], f"resolving {requirements}")
            frozen = subprocess.run([*pip, "freeze"], capture_output=True, text=True, check=True).stdout
        lock = source.with_suffix(".lock")
        lock.write_text(
            f"# Every version that {requirements} resolves to; regenerate with: make lock\n{frozen}"
        )
        print(f"  wrote {lock.relative_to(ROOT)}", flush=True)


def main() -> None:
    """Bring the virtual environments and the CDK CLI up to date; exits 1 with one line where it can't."""
    if sys.version_info < MINIMUM:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(
            f"setup: Python 3.11 or newer is needed, this is {found}: run make with PYTHON=/path/to/python3"
        )
    STAMPS.mkdir(parents=True, exist_ok=True)
    try:
        if "--lock" in sys.argv[1:]:
            _lock()
            return
        environments = ENVIRONMENTS[2:] if "--bench" in sys.argv[1:] else ENVIRONMENTS[:2]
        with ThreadPoolExecutor(2) as pool:
            for job in [pool.submit(_ensure_venv, *each) for each in environments]:
                job.result()
        _ensure("cli", "the CDK CLI", ("package-lock.json",), "node_modules/aws-cdk/bin/cdk", _cli)
    except SetupError as error:
        sys.exit(f"setup: {error}")
    except KeyboardInterrupt:
        sys.exit("setup: interrupted; run the same command again to go on")


if __name__ == "__main__":
    main()

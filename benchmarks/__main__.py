"""Run every case in a fresh interpreter, and print what each costs beside ours."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import footprint, report
from benchmarks.cases import OURS
from benchmarks.probe import CASES
from benchmarks.sink import Sink, running

ROOT = Path(__file__).resolve().parents[1]
SECONDS, QUICK_SECONDS = 1.5, 0.2
_STEPS = len(CASES) + len(footprint.PACKAGES) + 1
ABOUT = (
    "The best round of each, in an interpreter of its own, on awslambdaric's stdout (each write is flushed)\n"
    "over /dev/null. Requests are those that reached the loopback sink while the case ran. The ids of peers\n"
    "are constants. An SDK that exports from a thread drops what its queue can't hold, which costs it less.\n"
    "Import and memory are above a bare interpreter, the best of several; bundles are bytes on disk without\n"
    "boto3, which Lambda has. Lines go into the tables by CPU time, on botocore with all but the network.\n"
    "litellm's completion_cost is not here: it installs 336 MB."
)


def _environment(sink: str) -> dict[str, str]:
    """Return the variables of a Lambda function whose SDKs talk to the sink."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(str(ROOT / each) for each in ("runtime", "constructs", ".")),
        "AWS_LAMBDA_FUNCTION_NAME": "bench",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/22/[$LATEST]0123456789abcdef0123456789abcdef",
        "AWS_REGION": "us-east-1",
        "_X_AMZN_TRACE_ID": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=bd862e3fe1be46a9;Sampled=1",
        "AGENTOPS_AGENT_NAME": "bench",
        "AGENTOPS_TRANSPORT": "stdout",
        # The AgentOps SDK's own.
        "AGENTOPS_API_ENDPOINT": sink,
        "AGENTOPS_EXPORTER_ENDPOINT": f"{sink}/v1/traces",
        "AGENTOPS_LOGGING_TO_FILE": "false",
    }


def _run(environment: str, *arguments: str, sink: str = "http://127.0.0.1:9") -> str:
    """Return what a fresh interpreter of an environment prints."""
    python = str(ROOT / environment / "bin" / "python")
    done = subprocess.run(
        [python, *arguments],
        env=_environment(sink),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


def _reason(error: Exception) -> str:
    lines = getattr(error, "stderr", None)
    return (lines.strip().splitlines() if lines else [str(error)])[-1][:100]


def _progress(step: int, what: str) -> None:
    shown = f"  {step:>2} of {_STEPS}  {what}" if step <= _STEPS else ""
    if sys.stderr.isatty():
        print(f"\r{shown:<78}", end="\r", file=sys.stderr, flush=True)
    elif shown:
        print(shown, file=sys.stderr, flush=True)


def _job(number: int, seconds: float, sink: Sink) -> dict[str, Any]:
    case = CASES[number]
    result: dict[str, Any] = {"job": case.job, "who": case.who, "note": case.note}
    before = sink.requests
    try:
        result |= json.loads(
            _run(
                case.environment, "-m", "benchmarks.probe", str(number), sink.url, str(seconds), sink=sink.url
            )
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return {**result, "us": None, "error": _reason(error)}
    return {**result, "requests": sink.requests - before}


def _footprint(package: footprint.Package) -> dict[str, Any]:
    try:
        milliseconds, megabytes = footprint.imports(package, _run)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return {"who": package.who, "import_ms": None, "error": _reason(error)}
    return {
        "who": package.who,
        "import_ms": milliseconds,
        "import_mb": megabytes,
        "bytes": footprint.size(package, _run),
    }


def _ingest(seconds: float) -> list[dict[str, Any]]:
    try:
        # In the project's own environment, as the plane's functions are.
        found: list[dict[str, Any]] = json.loads(_run(".venv", "-m", "benchmarks.ingest", str(seconds * 4)))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return [{"who": OURS, "events_a_second": None, "error": _reason(error)}]
    return found


def main() -> None:
    """Measure everything, and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="rougher figures, sooner")
    options = parser.parse_args()
    seconds = QUICK_SECONDS if options.quick else SECONDS
    # In the order of the jobs, ours first in each.
    jobs = dict.fromkeys(case.job for case in CASES)
    order = [number for job in jobs for number, case in enumerate(CASES) if case.job == job]
    results: dict[str, Any] = {"jobs": [], "footprints": [], "ingest": [], "about": ABOUT}
    with running() as sink:
        for step, number in enumerate(order, start=1):
            _progress(step, f"{CASES[number].job}: {CASES[number].who}")
            results["jobs"].append(_job(number, seconds, sink))
    for step, package in enumerate(footprint.PACKAGES, start=len(CASES) + 1):
        _progress(step, f"importing {package.who}")
        results["footprints"].append(_footprint(package))
    _progress(len(CASES) + len(footprint.PACKAGES) + 1, "lines into the tables")
    results["ingest"] = _ingest(seconds)
    _progress(_STEPS + 1, "")
    if options.json:
        measured = report.targets(results)
        results["targets"] = [{**target._asdict(), "met": target.met} for target in measured]
        print(json.dumps(results, indent=2))
    else:
        print(report.text(results))


if __name__ == "__main__":
    main()

"""Run every case in a fresh interpreter and print what each costs, with ratios to ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.cases import CASES, measure

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv-bench/bin/python"
REPEATS, ROUNDS = 2_000, 7
IMPORTS = {
    "agentops_monitoring": "from agentops_monitoring import AgentOpsMonitor; AgentOpsMonitor('bench')",
    "Powertools Metrics": "from aws_lambda_powertools import Metrics; Metrics(namespace='b', service='b')",
    "genai-prices": "import genai_prices",
}
IMPORT_PROBE = """
import resource, time
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begun = time.perf_counter()
{code}
took = time.perf_counter() - begun
print(took * 1e3, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def _fresh(*arguments: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'runtime'}{os.pathsep}{ROOT}",
        "AGENTOPS_TRANSPORT": "stdout",
        "POWERTOOLS_METRICS_DISABLED": "false",
    }
    done = subprocess.run(
        [str(PYTHON), *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def main() -> None:
    """Print the tables."""
    if len(sys.argv) == 2:
        print(measure(CASES[int(sys.argv[1])], REPEATS, ROUNDS))
        return
    ours: dict[str, float] = {}
    print(f"{'job':<38}{'who':<24}{'µs':>9}{'ratio':>9}")
    for index, case in enumerate(CASES):
        cost = float(_fresh("-m", "benchmarks", str(index)))
        ours.setdefault(case.job, cost)
        print(f"{case.job:<38}{case.who:<24}{cost:>9.2f}{cost / ours[case.job]:>8.1f}×", flush=True)
    print(f"\n{'import in a fresh interpreter':<38}{'who':<24}{'ms':>9}{'MB':>9}")
    for who, code in IMPORTS.items():
        runs = [tuple(map(float, _fresh("-c", IMPORT_PROBE.format(code=code)).split())) for _ in range(5)]
        milliseconds, megabytes = min(runs)
        print(f"{'':<38}{who:<24}{milliseconds:>9.1f}{megabytes:>9.1f}", flush=True)


if __name__ == "__main__":
    main()

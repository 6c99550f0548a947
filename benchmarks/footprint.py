"""What it costs to have each of them: import time and memory in a fresh interpreter, bytes in the bundle."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.cases import OURS
from benchmarks.peers import AGENTOPS, AGENTOPS_SDK, EMF, GENAI_PRICES, LANGFUSE, OTEL, POWERTOOLS

RUNS = 15
_OTEL_IMPORTS = (
    "from opentelemetry.sdk.trace import TracerProvider; "
    "from opentelemetry.sdk.trace.export import BatchSpanProcessor; "
    "from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter"
)


class Package(NamedTuple):
    """One package: how it is imported, and which distributions an agent would ship."""

    who: str
    code: str
    distributions: str
    environment: str = ".venv-bench"


PACKAGES = (
    Package(OURS, "from agentops_monitoring import AgentOpsMonitor; AgentOpsMonitor('bench')", ""),
    Package(f"{OURS}, wrapper", "import agentops_monitoring.wrapper", ""),
    Package(
        POWERTOOLS,
        "from aws_lambda_powertools import Metrics; Metrics(namespace='b', service='b')",
        "aws-lambda-powertools",
    ),
    Package(
        "Powertools Metrics + Logger",
        "from aws_lambda_powertools import Logger, Metrics; Metrics(namespace='b', service='b'); "
        "Logger(service='b')",
        "aws-lambda-powertools",
    ),
    Package(EMF, "from aws_embedded_metrics import metric_scope", "aws-embedded-metrics"),
    Package(OTEL, _OTEL_IMPORTS, "opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"),
    Package(LANGFUSE, "from langfuse import Langfuse", "langfuse"),
    Package(AGENTOPS_SDK, "import agentops", "agentops", AGENTOPS),
    Package(GENAI_PRICES, "import genai_prices", "genai-prices"),
)

IMPORT_PROBE = """
import time
def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
before = resident()
begun = time.perf_counter()
{code}
took = time.perf_counter() - begun
print(took * 1e3, (resident() - before) / 1024)
"""

# Everything that installing brings, but what Lambda's own runtime has: boto3 and what that brings.
SIZE_PROBE = """
import sys
from importlib.metadata import distribution, PackageNotFoundError
from pip._vendor.packaging.requirements import Requirement

def closure(names):
    seen, left = {}, [(name, "") for name in names]
    while left:
        name, extra = left.pop()
        key = name.lower().replace("_", "-")
        if (key, extra) in seen:
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        seen[key, extra] = found
        for text in found.requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                left += [(needed.name, each) for each in ("", *needed.extras)]
    return {name: found for (name, _), found in seen.items()}

ours = closure(sys.argv[1:])
lambdas = closure(["boto3"])
files = {
    file.locate() for name, found in ours.items() if name not in lambdas for file in found.files or ()
    if file.suffix != ".pyc" and ".." not in file.parts
}
print(sum(file.stat().st_size for file in files if file.is_file()))
"""

OUR_SIZE_PROBE = """
import tempfile
from pathlib import Path
from agentops_constructs.bundling import layer_bundle
with tempfile.TemporaryDirectory() as folder:
    bundle = layer_bundle().build(Path(folder))
    print(sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()))
"""


def imports(package: Package, run: Callable[..., str]) -> tuple[float, float]:
    """Return milliseconds and megabytes that the import takes, the best of several runs."""
    code = IMPORT_PROBE.format(code=package.code)
    run(package.environment, "-c", code)  # makes the .pyc files
    runs = [tuple(map(float, run(package.environment, "-c", code).split()[-2:])) for _ in range(RUNS)]
    return min(each[0] for each in runs), min(each[1] for each in runs)


def size(package: Package, run: Callable[..., str]) -> int | None:
    """Return the bytes that the package adds to a function's bundle; None where it can't be told."""
    try:
        if package.distributions:
            return int(run(package.environment, "-c", SIZE_PROBE, *package.distributions.split()))
        return int(run(".venv", "-c", OUR_SIZE_PROBE))
    except (subprocess.CalledProcessError, ValueError):
        return None

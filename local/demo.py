"""`make demo`: deploy the real stacks to the embedded AWS, let the agents work, and show what they did.

Every step is one that a person could take by hand with the ordinary CDK and AWS command lines: nothing here
reaches into the embedded AWS but its two loopback pages (`/_local/idle`, `/_local/mail`).
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import NoReturn

from local import scenario
from local.deployment import ENVIRONMENT, ROOT, DeployError, Deployment, aws_environment
from local.processes import Services, StartError, free_port, require_free
from local.progress import Progress
from local.report.main import build_report

MOST_WORKFLOWS = 1_000
MODEL_LOG, AGENTOPS_LOG = "model.jsonl", "agentops.jsonl"
# The budget follows the number of workflows, so that the cost alarm fires whatever their number: three
# quarters of what one costs on average with the scripted model, at the default model's list price.
BUDGET_USD_PER_WORKFLOW = Decimal("0.009")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return the process's exit code."""
    options = _options(arguments)
    progress = Progress()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        with Services(options.out / "logs") as services:
            return _run(options, services, progress)
    except (DeployError, StartError, scenario.ScenarioError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: stopped; nothing is left running", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, by the names that `make demo` takes."""

    def error(self, message: str) -> NoReturn:
        """End the process with the message."""
        named = re.sub(r"argument --([a-z-]+)", lambda found: found[1].upper().replace("-", "_"), message)
        self.exit(2, f"demo: {named}\n")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="make demo", description=__doc__)
    parser.add_argument(
        "--workflows", type=_whole(1, MOST_WORKFLOWS), default=24, help="failures for the agents to work on"
    )
    parser.add_argument(
        "--seed", type=_whole(0, 2**32 - 1), default=7, help="the same seed gives the same run"
    )
    parser.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C")
    parser.add_argument(
        "--port", type=_whole(1, 65_535), help="the embedded AWS's port (any free one by default)"
    )
    parser.add_argument("--model-url", type=_model_url, help="an OpenAI-compatible server (…/v1)")
    parser.add_argument("--model", help="the model's name there")
    parser.add_argument("--out", type=Path, default=ROOT / "build/demo", help="folder for all that it writes")
    options = parser.parse_args(arguments)
    if bool(options.model_url) != bool(options.model):
        parser.error("MODEL_URL and MODEL go together: the server's …/v1 address and the model's name there")
    return options


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, not {text!r}")
        return int(text)

    return parse


def _model_url(text: str) -> str:
    """Return the address of a model server that answers; what it answers does not matter here."""
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"expected one such as http://127.0.0.1:11434/v1, not {text!r}")
    try:
        urllib.request.urlopen(f"{text.rstrip('/')}/models", timeout=10).close()
    except urllib.error.HTTPError as answer:
        answer.close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"nothing answers at {text} ({error})") from None
    return text


def _run(options: argparse.Namespace, services: Services, progress: Progress) -> int:
    count = options.workflows
    budget = BUDGET_USD_PER_WORKFLOW * count
    deployment = Deployment(options.out, str(budget))
    with ThreadPoolExecutor(1) as background:
        # Synthesis needs no endpoint, so it runs while the services come up.
        synthesis = background.submit(deployment.synthesize)
        with progress.step("Start the embedded AWS, a model and AgentOps, on loopback"):
            endpoint = _start(options, services)
        with progress.step("Synthesize the stacks"):
            synthesis.result()
    os.environ.update(aws_environment(endpoint))
    with progress.step("Deploy them with the CDK CLI"):
        deployment.deploy()
    with progress.step(f"The shop fails {count} times, three agents repair it"):
        scenario.drive(options.seed, count)
        scenario.settle(
            endpoint, count, lambda ended: progress.bar(min(ended, count), count, "workflows ended")
        )
    with progress.step("Let the analysis and the alarms catch up"):
        scenario.catch_up(endpoint, budget)
    with progress.step("Recount the raw logs, draw the dashboards"):
        report = build_report(
            out=options.out,
            environment=ENVIRONMENT,
            model_log=options.out / MODEL_LOG,
            agentops_log=options.out / AGENTOPS_LOG,
            endpoint=endpoint,
            alarm_note=f"HighCost is meant to fire in this demo: the daily budget, ${budget}, is set below "
            "what the scripted model's run costs.",
        )
    print(report.text)
    print(f"  {_shown(options.out / 'index.html')}  the dashboards as deployed, with what they show now")
    print(f"  {_shown(options.out / 'summary.json')}  the same figures for programs")
    print(f"  the demo took {progress.elapsed():.0f} s, set-up apart", flush=True)
    if options.keep:
        _keep(endpoint)
    return 0 if report.ok else 1


def _start(options: argparse.Namespace, services: Services) -> str:
    """Start the three services; return the embedded AWS's endpoint."""
    model_log, agentops_log = options.out / MODEL_LOG, options.out / AGENTOPS_LOG
    for log in (model_log, agentops_log):
        log.unlink(missing_ok=True)
    port = require_free(options.port) if options.port else free_port()
    model = [sys.executable, "-m", "local.model_server", "--port", "0", "--seed", str(options.seed)]
    if options.model_url:
        model += ["--upstream", options.model_url, "--upstream-model", options.model]
    model_url = services.start("model", [*model, "--record", str(model_log)], ready="http://")
    agentops = [sys.executable, "-m", "local.fake_agentops", "--port", "0", "--record", str(agentops_log)]
    agentops_url = services.start("agentops", agentops, ready="http://")
    aws = [str(ROOT / ".venv-local/bin/python"), "-m", "local.aws", "--port", str(port)]
    aws += ["--model-url", model_url]
    for name, value in (
        ("AGENTOPS_API_ENDPOINT", agentops_url),
        ("AGENTOPS_EXPORTER_ENDPOINT", f"{agentops_url}/v1/traces"),
    ):
        aws += ["--function-env", f"{name}={value}"]
    return services.start("aws", aws, ready="ready")


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path).ljust(26)


def _keep(endpoint: str) -> None:
    exports = " ".join(f"{name}={value}" for name, value in aws_environment(endpoint).items())
    print(
        f"""
  It is still running. In another terminal:

    export {exports}
    aws cloudwatch describe-alarms --query 'MetricAlarms[].[AlarmName,StateValue]' --output table
    aws dynamodb scan --table-name agent-decisions-{ENVIRONMENT} --max-items 1
    aws logs filter-log-events --log-group-name /aws/lambda/agentops-manager-{ENVIRONMENT} --max-items 5
    LEDGER_TABLE_NAME=agent-ledger-{ENVIRONMENT} PYTHONPATH=runtime .venv/bin/python -c \\
      'from agentops_monitoring import AgentOpsAnalyzer as A; print(A().analyze_collaboration_patterns(24))'

  Ctrl-C stops everything.""",
        flush=True,
    )
    signal.pause()


if __name__ == "__main__":
    sys.exit(main())

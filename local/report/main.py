"""Collect through AWS's own APIs, recount, draw: ``python -m local.report --out build/demo …``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from . import boards, ledger, page, recount
from .console import Console, wants_color
from .facts import Facts
from .runs import runs
from .widgets import Span

_SHORTEST_S = 180


@dataclass(frozen=True, slots=True)
class Report:
    """What `build_report` made: the console text, whether the recount confirms it, and the figures."""

    text: str
    ok: bool
    facts: Facts


def clients(endpoint: str | None) -> Callable[[str], Any]:
    """A function that gives each AWS client once; without an endpoint the environment decides."""
    import boto3

    made: dict[str, Any] = {}

    def client(service: str) -> Any:
        if service not in made:
            made[service] = boto3.client(service, endpoint_url=endpoint)  # type: ignore[call-overload]
        return made[service]

    return client


def read_mails(url: str | None) -> list[dict[str, Any]]:
    """What SNS would have sent, from the embedded AWS's mailbox; AWS itself has none."""
    if not url:
        return []
    with urllib.request.urlopen(f"{url.rstrip('/')}/_local/mail", timeout=30) as answer:
        found = json.load(answer)
    return [mail for mail in found if isinstance(mail, dict)]


def _span(lines: recount.Lines, now: float) -> Span:
    """From the minute before the first event to the end of this one, at least three minutes."""
    first = min((datetime.fromisoformat(e["at"]).timestamp() for e in lines.events.values()), default=now)
    start = int(first // 60 - 1) * 60
    return Span(start, max(int(now // 60 + 1) * 60, start + _SHORTEST_S))


def build_report(
    *,
    out: Path,
    environment: str,
    model_log: Path,
    agentops_log: Path,
    endpoint: str | None = None,
    mail_url: str | None = None,
    client: Callable[[str], Any] | None = None,
    color: bool | None = None,
    alarm_note: str = "",
) -> Report:
    """Read the deployed environment, write ``index.html`` and ``summary.json``, and tell it as text.

    Parameters
    ----------
    out : Path
        The folder to write to; made when it isn't there.
    environment : str
        The deployed environment.
    model_log, agentops_log : Path
        What the model server and the AgentOps fake recorded, as JSON lines.
    endpoint : str | None
        The AWS endpoint; ``AWS_ENDPOINT_URL`` decides when it is left out.
    mail_url : str | None
        Where ``/_local/mail`` is; the endpoint when left out.
    client : Callable[[str], Any] | None
        Gives the AWS client of a service, for tests.
    color : bool | None
        Colour in the text; by default on a terminal unless ``NO_COLOR`` is set.
    alarm_note : str
        A sentence that the page shows beside the alarms.
    """
    client = client or clients(endpoint)
    lines = recount.Lines()
    for source in recount.sources(client("logs"), environment):
        recount.count_lines(source, recount.messages(client("logs"), source.group), lines)
    span = _span(lines, time.time())
    tables = ledger.tables_of(environment)
    facts = ledger.collect(client("dynamodb"), tables, environment, span)
    facts.workflows = len(lines.traces)
    facts.runs = runs(lines.events.values())
    facts.alarm_note = alarm_note
    facts.alarms = boards.read_alarms(client("cloudwatch"))
    facts.mails = read_mails(mail_url or endpoint or os.environ.get("AWS_ENDPOINT_URL"))
    facts.checks = recount.compare(
        lines,
        stored=recount.table_keys(client("dynamodb"), tables.monitoring),
        decisions=recount.table_keys(client("dynamodb"), tables.decisions),
        ledger_llm_usd=facts.llm_usd,
        ledger_compute_usd=facts.compute_usd,
        calls=recount.json_lines(model_log),
        spans=recount.json_lines(agentops_log),
        region=client("logs").meta.region_name,
    )
    painter = boards.Painter(client, span)
    drawn = [painter.board(name) for name in boards.names(client("cloudwatch"), environment)]
    facts.dashboards = {board.name: len(board.tiles) for board in drawn}
    facts.widgets_without_data = [widget for board in drawn for widget in board.without_data]
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.html").write_text(page.render(facts, drawn), encoding="utf-8")
    summary = json.dumps(facts.as_json(), indent=2, ensure_ascii=False, allow_nan=False)
    (out / "summary.json").write_text(summary + "\n", encoding="utf-8")
    color = wants_color(sys.stdout, os.environ) if color is None else color
    return Report(Console(color=color).report(facts), facts.ok, facts)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code is 1 when the recount finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m local.report", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("build/demo"), help="folder for the page and the summary"
    )
    parser.add_argument("--environment", default="demo")
    parser.add_argument("--model-log", type=Path, required=True, help="the model server's record, JSON lines")
    parser.add_argument(
        "--agentops-log", type=Path, required=True, help="the AgentOps fake's record, JSON lines"
    )
    parser.add_argument("--endpoint", help="the AWS endpoint, by default AWS_ENDPOINT_URL")
    parser.add_argument("--mail-url", help="where /_local/mail is, by default the endpoint")
    options = parser.parse_args(arguments)
    from botocore.exceptions import BotoCoreError

    try:
        report = build_report(**vars(options))
    except BotoCoreError as error:  # no endpoint, region or credentials
        print(f"report: {error} (`make demo KEEP=1` leaves one running and says how)", file=sys.stderr)
        return 2
    print(report.text)
    print(f"  {options.out}/index.html  {options.out}/summary.json")
    return 0 if report.ok else 1

"""The main job, end to end: real stacks, the real CLI, three agents at work, every figure recounted."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.xdist_group("demo")

SEED = 7
ENDS_WITHIN_SECONDS = 280


def start(root: Path, out: Path, workflows: int) -> subprocess.Popen[str]:
    """Start the demo in a session of its own, as a terminal would."""
    path = os.pathsep.join([str(root / "runtime"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "local.demo",
            "--workflows",
            str(workflows),
            "--seed",
            str(SEED),
            "--out",
            str(out),
        ],
        cwd=root,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(root: Path, out: Path, workflows: int) -> dict[str, Any]:
    """Run the demo to its end, see that no process outlives it, and return its summary."""
    process = start(root, out, workflows)
    seen: set[psutil.Process] = set()
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(process.communicate(timeout=ENDS_WITHIN_SECONDS)[0]))
    reader.start()
    while reader.is_alive():
        seen |= descendants(process)
        reader.join(0.3)
    assert process.returncode == 0, said
    assert len(seen) > 10
    assert alive(seen) == []
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def descendants(process: subprocess.Popen[str]) -> set[psutil.Process]:
    """Return what a process has started, and what that has, and so on."""
    try:
        return set(psutil.Process(process.pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return set()


def alive(processes: set[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run, after a moment for those that are about to end."""
    return list(psutil.wait_procs(list(processes), timeout=3)[1])


@pytest.fixture(scope="module")
def workflows(full_size: bool) -> int:
    """Return how many workflows the demo runs with."""
    return 40 if full_size else 4


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the demo that most tests look at."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def summary(root: Path, out: Path, workflows: int) -> dict[str, Any]:
    """Run that demo, once."""
    return run(root, out, workflows)


def test_every_figure_is_confirmed_by_the_recount(summary: dict[str, Any], workflows: int) -> None:
    assert len(summary["checks"]) >= 6
    assert [check for check in summary["checks"] if not check["ok"]] == []
    assert summary["ok"] is True
    assert summary["totals"]["workflows"] == workflows


def test_costs_of_the_agents_add_up_to_the_total(summary: dict[str, Any]) -> None:

    for cost in ("llm_usd", "compute_usd"):
        assert (
            sum(Decimal(agent[cost]) for agent in summary["agents"]) == Decimal(summary["totals"][cost]) > 0
        )


def test_the_cost_alarm_fired_and_mailed_once(summary: dict[str, Any]) -> None:
    states = {alarm["name"]: alarm["state"] for alarm in summary["alarms"]}
    assert states["AgentOps-demo-HighCost"] == "ALARM"
    mails = [mail for mail in summary["mails"] if "AgentOps-demo-HighCost" in mail["subject"]]
    assert [mail["to"] for mail in mails] == ["ops@example.com"]


def test_budgets_are_mailed_once_for_each_threshold(summary: dict[str, Any]) -> None:
    told = [mail for mail in summary["mails"] if mail["subject"].startswith("AgentOps demo: ")]
    assert len({mail["subject"] for mail in told}) == len(told)
    # The month's budget is twice the day's, all of which is spent: that mail is the alarm's alone.
    assert any("of the monthly budget" in mail["subject"] for mail in told)
    assert not any("spent 100 % of the daily budget" in mail["subject"] for mail in told)
    for part in ("What most of it went to:", "#dashboards:name=AgentOps-Monitoring-Cost-demo"):
        assert all(part in mail["body"] for mail in told)


def test_every_widget_shows_data(summary: dict[str, Any]) -> None:
    assert len(summary["dashboards"]) == 3
    assert sum(summary["dashboards"].values()) >= 30
    assert len(summary["widgets_without_data"]) <= 3


def test_the_page_needs_no_network(summary: dict[str, Any], out: Path) -> None:
    page = (out / "index.html").read_text()
    assert page.count("<svg") >= 20
    assert re.findall(r"(?:src|@import|url\()\s*=?\s*[\"']?(?:https?:)?//", page) == []
    assert "<script src" not in page
    assert "<link" not in page


@pytest.mark.usefixtures("only_at_full_size")
def test_the_same_seed_gives_the_same_run(
    summary: dict[str, Any], root: Path, tmp_path: Path, workflows: int
) -> None:
    again = run(root, tmp_path, workflows)
    assert again["runs"] == summary["runs"]
    assert len(again["runs"]) == workflows
    assert again["totals"]["llm_usd"] == summary["totals"]["llm_usd"]
    assert again["totals"]["events"] == summary["totals"]["events"]


def test_ctrl_c_stops_everything(root: Path, tmp_path: Path, full_size: bool) -> None:
    moment = random.Random().uniform(2, 18 if full_size else 9)
    print(f"interrupted after {moment:.2f} s")
    process = start(root, tmp_path, 4)
    time.sleep(moment)
    started = descendants(process)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "nothing is left running" in said
    assert alive(started) == []

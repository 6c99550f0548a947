"""Writing through in Lambda: on stdout at once, in the ledger before the call returns, in bounded time."""

from __future__ import annotations

import time

import pytest

from agentops_monitoring import direct
from agentops_monitoring.direct import BackgroundWriter, WriteThrough

from .direct_agents import Ledger


def test_in_lambda_an_event_is_written_before_its_call_returns(capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger()
    through = WriteThrough(BackgroundWriter(ledger))
    for index in range(3):
        through.write([f"{index}\n"])
        assert ledger.lines[-1] == f"{index}\n"
    assert capsys.readouterr().out == "0\n1\n2\n"


def test_in_lambda_the_wait_is_bounded_and_what_failed_goes_with_a_later_event(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(direct, "AFTER_FAILURE_SECONDS", 0.2)
    ledger = Ledger(seconds=0.3)
    through = WriteThrough(BackgroundWriter(ledger), seconds=0.1)
    began = time.monotonic()
    for index in range(20):
        through.write([f"{index}\n"])
    # One wait in vain, the others not at all.
    assert time.monotonic() - began < 0.25
    assert len(capsys.readouterr().out.splitlines()) == 20
    ledger.seconds = 0
    time.sleep(0.5)
    through.write(["last\n"])
    time.sleep(0.1)
    assert ledger.lines == [*(f"{index}\n" for index in range(20)), "last\n"]


def test_in_lambda_all_events_of_an_invocation_wait_for_so_long_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow(BackgroundWriter):
        def __init__(self) -> None:
            super().__init__(Ledger())
            self.waits: list[float] = []

        def wait(self, seconds: float) -> bool:
            self.waits.append(seconds)
            time.sleep(0.05)
            return True

    worker = Slow()
    through = WriteThrough(worker, seconds=0.2, invocation_seconds=0.3)
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-a")
    for _ in range(50):
        through.write(["1\n"])
    assert len(worker.waits) <= 6
    assert max(worker.waits) <= 0.2
    # The time that is left bounds the last ones further.
    assert worker.waits[-1] < 0.1
    # The next invocation waits again, once its predecessor's failure is not that fresh.
    monkeypatch.setattr(through, "_patient_from", 0.0)
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-b")
    through.write(["1\n"])
    assert worker.waits[-1] == pytest.approx(0.2)

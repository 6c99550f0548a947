"""A clean process for each test: what one test installs or records must not reach another."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from agentops_monitoring import identity, transport
from agentops_monitoring.instrument import messages

_SETTINGS = ("AGENTOPS_", "AWS_LAMBDA_", "MONITORING_", "_X_AMZN_", "ENVIRONMENT", "EVENT_BUS_NAME")


@pytest.fixture(autouse=True)
def clean_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(_SETTINGS):
            monkeypatch.delenv(name)
    # The other way starts a thread that goes on trying to write, into whatever ledger a later test sets up.
    monkeypatch.setenv("AGENTOPS_TRANSPORT", "stdout")
    yield
    messages.forget_client()
    transport.replace(None)
    identity._forget()

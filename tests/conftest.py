"""What holds for every test: no account, no network but loopback, no slow validator."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentops_monitoring import instrument

ROOT = Path(__file__).resolve().parents[1]

# Before anything imports the CDK. Its validator costs seconds a process; one marked test runs it.
os.environ.setdefault("CDK_VALIDATION", "false")
os.environ.setdefault("JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION", "1")
# Before anything imports boto3: no test may find, or ask the network for, real credentials.
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
os.environ.pop("AWS_PROFILE", None)
os.environ.setdefault("AWS_ACCESS_KEY_ID", "testing")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "testing")
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
# Tools of the project's own environment come first: jsii needs its node.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


@pytest.fixture(autouse=True)
def no_default_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a boto3 that has not kept the credentials of another test, moto's above all."""
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)


@pytest.fixture(autouse=True)
def no_instrumentation() -> Iterator[None]:
    """Take away the hooks that a handler put on clients, a module's while it was collected included."""
    instrument.uninstall()
    yield
    instrument.uninstall()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def full_size() -> bool:
    """Whether tests run at the size that the issues name (`make prove`) instead of a reduced one."""
    return os.environ.get("AGENTOPS_TEST_SIZE") == "full"


@pytest.fixture(scope="session")
def only_at_full_size(full_size: bool) -> None:
    """Skip a test at reduced size: it takes long, and others prove most of it in parts."""
    if not full_size:
        pytest.skip("at full size")

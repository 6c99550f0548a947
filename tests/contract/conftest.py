"""Where the contract's probes run: the embedded AWS, or with ``--against-aws <account>`` a real one.

``pytest tests/contract --against-aws 123456789012`` takes credentials from the environment
(``eval "$(aws configure export-credentials --format env)"``) and the region from ``AWS_DEFAULT_REGION``.
It makes a few small functions, tables, queues and log groups called ``agentops-contract-<random>-…``, says
each on standard error, and removes them; a run costs cents.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.contract.cloud import Cloud
from tests.integration.conftest import ACCOUNT, REGION, running_aws

# The path against a real account is exercised by pointing it at an embedded AWS: with this, and nothing else.
REHEARSAL = "AGENTOPS_CONTRACT_REHEARSAL"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the account that the probes may make things in."""
    parser.addoption("--against-aws", metavar="ACCOUNT", help="run the contract's probes in this account")


def real_cloud(account: str, say: Callable[[str], object] = print) -> Cloud:
    """Return the account of the environment's credentials.

    Raises
    ------
    ValueError
        When anything suggests that it is not the account that was meant.
    """
    if not re.fullmatch(r"\d{12}", account):
        raise ValueError(f"wants the 12 digits of an account, not {account!r}")
    if overridden := sorted(name for name in os.environ if name.startswith("AWS_ENDPOINT_URL")):
        raise ValueError(f"reaches AWS alone; unset {', '.join(overridden)}")
    if os.environ["AWS_ACCESS_KEY_ID"] == "testing":  # tests/conftest.py keeps profiles out of every test
        how = 'eval "$(aws configure export-credentials --format env)"'
        raise ValueError(f"takes its credentials from the environment: {how}")
    rehearsal = os.environ.get(REHEARSAL)
    if rehearsal and not rehearsal.startswith("http://127.0.0.1:"):
        raise ValueError(f"{REHEARSAL} is for an embedded AWS on loopback")
    region = os.environ.get("AWS_REGION") or os.environ["AWS_DEFAULT_REGION"]
    return Cloud(account, region, endpoint=rehearsal, real=True, say=say)


@pytest.fixture(scope="session")
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """Give the AWS that the probes run in, and leave nothing in it."""
    if account := request.config.getoption("--against-aws", default=None):
        for number in (signal.SIGTERM, signal.SIGINT):  # a stopped run cleans up, in the background as well
            signal.signal(number, signal.default_int_handler)
        capture = request.config.pluginmanager.getplugin("capturemanager")

        def say(text: str) -> None:
            with capture.global_and_fixture_disabled():
                print(text, file=sys.stderr, flush=True)

        try:
            found = real_cloud(account, say)
        except (ValueError, RuntimeError, BotoCoreError, ClientError) as error:
            pytest.exit(f"--against-aws: {error}", pytest.ExitCode.USAGE_ERROR)
        try:
            yield found
        finally:
            left = found.clean_up()
            assert not left, f"left behind, remove it yourself: {left}"
        return
    credentials = {"aws_access_key_id": ACCOUNT, "aws_secret_access_key": "local"}
    with running_aws("--retry-seconds", "0.05") as (_, url):
        found = Cloud(ACCOUNT, REGION, endpoint=url, credentials=credentials)
        yield found
        assert not found.clean_up()

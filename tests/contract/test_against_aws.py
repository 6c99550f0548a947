"""The way into a real account, rehearsed on an embedded AWS: the right account, and nothing left there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.cloud import PREFIX, Cloud
from tests.contract.conftest import REHEARSAL, real_cloud
from tests.integration.conftest import REGION, ROOT, running_aws

ACCOUNT = "123456789012"
FOLDER = Path(__file__).parent
PROBE = f"{FOLDER}/test_log_lines.py::test_a_retry_has_the_request_id_of_the_first_attempt[JSON]"
# A module that stands in for probes: it makes one thing of each kind, then does what the test wants to see.
PROBES = """
import os, signal
from tests.contract.cloud import Cloud

def test_makes(cloud: Cloud) -> None:
    cloud.function("def handler(event, context): print('a line')")
    cloud.table(), cloud.queue()
    {then}
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Give the URL of an embedded AWS."""
    with running_aws("--retry-seconds", "0.05") as (_, url):
        yield url


def run(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run pytest with the flag and return its exit code and output."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        env={**clean, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def rehearsal(url: str, account: str = ACCOUNT) -> dict[str, str]:
    """Return the variables that point the flag at an embedded AWS, with credentials of an account."""
    return {REHEARSAL: url, "AWS_ACCESS_KEY_ID": account, "AWS_SECRET_ACCESS_KEY": "any"}


def left(url: str) -> list[str]:
    """Return the names of everything in the account."""
    keys = {"aws_access_key_id": ACCOUNT, "aws_secret_access_key": "any"}
    cloud = Cloud(ACCOUNT, REGION, endpoint=url, credentials=keys)

    def ask(service: str, call: str, key: str) -> list[str]:
        return [str(one) for one in getattr(cloud.client(service), call)().get(key, [])]

    return [
        *ask("lambda", "list_functions", "Functions"),
        *ask("logs", "describe_log_groups", "logGroups"),
        *ask("iam", "list_roles", "Roles"),
        *ask("dynamodb", "list_tables", "TableNames"),
        *ask("sqs", "list_queues", "QueueUrls"),
    ]


def test_a_probe_runs_in_the_account_and_leaves_nothing(url: str) -> None:
    code, output = run(PROBE, "--against-aws", ACCOUNT, **rehearsal(url))
    assert code == 0, output
    made, removed = (re.findall(rf"^{word} (.*)$", output, re.MULTILINE) for word in ("made", "removed"))
    assert [what.split()[0] for what in made] == ["log", "role", "policy", "function"]
    assert removed == made[::-1]
    assert all(PREFIX in what for what in made)
    assert left(url) == []


ENDS = {
    "terminated": ("os.kill(os.getpid(), signal.SIGTERM)", pytest.ExitCode.INTERRUPTED),
    "interrupted": ("os.kill(os.getpid(), signal.SIGINT)", pytest.ExitCode.INTERRUPTED),
    "failing": ("assert False", pytest.ExitCode.TESTS_FAILED),
}


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left_however_a_run_ends(
    url: str, end: str, full_size: bool, request: pytest.FixtureRequest
) -> None:
    if end != "terminated" and not full_size:
        pytest.skip("at full size")
    then, code = ENDS[end]
    probes = FOLDER / f"test_rehearsal_{os.getpid()}.py"
    request.addfinalizer(lambda: probes.unlink(missing_ok=True))
    probes.write_text(PROBES.format(then=then))
    found, output = run(str(probes), "--against-aws", ACCOUNT, **rehearsal(url))
    assert found == code, output
    counts = [len(re.findall(rf"^{word} ", output, re.MULTILINE)) for word in ("made", "removed")]
    assert counts == [6, 6], output
    assert left(url) == []


@pytest.mark.slow
def test_another_account_ends_the_run_before_anything_is_made(url: str, full_size: bool) -> None:
    if not full_size:
        pytest.skip("at full size")
    code, output = run(PROBE, "--against-aws", "210987654321", **rehearsal(url))
    assert code == pytest.ExitCode.USAGE_ERROR, output
    assert f"the credentials are of account {ACCOUNT}, not of 210987654321" in output
    assert "made " not in output
    assert left(url) == []


@pytest.mark.parametrize(
    ("account", "variables", "why"),
    [
        ("12345678901", {}, "12 digits"),
        ("210987654321", {}, f"the credentials are of account {ACCOUNT}, not of 210987654321"),
        (ACCOUNT, {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "unset AWS_ENDPOINT_URL"),
        (ACCOUNT, {"AWS_ENDPOINT_URL_LAMBDA": "http://127.0.0.1:1"}, "unset AWS_ENDPOINT_URL_LAMBDA"),
        (ACCOUNT, {"AWS_ACCESS_KEY_ID": "testing"}, "takes its credentials from the environment"),
        (ACCOUNT, {REHEARSAL: "http://192.0.2.1:4566"}, "on loopback"),
    ],
    ids=[
        "digits",
        "another account",
        "endpoint",
        "endpoint of a service",
        "no credentials",
        "not on loopback",
    ],
)
def test_what_is_not_surely_the_account_is_refused(
    url: str, account: str, variables: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**rehearsal(url), **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises((ValueError, RuntimeError), match=why):
        real_cloud(account)


def test_a_client_that_would_not_reach_aws_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(RuntimeError, match="is not an endpoint of AWS"):
        Cloud(ACCOUNT, REGION, real=True)

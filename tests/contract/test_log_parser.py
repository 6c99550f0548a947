"""What the ledger reads from Lambda's lines as AWS writes them: the reports, and nothing else."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from agentops_monitoring.ledger import parse
from agentops_monitoring.ledger.parse import Batch
from agentops_monitoring.pricing import lambda_cost
from tests.contract.lines import FOLDER, Case, cases

FIELDS = ("request_id", "duration_ms", "billed_ms", "memory_mb", "init_ms", "status")


def read(*lines: str) -> Batch:
    """Read lines as a subscription delivers them."""
    payload: dict[str, Any] = {
        "logStream": "2026/11/22/[$LATEST]00112233445566778899aabbccddeeff",
        "subscriptionFilters": ["agentops|test|manager|arm64"],
        "logEvents": [{"id": str(n), "timestamp": n, "message": line} for n, line in enumerate(lines)],
    }
    return parse.read_payload(payload, "us-east-1")


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case.file}: {case.name}")
def test_reports_are_read_and_all_else_is_ignored(case: Case) -> None:
    batch = read(*case.lines)
    assert batch.rejects == []
    assert batch.events == []
    found = [{name: str(getattr(one, name)) for name in FIELDS} for one in batch.reports]
    assert found == [{name: str(one[name]) for name in FIELDS} for one in case.reports]
    for report in batch.reports:
        assert report.cost == lambda_cost(report.billed_ms, report.memory_mb, "arm64", "us-east-1")


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case.file}: {case.name}")
def test_the_subscription_filter_lets_reports_through_and_no_other_line_of_lambda(case: Case) -> None:
    passed = [line for line in case.lines if any(term in line for term in parse.TERMS)]
    managed = "Managed Instances" in case.name
    assert len(passed) == len(case.reports) + managed


@pytest.mark.parametrize("case", [case for case in cases() if case.reports], ids=lambda case: case.name)
def test_a_line_that_was_cut_gives_the_same_bill_or_none(case: Case) -> None:
    for line in case.lines:
        whole = [(one.request_id, one.duration_ms, one.cost) for one in read(line).reports]
        for end in range(len(line)):
            batch = read(line[:end])
            cut = [(one.request_id, one.duration_ms, one.cost) for one in batch.reports]
            assert cut in ([], whole)
            assert len(batch.reports) + len(batch.rejects) <= 1


def test_each_case_says_where_it_was_found() -> None:
    assert len(cases()) >= 40
    assert len({(case.file, case.name) for case in cases()}) == len(cases())
    for case in cases():
        assert case.source.startswith(("https://", "github-index:")), case.name
        assert case.title


@pytest.mark.parametrize(
    "line",
    [
        "REPORT RequestId: 4ce9340a-b765-490f-ad8a-02ab3415e2bf\tDuration: 26.73 ms\tBilled Dura",
        "The model wrote: REPORT RequestId: and so on",
        '{"message":"a platform.report, said the model"}',
        '{"time":"2026-11-22T08:00:00.000Z","type":"platform.report","record":{"metrics":{}}}',
        '{"time":"2026-11-22T08:00:00.000Z","type":"platform.report","record":"text"}',
    ],
)
def test_what_only_looks_like_a_report_is_kept_as_a_reject(line: str) -> None:
    batch = read(line)
    assert batch.reports == []
    assert [reject.source.message for reject in batch.rejects] == [line]


def test_a_delivery_is_decoded_as_documented() -> None:
    documented = tomllib.loads((FOLDER / "subscription.toml").read_text())
    payload = parse.decode(documented["data"])
    assert payload == {
        "messageType": "DATA_MESSAGE",
        "owner": documented["owner"],
        "logGroup": documented["log_group"],
        "logStream": documented["log_stream"],
        "subscriptionFilters": documented["filters"],
        "logEvents": documented["events"],
    }
    batch = parse.read_payload(payload, "us-east-1")
    assert (batch.stream, batch.newest_ms) == ("testLogStream", 1440442987001)
    assert (batch.events, batch.reports, batch.rejects) == ([], [], [])

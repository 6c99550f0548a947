"""Context: defaults, what is accepted, and one clear line for what is not."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentops_constructs import CostAction, IngestStream
from stacks import settings as settings_module
from stacks.settings import Settings, SettingsError


def test_missing_context_takes_its_defaults() -> None:
    settings = Settings.from_context({})

    assert settings == Settings()
    assert settings.environment == "production"
    assert settings.daily_budget_usd == 10
    assert settings.agents_schedule is None, "an idle account costs nothing for models"


def test_context_of_the_command_line_is_text() -> None:
    settings = Settings.from_context(
        {
            "environment": "team-a",
            "alert_email": "ops+agents@example.co.uk",
            "daily_budget_usd": "2.50",
            "model_id": "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.some.model-v1:0",
            "agentops_api_key_secret": "agentops/api-key",
            "watch": "checkout, alarm:Orders-Late,checkout",
            "agents_schedule": "cron(0 6 * * ? *)",
            "dashboard_suffix": "eu-central-1",
            "metric_detail": "full",
            "ingest_stream": "4",
            "on_breach": "stop",
            "sample_workload": "true",
        }
    )

    assert settings.daily_budget_usd == Decimal("2.50")
    assert settings.watch == ("checkout", "alarm:Orders-Late")
    assert settings.metric_detail.name == "FULL"
    assert settings.ingest_stream == IngestStream(shards=4)
    assert settings.on_breach is CostAction.STOP_AGENT
    assert Settings.from_context({"ingest_stream": "on_demand"}).ingest_stream == IngestStream()
    assert Settings.from_context({"ingest_stream": "off"}).ingest_stream is None
    assert settings.sample_workload is True


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("environment", "my production"),
        ("environment", "Production"),
        ("environment", "x" * 25),
        ("environment", "-edge-"),
        ("daily_budget_usd", "-5"),
        ("daily_budget_usd", "0"),
        ("daily_budget_usd", "ten"),
        ("daily_budget_usd", "inf"),
        ("daily_budget_usd", "nan"),
        ("alert_email", "ops.example.com"),
        ("alert_email", "a@b.c, d@e.f"),
        ("model_id", "claude 3"),
        ("agentops_api_key_secret", "no spaces please"),
        ("watch", "some function"),
        ("watch", "function-" + ",".join("f" * 60 + str(number) for number in range(50))),
        ("watch", ",".join(f"alarm:{number}" + "a" * 200 for number in range(9))),
        ("agents_schedule", "hourly"),
        ("on_breach", "panic"),
        ("dashboard_suffix", "eu central"),
        ("metric_detail", "SOME"),
        ("ingest_stream", "kinesis"),
        ("ingest_stream", "0"),
        ("sample_workload", "perhaps"),
        ("bundle_for", "windows"),
    ],
)
def test_wrong_context_is_one_line_that_names_the_key_and_the_value(key: str, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_context({key: value})

    (line,) = caught.value.args
    assert "\n" not in line
    assert key in line
    assert len(value) > 1000 or repr(value)[1:-1] in line


def test_every_wrong_key_gets_its_own_line() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_context({"environment": "a b", "daily_budget_usd": "-1", "alert_email": "nobody"})

    assert len(caught.value.args) == 3


@pytest.mark.parametrize(
    ("written", "meant"),
    [("enviroment", "environment"), ("daily_budget", "daily_budget_usd"), ("alert-email", "alert_email")],
)
def test_a_misspelt_key_is_not_silently_ignored(written: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=f"did you mean {meant}"):
        Settings.from_context({written: "x"})


def test_the_cdk_s_own_context_is_left_alone() -> None:
    Settings.from_context({"@aws-cdk/core:checkSecretUsage": True, "aws:cdk:bundling-stacks": ["**"]})


def test_a_key_that_nobody_knows_is_refused_with_those_there_are() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_context({"nonsense": "1"})

    (line,) = caught.value.args
    assert line.startswith("context nonsense: there is no such setting; there are environment, alert_email,")


def test_keys_that_a_file_holds_are_somebody_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(settings_module, "ROOT", tmp_path)
    (tmp_path / "cdk.json").write_text('{"app": "x", "context": {"theirs": 1}}')
    (tmp_path / "cdk.context.json").write_text('{"acknowledged-issue-numbers": [1]}')
    (home / ".cdk.json").write_text('{"context": {"everywhere": true}}')
    settings_module._context_of_files.cache_clear()
    try:
        Settings.from_context({"theirs": 1, "acknowledged-issue-numbers": [1], "everywhere": True})
        with pytest.raises(SettingsError, match="context app"):
            Settings.from_context({"app": "x"})
    finally:
        settings_module._context_of_files.cache_clear()

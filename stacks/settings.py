"""The CDK context, read once and checked; what is wrong is said in a line each."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Any

from agentops_constructs import CostAction, IngestStream, MetricDetail
from agentops_constructs.naming import check_environment

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_MODEL_ID = "global.anthropic.claude-sonnet-5-5"
_EMAIL = re.compile(r"[^@\s,;]+@[^@\s,;]+\.[^@\s,;.]+")
_SCHEDULE = re.compile(r"(rate|cron)\([^()]+\)")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_WATCHED = re.compile(r"(alarm:[^\s,]{1,255}|[A-Za-z0-9_-]{1,64})")
_SECRET = re.compile(r"[A-Za-z0-9/_+=.@-]{1,512}")
_MODEL = re.compile(r"[A-Za-z0-9:/._-]{1,2048}")
# A function's variables may have 4 KB together, an event pattern 2,048 characters:
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-quota.html
_MOST_WATCHED = {"functions": 3_000, "alarms": 1_500}


class SettingsError(ValueError):
    """Context that makes no sense; each argument is one line about one key."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the context says; every field has a default.

    Parameters
    ----------
    environment
        In every name but production's.
    alert_email
        Who gets the alerts.
    daily_budget_usd
        USD per UTC day: the alarm's threshold, the agents' `COST_ALERT_THRESHOLD`, the budget.
    monthly_budget_usd
        USD per UTC month, of which the topic is told; none by default.
    model_id
        The Bedrock model or inference profile that the agents call.
    agentops_api_key_secret
        Name of the secret with the AgentOps API key; without it nothing is exported.
    watch
        Functions, by name, and alarms, as `alarm:<name>`, that the Manager observes.
    agents_schedule
        `rate(…)` or `cron(…)` at which the Manager looks by itself.
    dashboard_suffix
        Tells the dashboards of two regions apart.
    metric_detail
        How many custom metrics are paid for.
    ingest_stream
        A Kinesis stream between the log groups and ingest: `on_demand`, or a number of shards.
    sample_workload
        Deploy the sample shop and watch it.
    on_breach
        What reaching the daily budget does beside the mail: stop the agents, or nothing.
    agent_budget_usd
        USD that each agent may spend on models in a UTC day, held to before each call; none by default.
    """

    environment: str = "production"
    alert_email: str | None = None
    daily_budget_usd: Decimal = Decimal(10)
    monthly_budget_usd: Decimal | None = None
    model_id: str = DEFAULT_MODEL_ID
    agentops_api_key_secret: str | None = None
    watch: tuple[str, ...] = ()
    agents_schedule: str | None = None
    dashboard_suffix: str = ""
    metric_detail: MetricDetail = MetricDetail.STANDARD
    ingest_stream: IngestStream | None = None
    sample_workload: bool = False
    on_breach: CostAction = CostAction.ALERT
    agent_budget_usd: Decimal | None = None

    @classmethod
    def from_context(cls, context: Mapping[str, Any]) -> Settings:
        """Read the settings from the app's context.

        Raises
        ------
        SettingsError
            A value makes no sense, a key looks like a misspelt one of ours, or one from the command line is
            neither ours nor the CDK's.
        """
        found: dict[str, Any] = {}
        problems: list[str] = []
        for key, parse in _PARSERS.items():
            value = context.get(key)
            if value is None or value == "":
                continue
            try:
                found[key] = parse(value)
            except ValueError as problem:
                problems.append(f"context {key}: {problem}")
        problems += _misspelt(context)
        if problems:
            raise SettingsError(*problems)
        return cls(**found)


def _environment(value: Any) -> str:
    try:
        return check_environment(str(value))
    except ValueError as problem:
        raise ValueError(str(problem).removeprefix("environment ")) from None


def _budget(value: Any) -> Decimal:
    try:
        budget = Decimal(str(value))
    except InvalidOperation:
        budget = Decimal("NaN")
    if not budget.is_finite() or budget <= 0:
        raise ValueError(f"expected USD, a number above 0, not {str(value)!r}")
    return budget


def _matching(pattern: re.Pattern[str], expected: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(f"expected {expected}, not {str(value)!r}")
        return value

    return parse


def _schedule(value: Any) -> str | None:
    if value in ("off", False, "false"):
        return None
    return _matching(_SCHEDULE, "off, rate(1 hour) or cron(0 6 * * ? *)")(value)


def _watch(value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, list) else str(value).split(",")
    parse = _matching(_WATCHED, "names of functions, or alarm:<name>, with commas between")
    found = tuple(dict.fromkeys(parse(str(name).strip()) for name in names if str(name).strip()))
    alarms = [name for name in found if name.startswith("alarm:")]
    for kind, some in (("alarms", alarms), ("functions", [name for name in found if name not in alarms])):
        if (length := len(",".join(some))) > _MOST_WATCHED[kind]:
            raise ValueError(
                f"the names of {len(some)} {kind} have {length} characters, AWS takes {_MOST_WATCHED[kind]}"
            )
    return found


def _detail(value: Any) -> MetricDetail:
    try:
        return MetricDetail[str(value).upper()]
    except KeyError:
        names = ", ".join(each.name for each in MetricDetail)
        raise ValueError(f"expected one of {names}, not {str(value)!r}") from None


def _stream(value: Any) -> IngestStream | None:
    if value in ("off", False, "false"):
        return None
    if value == "on_demand":
        return IngestStream()
    try:
        return IngestStream(shards=int(str(value)))
    except ValueError:
        raise ValueError(f"expected off, on_demand or a number of shards, not {str(value)!r}") from None


def _on_breach(value: Any) -> CostAction:
    try:
        return CostAction(str(value).lower())
    except ValueError:
        names = " or ".join(each.value for each in CostAction)
        raise ValueError(f"expected {names}, not {str(value)!r}") from None


def _flag(value: Any) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return known[str(value).lower()]
    except KeyError:
        raise ValueError(f"expected true or false, not {str(value)!r}") from None


def _bundle_for(value: Any) -> str:
    if value not in ("lambda", "host"):
        raise ValueError(f"expected lambda or host, not {str(value)!r}")
    return str(value)


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "environment": _environment,
    "alert_email": _matching(_EMAIL, "an e-mail address"),
    "daily_budget_usd": _budget,
    "monthly_budget_usd": _budget,
    "model_id": _matching(_MODEL, "a Bedrock model id, inference profile id or ARN"),
    "agentops_api_key_secret": _matching(_SECRET, "the name of a secret in Secrets Manager"),
    "watch": _watch,
    "agents_schedule": _schedule,
    "dashboard_suffix": _matching(_NAME, "letters, digits, '_' and '-'"),
    "metric_detail": _detail,
    "ingest_stream": _stream,
    "sample_workload": _flag,
    "on_breach": _on_breach,
    "agent_budget_usd": _budget,
}
# Read where bundles are made, not kept in the settings.
_CHECKED_ALONE: dict[str, Callable[[Any], Any]] = {"bundle_for": _bundle_for}


def _misspelt(context: Mapping[str, Any]) -> list[str]:
    known = [*_PARSERS, *_CHECKED_ALONE]
    problems = []
    for key, value in context.items():
        if key in _CHECKED_ALONE and value:
            try:
                _CHECKED_ALONE[key](value)
            except ValueError as problem:
                problems.append(f"context {key}: {problem}")
        elif key not in known and not key.startswith(("@", "aws:", "cdk")) and ":" not in key:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
            if near:
                problems.append(f"context {key}: there is no such setting; did you mean {near[0]}?")
            elif key not in _context_of_files():
                problems.append(f"context {key}: there is no such setting; there are {', '.join(known)}")
    return problems


@cache
def _context_of_files() -> frozenset[str]:
    """Return the keys that the CDK CLI reads from files, all of it in one bag with the command line's.

    What a file holds may be meant for others: a construct of the user's own, or the CLI, which keeps
    `acknowledged-issue-numbers` there.
    """
    found: set[str] = set()
    for path, key in (
        (ROOT / "cdk.json", "context"),
        (ROOT / "cdk.context.json", None),
        (Path(os.path.expanduser("~/.cdk.json")), "context"),
    ):
        try:
            content = json.loads(path.read_text())
            found.update((content.get(key) or {}) if key else content)
        except (OSError, ValueError):
            # Not there; or the CLI itself says what is wrong with it.
            continue
    return frozenset(found)

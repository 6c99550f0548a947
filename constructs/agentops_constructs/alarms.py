"""The alarms: a breach turns one alarm once, and the topic mails it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cw
from aws_cdk import aws_cloudwatch_actions as cw_actions
from constructs import Construct

from agentops_monitoring import catalogue

from .monitored_agent import MonitoredAgent
from .plane_base import PlaneBase
from .plane_functions import PLANE_FUNCTIONS
from .stopping import CostAction, StopAction
from .validation import TreeValidation


class CostAlarm(Construct):
    """Alerts once when the day's spend reaches a threshold, and again no sooner than the next UTC day.

    The metric is the ledger's spend since midnight UTC, emitted each minute: what one missed line or one
    missed minute would hide from a sum of increments shows in the next value.

    Parameters
    ----------
    monitoring
        The plane that measures the spend.
    threshold_usd
        USD per UTC day.
    agent
        A `MonitoredAgent` or an agent's name; the whole environment by default.
    name
        Of the alarm, behind `AgentOps-<environment>-`: a second threshold for the same spend needs its own.
        `Cost-<agent>`, or `HighCost` for the environment, by default.
    on_breach
        What a breach does beside the mail. `CostAction.STOP_AGENT` sets the concurrency of the agents'
        functions to 0 until the next UTC day, or `agentops-monitoring resume`; what they are sent meanwhile
        is kept.
    stops
        The agents that a breach stops: the alarm's own by default, which has to be given as a
        `MonitoredAgent` then; those of the environment's alarm have to be listed.

    Raises
    ------
    ValueError
        The threshold is not above 0, it is not said which agents are to be stopped, or one of them is of
        another environment.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        monitoring: PlaneBase,
        threshold_usd: Decimal | float,
        agent: MonitoredAgent | str | None = None,
        name: str | None = None,
        on_breach: CostAction = CostAction.ALERT,
        stops: Sequence[MonitoredAgent] = (),
    ) -> None:
        super().__init__(scope, id)
        if not threshold_usd > 0:
            raise ValueError(f"threshold_usd must be above 0, not {threshold_usd}")
        stopped = _stopped(monitoring, on_breach, stops, agent)
        spender = agent.agent_name if isinstance(agent, MonitoredAgent) else agent
        whose = f"agent {spender}" if spender else f"environment {monitoring.environment}"
        name = name or (f"Cost-{spender}" if spender else "HighCost")
        about = f"Spend of {whose} since midnight UTC reached ${threshold_usd:g}."
        if stopped:
            about += (
                f" Stopped until 00:05 UTC: {', '.join(each.agent_name for each in stopped)}. Sooner: "
                f"agentops-monitoring resume --environment {monitoring.environment} AGENT."
            )
        self.alarm = _alarm(
            self,
            "Alarm",
            monitoring,
            name=name,
            about=about,
            metric=monitoring.metrics.costs("SpendToDate", spender),
            threshold=float(threshold_usd),
            operator=cw.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            # A late value must neither clear the breach nor repeat its alert.
            missing=cw.TreatMissingData.IGNORE,
        )
        if stopped:
            self.alarm.add_alarm_action(StopAction(monitoring.stop_function_arn))
        for each in stopped:
            each.stop_on(monitoring.names.alarm(name))
        validation = TreeValidation.ensure(self)
        if isinstance(agent, str):
            validation.refer(self, monitoring.environment, [agent])


MISSING_PERCENT = 1
"""Of an agent's invocations of a day; beyond it their lines have got lost somewhere."""


class MonitoringAlarms(Construct):
    """The environment's alarms: cost, tests, success rate, collaboration, dead letters, the plane itself.

    Parameters
    ----------
    monitoring
        The plane whose metrics they watch.
    daily_budget_usd
        Threshold of `HighCost`, USD per UTC day.
    on_breach, stops
        Of `HighCost`, as in `CostAlarm`.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        monitoring: PlaneBase,
        daily_budget_usd: Decimal | float,
        on_breach: CostAction = CostAction.ALERT,
        stops: Sequence[MonitoredAgent] = (),
    ) -> None:
        super().__init__(scope, id)
        metrics = monitoring.metrics
        five, quarter = Duration.minutes(5), Duration.minutes(15)
        self.high_cost = CostAlarm(
            self,
            "HighCost",
            monitoring=monitoring,
            threshold_usd=daily_budget_usd,
            on_breach=on_breach,
            stops=stops,
        ).alarm
        self.high_error_rate = _alarm(
            self, "HighErrorRate", monitoring,
            about="More than 5 test failures in 5 minutes.",
            metric=metrics.events("test_failed", period=five),
            threshold=5,
        )  # fmt: skip
        self.low_success_rate = _alarm(
            self, "LowSuccessRate", monitoring,
            # No least number of workflows: it would silence an environment in which few end, and all of them
            # fail. The price is a mail for a single failure in a quiet quarter of an hour.
            about="Less than 80 % of the workflows that ended within 15 minutes were completed.",
            metric=metrics.success_rate(
                "workflow_completed", "workflow_failed", label="Success rate", period=quarter
            ),
            threshold=80,
            operator=cw.ComparisonOperator.LESS_THAN_THRESHOLD,
        )  # fmt: skip
        kinds = [name for namespace, name in catalogue.METRICS if namespace == catalogue.ANOMALIES]
        self.collaboration_anomalies = _alarm(
            self, "CollaborationAnomalies", monitoring,
            about="Unusual communication: " + ", ".join(kind.replace("_", " ") for kind in kinds) + ".",
            metric=cw.MathExpression(
                expression=" + ".join(f"FILL({kind}, 0)" for kind in kinds),
                using_metrics={
                    kind: metrics.metric(catalogue.ANOMALIES, kind, period=five) for kind in kinds
                },
                label="Anomalies",
                period=five,
            ),
            threshold=0,
        )  # fmt: skip
        self.dead_letters = _alarm(
            self, "DeadLetters", monitoring,
            about="What ingest could not take, or export could not send, waits in the dead-letter queue.",
            metric=cw.Metric(
                namespace="AWS/SQS",
                metric_name="ApproximateNumberOfMessagesVisible",
                dimensions_map={"QueueName": monitoring.names.dead_letter_queue},
                statistic="Maximum",
                period=Duration.minutes(1),
            ),
            threshold=0,
        )  # fmt: skip
        environment = monitoring.environment
        self.lost_events = _alarm(
            self, "LostEvents", monitoring,
            about="Events that agents numbered are not in the ledger. Once ingest works and the dead letters "
            f"are replayed: agentops-monitoring replay --from-logs --environment {environment}",
            metric=metrics.metric(catalogue.MONITOR, "LostEvents", period=five),
            threshold=0,
        )  # fmt: skip
        self.later_lines = _alarm(
            self, "LaterLines", monitoring,
            about="Agents run a later version of the monitor; their lines are kept. Upgrade the plane, then: "
            f"agentops-monitoring replay --later --environment {environment}",
            metric=metrics.metric(catalogue.MONITOR, "LaterLines", period=five),
            threshold=0,
        )  # fmt: skip
        functions = [monitoring.names.function(name) for name in PLANE_FUNCTIONS]
        self.plane_errors = _alarm(
            self, "PlaneErrors", monitoring,
            about="The monitoring's own functions keep failing; what they show may be late.",
            metric=cw.MathExpression(
                expression=" + ".join(f"FILL({name}, 0)" for name in PLANE_FUNCTIONS),
                using_metrics={
                    name: cw.Metric(
                        namespace="AWS/Lambda",
                        metric_name="Errors",
                        dimensions_map={"FunctionName": function},
                        statistic="Sum",
                        period=five,
                    )
                    for name, function in zip(PLANE_FUNCTIONS, functions, strict=True)
                },
                label="Errors",
                period=five,
            ),
            threshold=0,
            # One failure is retried or made up for; the alert is for what stays broken, if each 15 minutes.
            periods=6,
            failing=2,
        )  # fmt: skip
        self.export_failures = _alarm(
            self, "ExportFailures", monitoring,
            about="Events keep failing to reach AgentOps; they are sent again for 20 hours.",
            metric=metrics.metric(catalogue.MONITOR, "ExportFailures", period=five),
            threshold=0,
            # Each failed batch is sent again; the alert is for an outage or a key that is refused.
            periods=3,
        )  # fmt: skip
        self.reconciliation = _alarm(
            self, "Reconciliation", monitoring,
            about=f"The ledger lacks more than {MISSING_PERCENT} % of an agent's invocations that AWS/Lambda "
            "counted yesterday. `agentops-monitoring reconcile` shows whose; `agentops-monitoring replay "
            "--from-logs --log-group GROUP` brings their lines in.",
            metric=metrics.metric(
                catalogue.MONITOR, "ReconciliationInvocations", period=Duration.hours(1)
            ),
            threshold=MISSING_PERCENT,
        )  # fmt: skip
        TreeValidation.ensure(self)

    @property
    def all(self) -> list[cw.IAlarm]:
        """Every alarm here."""
        return [
            self.high_cost,
            self.high_error_rate,
            self.low_success_rate,
            self.collaboration_anomalies,
            self.dead_letters,
            self.lost_events,
            self.later_lines,
            self.plane_errors,
            self.export_failures,
            self.reconciliation,
        ]


def _stopped(
    monitoring: PlaneBase,
    on_breach: CostAction,
    stops: Sequence[MonitoredAgent],
    agent: MonitoredAgent | str | None,
) -> list[MonitoredAgent]:
    if not isinstance(on_breach, CostAction):
        raise ValueError(f"on_breach must be a CostAction, not {on_breach!r}")
    if on_breach is not CostAction.STOP_AGENT:
        if stops:
            raise ValueError("stops= needs on_breach=CostAction.STOP_AGENT")
        return []
    found = list(dict.fromkeys(stops)) or ([agent] if isinstance(agent, MonitoredAgent) else [])
    if not found:
        raise ValueError(
            "on_breach=CostAction.STOP_AGENT: give agent= as the MonitoredAgent, or list those to stop in "
            "stops="
        )
    for each in found:
        if each.monitoring.environment != monitoring.environment:
            raise ValueError(
                f"on_breach=CostAction.STOP_AGENT: agent {each.agent_name!r} is of environment "
                f"{each.monitoring.environment!r}, which no alarm of {monitoring.environment!r} can stop"
            )
    return found


def _alarm(
    scope: Construct,
    id: str,
    monitoring: PlaneBase,
    *,
    about: str,
    metric: cw.IMetric,
    threshold: float,
    name: str | None = None,
    operator: cw.ComparisonOperator = cw.ComparisonOperator.GREATER_THAN_THRESHOLD,
    missing: cw.TreatMissingData = cw.TreatMissingData.NOT_BREACHING,
    periods: int = 1,
    failing: int | None = None,
) -> cw.Alarm:
    alarm = cw.Alarm(
        scope,
        id,
        alarm_name=monitoring.names.alarm(name or id),
        alarm_description=about,
        metric=metric,
        threshold=threshold,
        comparison_operator=operator,
        evaluation_periods=periods,
        datapoints_to_alarm=failing,
        treat_missing_data=missing,
    )
    alarm.add_alarm_action(cw_actions.SnsAction(monitoring.topic))
    return alarm

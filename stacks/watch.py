"""What the Manager observes: functions, each with an alarm on its errors, and alarms that exist already."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cw
from constructs import Construct

from agentops_constructs.plane_base import PlaneBase

_ALARM = "alarm:"


def watched_functions(watch: Sequence[str]) -> list[str]:
    """Return the names of functions in the context's `watch`."""
    return [each for each in watch if not each.startswith(_ALARM)]


def watched_alarms(watch: Sequence[str]) -> list[str]:
    """Return the names of alarms in the context's `watch`."""
    return [each.removeprefix(_ALARM) for each in watch if each.startswith(_ALARM)]


class WatchAlarms(Construct):
    """An alarm for each watched function, which wakes the Manager and mails nobody."""

    def __init__(self, scope: Construct, id: str, *, monitoring: PlaneBase, functions: Sequence[str]) -> None:
        super().__init__(scope, id)
        self.prefix = monitoring.names.alarm("Watch-")
        for name in functions:
            cw.Alarm(
                self,
                name,
                alarm_name=f"{self.prefix}{name}",
                alarm_description=f"The function {name} failed; the Manager looks into it.",
                metric=cw.Metric(
                    namespace="AWS/Lambda",
                    metric_name="Errors",
                    dimensions_map={"FunctionName": name},
                    statistic="Sum",
                    period=Duration.minutes(1),
                ),
                threshold=0,
                comparison_operator=cw.ComparisonOperator.GREATER_THAN_THRESHOLD,
                evaluation_periods=1,
                treat_missing_data=cw.TreatMissingData.NOT_BREACHING,
            )

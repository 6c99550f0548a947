"""CloudWatch metrics from the catalogue: nothing that is not emitted can be built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cw

from agentops_monitoring import catalogue
from agentops_monitoring.catalogue import MetricDetail


class MetricFactory:
    """Builds the metrics of one environment.

    Parameters
    ----------
    environment
        The value of the dimension `Environment`.
    detail
        The level at which the environment's agents emit.
    event_types
        Event types that agents declare beyond the built-in ones.
    """

    def __init__(
        self,
        environment: str,
        *,
        detail: MetricDetail = MetricDetail.STANDARD,
        event_types: Iterable[str] = (),
    ) -> None:
        self.environment = environment
        self.detail = detail
        self.event_types = frozenset(event_types)

    def declare(self, event_types: Iterable[str]) -> None:
        """Count event types among what is emitted."""
        self.event_types |= frozenset(event_types)

    def metric(
        self,
        namespace: str,
        name: str,
        dimensions: Mapping[str, str] | None = None,
        *,
        label: str | None = None,
        color: str | None = None,
        statistic: str | None = None,
        period: Duration | None = None,
    ) -> cw.Metric:
        """Build a metric.

        Parameters
        ----------
        namespace, name
            As in the catalogue.
        dimensions
            Those beside `Environment`.
        label, color
            How a widget shows it.
        statistic
            The catalogue's own by default.
        period
            One minute by default.

        Raises
        ------
        ValueError
            Nothing emits that metric with those dimensions at this level of detail.
        """
        dimensions = {catalogue.ENVIRONMENT: self.environment, **(dimensions or {})}
        spec = catalogue.check(namespace, name, dimensions, detail=self.detail, declared=self.event_types)
        return cw.Metric(
            namespace=namespace,
            metric_name=name,
            dimensions_map=dimensions,
            statistic=statistic or spec.statistic,
            label=label or name,
            color=color,
            period=period or Duration.minutes(1),
        )

    def has(self, namespace: str, name: str, *dimensions: str) -> bool:
        """Return whether a metric exists with `Environment` and these dimensions at this level of detail."""
        spec = catalogue.spec(namespace, name, declared=self.event_types)
        return any(set(each) == {catalogue.ENVIRONMENT, *dimensions} for each in spec.sets_at(self.detail))

    def events(
        self, name: str, agent: str | None = None, *, label: str | None = None, color: str | None = None,
        period: Duration | None = None,
    ) -> cw.Metric:  # fmt: skip
        """Build the count of an event type, of one agent or of all."""
        return self.metric(catalogue.EVENTS, name, _agent(agent), label=label, color=color, period=period)

    def costs(
        self, name: str, agent: str | None = None, *, label: str | None = None, color: str | None = None,
        period: Duration | None = None,
    ) -> cw.Metric:  # fmt: skip
        """Build a cost in USD, of one agent or of all."""
        return self.metric(catalogue.COSTS, name, _agent(agent), label=label, color=color, period=period)

    def success_rate(
        self,
        passed: str,
        failed: str,
        *,
        label: str,
        agent: str | None = None,
        color: str | None = None,
        period: Duration | None = None,
    ) -> cw.MathExpression:
        """Build passed / (passed + failed) of two event types, in percent; no data while there is neither."""
        return cw.MathExpression(
            # A period with passes alone has no data point for the failures.
            expression=f"100 * FILL({passed}, 0) / (FILL({passed}, 0) + FILL({failed}, 0))",
            using_metrics={
                passed: self.events(passed, agent, period=period),
                failed: self.events(failed, agent, period=period),
            },
            label=label,
            color=color,
            period=period or Duration.minutes(1),
        )


def _agent(agent: str | None) -> dict[str, str]:
    return {catalogue.AGENT_NAME: agent} if agent else {}

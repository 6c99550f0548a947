"""What the dashboards have in common: the metrics at hand, colours, and widgets in the house's style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from aws_cdk import aws_cloudwatch as cw

from ..metrics import MetricFactory

FULL = 24
GOOD, BAD, WARN, CALM = "#2ca02c", "#d62728", "#ff7f0e", "#1f77b4"
# One colour an agent, the same in every chart, told apart by the colour-blind as well (Okabe & Ito).
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")


class Agent(Protocol):
    """An agent, as far as a dashboard shows it."""

    @property
    def agent_name(self) -> str:
        """In the dimension `AgentName`."""

    @property
    def function_name(self) -> str:
        """In the dimension `FunctionName`."""


@dataclass(frozen=True, slots=True)
class Board:
    """Everything a dashboard is drawn from, and the widgets to draw it with."""

    environment: str
    metrics: MetricFactory
    agents: Sequence[Agent]
    flows: Sequence[tuple[str, str]]
    models: Sequence[str]
    alarms: Sequence[cw.IAlarm]
    daily_budget_usd: float
    widgets_function_arn: str
    links: Mapping[str, str]

    def colour(self, agent: Agent) -> str:
        """Return the agent's colour."""
        return PALETTE[list(self.agents).index(agent) % len(PALETTE)]

    def header(self, title: str, about: str) -> cw.TextWidget:
        """Return the title row, with links to the other dashboards."""
        links = " · ".join(
            f"[{label}](#dashboards:name={name})" for label, name in self.links.items() if label != title
        )
        names = ", ".join(each.agent_name for each in self.agents) or "no agents named"
        return cw.TextWidget(
            markdown=f"# {title} · {self.environment}\n{about} Agents: {names}. See also {links}.",
            width=FULL,
            height=2,
        )

    def value(self, title: str, *metrics: cw.IMetric, width: int = 4, latest: bool = False) -> cw.IWidget:
        """Return a figure over the dashboard's whole time range, or the latest one and the way to it."""
        return cw.SingleValueWidget(
            title=title,
            metrics=list(metrics),
            width=width,
            height=4,
            sparkline=latest,
            set_period_to_time_range=not latest,
        )

    def gauge(self, title: str, metric: cw.IMetric, *, width: int = 4, latest: bool = False) -> cw.IWidget:
        """Return a percentage over the dashboard's whole time range, or the latest one."""
        return cw.GaugeWidget(
            title=title,
            metrics=[metric],
            left_y_axis=cw.YAxisProps(min=0, max=100),
            width=width,
            height=4,
            set_period_to_time_range=not latest,
        )

    def lines(
        self,
        title: str,
        metrics: Sequence[cw.IMetric],
        *,
        width: int = 12,
        unit: str | None = None,
        stacked: bool = False,
        view: cw.GraphWidgetView = cw.GraphWidgetView.TIME_SERIES,
        annotations: Sequence[cw.HorizontalAnnotation] = (),
        maximum: float | None = None,
    ) -> cw.IWidget:
        """Return a chart; bars and pies are totals over the time range."""
        over_time = view == cw.GraphWidgetView.TIME_SERIES
        return cw.GraphWidget(
            title=title,
            left=list(metrics),
            width=width,
            height=6,
            stacked=stacked,
            view=view,
            left_y_axis=cw.YAxisProps(min=0, max=maximum, label=unit, show_units=False)
            if over_time
            else None,
            left_annotations=list(annotations) or None,
            legend_position=cw.LegendPosition.BOTTOM,
            set_period_to_time_range=None if over_time else True,
        )

    def custom(self, title: str, name: str, *, width: int = FULL, height: int = 8) -> cw.IWidget:
        """Return a picture that the plane's widgets function draws."""
        return cw.CustomWidget(
            title=title,
            function_arn=self.widgets_function_arn,
            params={"widget": name, "environment": self.environment},
            width=width,
            height=height,
            update_on_refresh=True,
            update_on_resize=True,
            update_on_time_range_change=True,
        )

    def alarm_states(self, *, width: int = FULL, height: int = 4) -> cw.IWidget:
        """Return the alarms, those in alarm first."""
        return cw.AlarmStatusWidget(
            title="Alarms",
            alarms=list(self.alarms),
            sort_by=cw.AlarmStatusWidgetSortBy.STATE_UPDATED_TIMESTAMP,
            width=width,
            height=height,
        )

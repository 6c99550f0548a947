"""Checks over the whole tree at synth, which also see what escape hatches and other constructs did."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jsii
from aws_cdk import Acknowledgment, Annotations, Stack, Token, Validations
from aws_cdk import aws_cloudwatch as cw
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct, IConstruct, IValidation

from agentops_monitoring import catalogue
from agentops_monitoring.catalogue import MetricDetail

from .metrics import MetricFactory

OUR_NAMESPACES = "AgentOps/"
_ATTRIBUTE = "_agentops_tree_validation"


@jsii.implements(IValidation)
class TreeValidation:
    """Fails the synth on a widget or alarm that nothing feeds, and on log settings that lose lines.

    Warns of agents' names that no agent of the app has; that agent may be in another app.
    """

    def __init__(self, root: IConstruct) -> None:
        self._root = root
        self.detail = MetricDetail.MINIMAL
        self.event_types: set[str] = set()
        self.monitored: list[tuple[lambda_.Function, logs.ILogGroup]] = []
        self._agents: dict[str, set[str]] = {}
        self._named: list[tuple[IConstruct, str, str]] = []

    @classmethod
    def ensure(cls, scope: Construct) -> TreeValidation:
        """Return the validation of the tree that a construct is in, adding it the first time."""
        root = scope.node.root
        found = getattr(root, _ATTRIBUTE, None)
        if not isinstance(found, cls):
            found = cls(root)
            setattr(root, _ATTRIBUTE, found)
            root.node.add_validation(found)
        return found

    def expect(self, metrics: MetricFactory) -> None:
        """Count a plane's level of detail and declared event types among what is emitted."""
        self.detail = max(self.detail, metrics.detail)
        self.event_types |= metrics.event_types

    def add_agent(self, environment: str, agent: str) -> None:
        """Count an agent, or another function with costs, among those of an environment."""
        self._agents.setdefault(environment, set()).add(agent)

    def refer(self, construct: IConstruct, environment: str, agents: Iterable[str]) -> None:
        """Note the names, given as text, of agents that a construct shows or watches."""
        self._named += [(construct, environment, each) for each in dict.fromkeys(agents)]

    def validate(self) -> list[str]:
        """Return what is wrong, a line each, with the path of the construct."""
        self._warn_of_unknown_agents()
        problems = [*self._log_problems(), *self._name_problems()]
        for construct in self._root.node.find_all():
            if isinstance(construct, cw.CfnAlarm):
                metrics = _alarm_metrics(construct)
            elif isinstance(construct, cw.CfnDashboard):
                metrics = _dashboard_metrics(construct)
            else:
                continue
            problems += [f"{construct.node.path}: {problem}" for problem in self._metric_problems(metrics)]
        return problems

    def _warn_of_unknown_agents(self) -> None:
        for construct, environment, agent in self._named:
            known = self._agents.get(environment)
            if known and agent not in known and not Token.is_unresolved(agent):
                Annotations.of(construct).add_warning_v2(
                    f"agentops:unknown-agent-{agent}",
                    f"no agent of this app in environment {environment} is named {agent!r}, they are "
                    f"{', '.join(sorted(known))}: it shows nothing unless another app has that agent",
                )

    def _name_problems(self) -> Iterator[str]:
        # CloudFormation would find out in the middle of a deployment.
        paths: dict[tuple[str, str], str] = {}
        for alarm in self._root.node.find_all():
            if isinstance(alarm, cw.CfnAlarm) and alarm.alarm_name:
                key = (Stack.of(alarm).environment, alarm.alarm_name)
                first = paths.setdefault(key, alarm.node.path)
                if first != alarm.node.path:
                    yield f"{alarm.node.path}: {first} is named {alarm.alarm_name} too: give it another name"

    def _metric_problems(self, metrics: Iterable[tuple[str, str, frozenset[str]]]) -> Iterator[str]:
        for namespace, name, dimensions in metrics:
            if not namespace.startswith(OUR_NAMESPACES):
                continue
            try:
                catalogue.check(namespace, name, dimensions, detail=self.detail, declared=self.event_types)
            except ValueError as problem:
                yield str(problem)

    def _log_problems(self) -> Iterator[str]:
        for function, log_group in self.monitored:
            stack = Stack.of(function)
            resource = function.node.default_child
            if isinstance(resource, lambda_.CfnFunction):
                config = stack.resolve(resource.logging_config) or {}
                level = config.get("systemLogLevel", "INFO")
                if config.get("logFormat") == "JSON" and level not in ("DEBUG", "INFO"):
                    yield (
                        f"{function.node.path}: system log level {level} drops Lambda's report line, "
                        "and with it the compute cost: use INFO"
                    )
            group = log_group.node.default_child
            if isinstance(group, logs.CfnLogGroup):
                log_class = stack.resolve(group.log_group_class) or "STANDARD"
                if log_class != "STANDARD":
                    yield f"{log_group.node.path}: log class {log_class} can't be subscribed to, use STANDARD"


def acknowledge(construct: IConstruct, rule: str, reason: str) -> None:
    """Record why a rule of cdk-nag does not apply to a construct and what is under it."""
    Validations.of(construct).acknowledge(Acknowledgment(id=rule, reason=reason))


def _alarm_metrics(alarm: cw.CfnAlarm) -> Iterator[tuple[str, str, frozenset[str]]]:
    stack = Stack.of(alarm)
    if alarm.namespace and alarm.metric_name:
        dimensions = stack.resolve(alarm.dimensions) or []
        yield alarm.namespace, alarm.metric_name, frozenset(each["name"] for each in dimensions)
    for query in stack.resolve(alarm.metrics) or []:
        metric = query.get("metricStat", {}).get("metric")
        if metric:
            dimensions = metric.get("dimensions", [])
            yield metric["namespace"], metric["metricName"], frozenset(each["name"] for each in dimensions)


def _dashboard_metrics(dashboard: cw.CfnDashboard) -> Iterator[tuple[str, str, frozenset[str]]]:
    for widget in dashboard_body(Stack.of(dashboard).resolve(dashboard.dashboard_body))["widgets"]:
        yield from widget_metrics(widget)


def dashboard_body(resolved: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return a dashboard's body as data; what CloudFormation fills in becomes `${…}`."""
    if isinstance(resolved, Mapping):
        parts = resolved["Fn::Join"][1]
        text = "".join(part if isinstance(part, str) else _placeholder(part) for part in parts)
    else:
        text = resolved
    body: dict[str, Any] = json.loads(text)
    return body


def widget_metrics(widget: Mapping[str, Any]) -> Iterator[tuple[str, str, frozenset[str]]]:
    """Yield the metrics of a widget: namespace, name and the names of the dimensions."""
    previous: list[Any] = []
    for row in widget.get("properties", {}).get("metrics", []):
        fields = [each for each in row if isinstance(each, str)]
        if not fields:
            continue
        # "." repeats the field above it, "..." all of them.
        if fields[0] == "...":
            fields = [*previous[: len(previous) - len(fields) + 1], *fields[1:]]
        fields = [previous[i] if each == "." else each for i, each in enumerate(fields)]
        previous = fields
        yield fields[0], fields[1], frozenset(fields[2::2])


def _placeholder(part: Mapping[str, Any]) -> str:
    return "${" + json.dumps(part).replace('"', "'") + "}"

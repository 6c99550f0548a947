"""Health and activity of the whole system."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cw

from agentops_monitoring import catalogue
from agentops_monitoring.catalogue import AGENT_NAME, EVENTS
from agentops_monitoring.event_types import DOMAIN_EVENTS

from .board import BAD, CALM, GOOD, PALETTE, WARN, Board


def rows(board: Board) -> list[list[cw.IWidget]]:
    """Return the widgets of the main dashboard, row by row."""
    metrics = board.metrics
    completed = metrics.events("workflow_completed", label="completed", color=GOOD)
    failed = metrics.events("workflow_failed", label="failed", color=BAD)
    found: list[list[cw.IWidget]] = [
        [board.header("Main", "How the agents are doing.")],
        [
            board.gauge(
                "Workflow success",
                metrics.success_rate(
                    "workflow_completed", "workflow_failed", label="completed, %", color=GOOD
                ),
            ),
            board.value("Workflows", completed, failed, width=6),
            board.value("Issues detected", metrics.events("issue_detected", label="issues", color=WARN)),
            board.value(
                "Tests",
                metrics.events("test_passed", label="passed", color=GOOD),
                metrics.events("test_failed", label="failed", color=BAD),
                width=6,
            ),
            board.value(
                "Spend today, USD", metrics.costs("SpendToDate", label="all agents", color=CALM), latest=True
            ),
        ],
    ]
    if board.alarms:
        found.append([board.alarm_states()])
    found.append([_activity(board), _work(board)])
    if board.agents:
        found.append([_invocations(board), _duration(board)])
    found += [
        [_failures(board), _success(board)],
        [board.custom("Latest decisions", "decisions", height=9)],
        [_plane(board)],
    ]
    return found


def _activity(board: Board) -> cw.IWidget:
    return board.lines(
        "Events",
        [
            board.metrics.events(name, label=name.replace("_", " "), color=colour)
            for name, colour in zip(sorted(DOMAIN_EVENTS), PALETTE, strict=False)
        ],
        stacked=True,
        unit="events",
    )


def _work(board: Board) -> cw.IWidget:
    metrics = board.metrics
    if not board.agents or not metrics.has(EVENTS, "decision_made", AGENT_NAME):
        return board.lines("Decisions", [metrics.events("decision_made", label="decisions", color=CALM)])
    return board.lines(
        "Decisions by agent",
        [
            metrics.events("decision_made", each.agent_name, label=each.agent_name, color=board.colour(each))
            for each in board.agents
        ],
        stacked=True,
        unit="decisions",
    )


def _invocations(board: Board) -> cw.IWidget:
    return board.lines(
        "Invocations by agent",
        [_lambda(board, "Invocations", "Sum", index) for index in range(len(board.agents))],
        stacked=True,
        unit="invocations",
    )


def _duration(board: Board) -> cw.IWidget:
    return board.lines(
        "Duration by agent, p95",
        [_lambda(board, "Duration", "p95", index) for index in range(len(board.agents))],
        unit="ms",
    )


def _failures(board: Board) -> cw.IWidget:
    metrics = board.metrics
    if board.agents and metrics.has(EVENTS, "invocation_failed", AGENT_NAME):
        failed = [
            metrics.events(
                "invocation_failed",
                each.agent_name,
                label=f"{each.agent_name} failed",
                color=board.colour(each),
            )
            for each in board.agents
        ]
    else:
        failed = [metrics.events("invocation_failed", label="failed", color=BAD)]
    return board.lines(
        "Failures",
        [*failed, metrics.events("test_failed", label="tests failed", color=BAD)],
        unit="failures",
    )


def _success(board: Board) -> cw.IWidget:
    metrics = board.metrics
    return board.lines(
        "Success rates",
        [
            metrics.success_rate("workflow_completed", "workflow_failed", label="workflows", color=GOOD),
            metrics.success_rate("test_passed", "test_failed", label="tests", color=CALM),
        ],
        unit="%",
        maximum=100,
        annotations=[cw.HorizontalAnnotation(value=80, label="alert below", color=BAD)],
    )


def _plane(board: Board) -> cw.IWidget:
    metrics = board.metrics
    return board.lines(
        "The monitor itself",
        [
            metrics.metric(catalogue.MONITOR, "IngestLag", label="lag from line to ledger, ms", color=CALM),
            metrics.metric(catalogue.MONITOR, "Duplicates", label="redelivered, dropped", color=WARN),
            metrics.metric(catalogue.MONITOR, "Malformed", label="unreadable", color=BAD),
            metrics.metric(catalogue.MONITOR, "Forged", label="forged", color="#9467bd"),
        ],
        width=24,
    )


def _lambda(board: Board, name: str, statistic: str, index: int) -> cw.Metric:
    agent = board.agents[index]
    return cw.Metric(
        namespace="AWS/Lambda",
        metric_name=name,
        dimensions_map={"FunctionName": agent.function_name},
        statistic=statistic,
        label=agent.agent_name,
        color=board.colour(agent),
        period=Duration.minutes(1),
    )

"""Who talks to whom, and whether it arrives."""

from __future__ import annotations

from aws_cdk import aws_cloudwatch as cw

from agentops_monitoring import catalogue
from agentops_monitoring.catalogue import COLLABORATION, FROM_AGENT, TO_AGENT

from .board import BAD, CALM, GOOD, PALETTE, WARN, Board


def rows(board: Board) -> list[list[cw.IWidget]]:
    """Return the widgets of the collaboration dashboard, row by row."""
    metrics = board.metrics

    def about(name: str, label: str, colour: str) -> cw.Metric:
        return metrics.metric(COLLABORATION, name, label=label, color=colour)

    found: list[list[cw.IWidget]] = [
        [board.header("Collaboration", "Who hands over to whom, how fast, and what got lost.")],
        [
            board.value("Messages", about("MessageCount", "messages", CALM), width=6),
            board.value("Handoff, p95", about("HandoffLatency", "sent to received", CALM), width=6),
            board.value("Lost messages", about("LostMessages", "lost", BAD), width=6),
            board.value("Loops", about("LoopsDetected", "workflows", WARN), width=6),
        ],
        [board.custom("Flow between the agents", "flow", height=7)],
    ]
    if board.flows and metrics.has(COLLABORATION, "AgentCommunication", FROM_AGENT, TO_AGENT):
        found.append([_pairs(board), _shares(board)])
    found += [[_delivery(board), _latency(board)], [_anomalies(board), _outcomes(board)]]
    return found


def _flow_metrics(board: Board) -> list[cw.IMetric]:
    return [
        board.metrics.metric(
            COLLABORATION,
            "AgentCommunication",
            {FROM_AGENT: sender, TO_AGENT: receiver},
            label=f"{sender} → {receiver}",
            color=PALETTE[index % len(PALETTE)],
        )
        for index, (sender, receiver) in enumerate(board.flows)
    ]


def _pairs(board: Board) -> cw.IWidget:
    return board.lines("Messages by pair", _flow_metrics(board), stacked=True, unit="messages")


def _shares(board: Board) -> cw.IWidget:
    return board.lines("Busiest pairs", _flow_metrics(board), view=cw.GraphWidgetView.BAR)


def _delivery(board: Board) -> cw.IWidget:
    metrics = board.metrics
    return board.lines(
        "Sent and received",
        [
            metrics.events("message_sent", label="sent", color=CALM),
            metrics.events("message_received", label="received", color=GOOD),
        ],
        unit="messages",
    )


def _latency(board: Board) -> cw.IWidget:
    latency = board.metrics
    return board.lines(
        "Handoff latency",
        [
            latency.metric(
                COLLABORATION, "HandoffLatency", statistic=statistic, label=statistic, color=colour
            )
            for statistic, colour in (("p50", GOOD), ("p95", CALM), ("Maximum", WARN))
        ],
        unit="ms",
    )


def _anomalies(board: Board) -> cw.IWidget:
    kinds = [name for namespace, name in catalogue.METRICS if namespace == catalogue.ANOMALIES]
    return board.lines(
        "Anomalies",
        [
            board.metrics.metric(catalogue.ANOMALIES, kind, label=kind.replace("_", " "), color=colour)
            for kind, colour in zip(kinds, PALETTE, strict=False)
        ],
        stacked=True,
        unit="findings",
    )


def _outcomes(board: Board) -> cw.IWidget:
    metrics = board.metrics
    return board.lines(
        "Workflow outcomes",
        [
            metrics.events("workflow_completed", label="completed", color=GOOD),
            metrics.events("workflow_failed", label="failed", color=BAD),
        ],
        stacked=True,
        unit="workflows",
    )

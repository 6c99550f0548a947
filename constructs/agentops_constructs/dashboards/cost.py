"""Where the money goes."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cw

from agentops_monitoring.catalogue import AGENT_NAME, COSTS, EVENT_TYPE, MODEL
from agentops_monitoring.event_types import DOMAIN_EVENTS

from .board import BAD, CALM, PALETTE, WARN, Board

OVERHEAD = "overhead"


def rows(board: Board) -> list[list[cw.IWidget]]:
    """Return the widgets of the cost dashboard, row by row."""
    metrics = board.metrics
    found: list[list[cw.IWidget]] = [
        [board.header("Cost", "What the agents spend, to the last digit, in USD and UTC days.")],
        [
            board.value(
                "Spend today, USD",
                metrics.costs("SpendToDate", label="all agents", color=CALM),
                width=6,
                latest=True,
            ),
            board.gauge(
                f"Today's budget of ${board.daily_budget_usd:g}, %",
                metrics.costs("BudgetUtilization", label="spent", color=WARN),
                width=6,
                latest=True,
            ),
            board.value("Per completed workflow, USD", _per_workflow(board), width=6),
            board.value(
                "Calls without a price",
                metrics.costs("UnpricedCalls", label="calls", color=BAD),
                width=6,
            ),
        ],
        [_spend(board), _kinds(board)],
        [_agents(board), _pie(board)],
    ]
    if board.models and metrics.has(COSTS, "InputTokens", MODEL):
        found.append([_models(board), _tokens(board)])
    found.append([board.custom("Budgets of this day and month", "budgets", height=5)])
    found.append([board.custom("What one result has cost", "unit_costs", height=5)])
    found.append([board.custom("Cost drivers and savings", "cost_drivers", height=9)])
    return found


def _per_workflow(board: Board) -> cw.IMetric:
    return cw.MathExpression(
        expression="total / completed",
        using_metrics={
            "total": board.metrics.costs("TotalCost"),
            "completed": board.metrics.events("workflow_completed"),
        },
        label="on average",
        color=CALM,
        period=Duration.minutes(1),
    )


def _spend(board: Board) -> cw.IWidget:
    metrics = board.metrics
    agents = [
        metrics.costs("SpendToDate", each.agent_name, label=each.agent_name, color=board.colour(each))
        for each in board.agents
        if metrics.has(COSTS, "SpendToDate", AGENT_NAME)
    ]
    budget = cw.HorizontalAnnotation(value=board.daily_budget_usd, label="daily budget", color=BAD)
    total = metrics.costs("SpendToDate", label="all", color="#333333")
    return board.lines("Spend since midnight UTC", [total, *agents], unit="USD", annotations=[budget])


def _kinds(board: Board) -> cw.IWidget:
    metrics = board.metrics
    return board.lines(
        "Models and compute",
        [
            metrics.costs("LLMCost", label="models", color=PALETTE[0]),
            metrics.costs("LambdaExecutionCost", label="Lambda", color=PALETTE[1]),
        ],
        stacked=True,
        unit="USD a minute",
    )


def _agents(board: Board) -> cw.IWidget:
    metrics = board.metrics
    if not board.agents or not metrics.has(COSTS, "TotalCost", AGENT_NAME):
        return board.lines("Cost", [metrics.costs("TotalCost", label="all", color=CALM)], unit="USD a minute")
    return board.lines(
        "Cost by agent",
        [
            metrics.costs("TotalCost", each.agent_name, label=each.agent_name, color=board.colour(each))
            for each in board.agents
        ],
        stacked=True,
        unit="USD a minute",
    )


def _pie(board: Board) -> cw.IWidget:
    metrics = board.metrics
    if not metrics.has(COSTS, "EventCost", EVENT_TYPE):
        return board.lines(
            "Cost by kind",
            [
                metrics.costs("LLMCost", label="models", color=PALETTE[0]),
                metrics.costs("LambdaExecutionCost", label="Lambda", color=PALETTE[1]),
            ],
            view=cw.GraphWidgetView.PIE,
        )
    return board.lines(
        "Cost by what it led to",
        [
            metrics.metric(COSTS, "EventCost", {EVENT_TYPE: name}, label=name.replace("_", " "), color=colour)
            for name, colour in zip((*sorted(DOMAIN_EVENTS), OVERHEAD), PALETTE, strict=False)
        ],
        view=cw.GraphWidgetView.PIE,
    )


def _models(board: Board) -> cw.IWidget:
    return board.lines(
        "Cost by model",
        [
            board.metrics.metric(COSTS, "LLMCost", {MODEL: model}, label=model, color=colour)
            for model, colour in zip(board.models, PALETTE, strict=False)
        ],
        stacked=True,
        unit="USD a minute",
    )


def _tokens(board: Board) -> cw.IWidget:
    names = ("InputTokens", "OutputTokens", "CacheReadTokens")
    several = len(board.models) > 1
    return board.lines(
        "Tokens",
        [
            board.metrics.metric(
                COSTS, name, {MODEL: model}, label=_token_label(name, model if several else "")
            )
            for model in board.models
            for name in names
        ],
        unit="tokens a minute",
    )


def _token_label(name: str, model: str) -> str:
    plain = {"InputTokens": "input", "OutputTokens": "output", "CacheReadTokens": "read from cache"}[name]
    return f"{plain} {model}".strip()

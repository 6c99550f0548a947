"""Prices: what a model call and a Lambda invocation cost, exact, in USD.

Standard library only: agents import this inside `track_llm_usage`.
"""

from __future__ import annotations

from agentops_monitoring.pricing.book import cost_of, llm_cost, price_book, resolve, unpriced_fees
from agentops_monitoring.pricing.usage import TokenUsage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agentops_monitoring.pricing.compute import lambda_cost

__all__ = ["TokenUsage", "cost_of", "lambda_cost", "llm_cost", "price_book", "resolve", "unpriced_fees"]


def __getattr__(name: str) -> object:
    if name == "lambda_cost":  # of the plane; no part of an agent's bundle
        from agentops_monitoring.pricing import compute

        return compute.lambda_cost
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

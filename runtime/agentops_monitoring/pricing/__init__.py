"""Prices: what a model call and a Lambda invocation cost, exact, in USD.

Standard library only: agents import this inside `track_llm_usage`.
"""

from __future__ import annotations

from agentops_monitoring.pricing.book import cost_of, llm_cost, price_book, resolve, unpriced_fees
from agentops_monitoring.pricing.compute import lambda_cost
from agentops_monitoring.pricing.usage import TokenUsage

__all__ = ["TokenUsage", "cost_of", "lambda_cost", "llm_cost", "price_book", "resolve", "unpriced_fees"]

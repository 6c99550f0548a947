"""What the ledger says about the agents: flows, effectiveness, findings and what could cost less."""

from __future__ import annotations

# The function, not a module of its name, which would shadow it.
from agentops_monitoring.analysis.forecasting import Backtest, Forecast, forecast

__all__ = ["Backtest", "Forecast", "forecast"]

"""Enforces an agent's daily budget: reserves the worst case of a model call before it, settles it after.

Opt-in, and the one thing in an agent that waits for a network: `AGENTOPS_BUDGET` turns it on. Each call whose
client is instrumented takes one conditional update before it and one after, on the agent's own item of the
ledger's table.
"""

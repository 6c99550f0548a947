"""The ledger: raw events, decisions, and exact rollups of them, each event counted once whatever fails.

`parse` reads log lines, `writer` commits them, `reader` answers questions in a number of requests that grows
with hours, not with events.
"""

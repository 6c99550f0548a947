"""From ledger events to traces of other systems.

`stream` reads events out of DynamoDB stream records, `lookup` fetches what they leave out, `spans` maps an
event to a span without knowing who receives it (with `parts`, and `records` for what has no metric),
`conventions` holds every attribute name that is used, `backend` says what a receiver must offer, and
`agentops_sdk` is the one that delivers to AgentOps.
"""

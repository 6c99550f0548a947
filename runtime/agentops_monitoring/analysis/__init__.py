"""What the ledger says about the agents: flows, effectiveness, findings and what could cost less."""

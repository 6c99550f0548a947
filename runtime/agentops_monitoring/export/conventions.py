"""The attribute names of exported spans, each once.

Two vocabularies go out side by side: OpenTelemetry's GenAI conventions, which any OTLP backend reads, and
the names that AgentOps' own backend reads. The GenAI names below are the same in v1.41 of the conventions
and in the repository they have moved to since (github.com/open-telemetry/semantic-conventions-genai,
unreleased), so one set serves both; a name that comes to differ is to be decided here and nowhere else.
"""

from __future__ import annotations

from typing import Final

# --- OpenTelemetry: GenAI
OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_ID: Final = "gen_ai.response.id"
AGENT_NAME: Final = "gen_ai.agent.name"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
"""Here with cached tokens, as the conventions want it; in our own events the same name means without them."""
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
OPERATION_CHAT: Final = "chat"
OPERATION_INVOKE_AGENT: Final = "invoke_agent"

# --- OpenTelemetry: the rest
SERVICE_NAME: Final = "service.name"
SERVICE_NAMESPACE: Final = "service.namespace"
DEPLOYMENT_ENVIRONMENT: Final = "deployment.environment.name"
INVOCATION_ID: Final = "faas.invocation_id"
ERROR_TYPE: Final = "error.type"
STACKTRACE: Final = "exception.stacktrace"
MESSAGE_ID: Final = "messaging.message.id"
MESSAGE_OPERATION: Final = "messaging.operation.type"

# --- AgentOps: what its backend and its pages read
AO_KIND: Final = "agentops.span.kind"
AO_INPUT: Final = "agentops.entity.input"
AO_OUTPUT: Final = "agentops.entity.output"
AO_END_STATE: Final = "agentops.session.end_state"
AO_ENVIRONMENT: Final = "agentops.environment"
AO_PROJECT: Final = "agentops.project.id"
AO_OPERATION: Final = "operation.name"
AO_WORKFLOW: Final = "workflow.workflow_id"
AO_AGENT: Final = "agent.name"
AO_REASONING: Final = "agent.reasoning"
AO_FROM: Final = "from_agent"
AO_TO: Final = "to_agent"
AO_ERROR_MESSAGE: Final = "error.message"
AO_PROMPT_TOKENS: Final = "gen_ai.usage.prompt_tokens"
"""Without cache reads: where no total is given, the backend adds prompt, completion and cache reads up."""
AO_COMPLETION_TOKENS: Final = "gen_ai.usage.completion_tokens"
AO_CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read_input_tokens"
AO_CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_creation_input_tokens"
AO_TOTAL_TOKENS: Final = "gen_ai.usage.total_tokens"
AO_TOTAL_COST: Final = "gen_ai.usage.total_cost"
"""USD. Where it is missing the backend prices the tokens with a list of its own."""

# --- Ours
EVENT_ID: Final = "agentops.event.id"
EVENT_TYPE: Final = "agentops.event.type"
COST_STATUS: Final = "agentops.cost.status"
"""`priced` or `unpriced`."""
COST_USD: Final = "agentops.cost.usd"
"""The exact decimal; `AO_TOTAL_COST` is the same as a double."""
DECISION_ID: Final = "agentops.decision.id"
DECISION_TYPE: Final = "agentops.decision.type"
DECISION_CONFIDENCE: Final = "agentops.decision.confidence"
DECISION_ALTERNATIVES: Final = "agentops.decision.alternatives"
MESSAGE_TYPE: Final = "agentops.message.type"
MESSAGE_HOP: Final = "agentops.message.hop"
MESSAGE_LATENCY: Final = "agentops.message.latency_ms"
WORKFLOW_DURATION: Final = "agentops.workflow.duration_ms"
WORKFLOW_REASON: Final = "agentops.workflow.reason"

"""The peers' ways of doing the same; imports inside, since each case runs in an interpreter of its own."""

# mypy: ignore-errors

from __future__ import annotations

from datetime import UTC, datetime

from benchmarks.cases import (
    DATA,
    EVENT,
    EVENTS_AN_INVOCATION,
    IDS,
    INPUT_TOKENS,
    INVOCATION,
    LLM,
    MODEL,
    OUTPUT_TOKENS,
    USAGE,
    Case,
    Context,
    Job,
)

AGENTOPS = ".venv-agentops"
"""The AgentOps SDK delivers nothing with the OpenTelemetry that Langfuse wants."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _powertools_line(metrics) -> None:
    at = _now()
    metrics.add_dimension(name="Environment", value="production")
    metrics.add_dimensions(Environment="production", AgentName="bench")
    metrics.add_metric(name="issue_detected", unit="Count", value=1)
    metrics.add_metadata(key="timestamp", value=at)
    metrics.add_metadata(key="level", value="INFO")
    metrics.add_metadata(
        key="agentops.event", value={**IDS, "type": "issue_detected", "at": at, "data": DATA}
    )
    metrics.flush_metrics()


def _powertools_event(_sink: str) -> Job:
    from aws_lambda_powertools import Metrics

    metrics = Metrics(namespace="AgentOps/Events", service="bench")
    return lambda: _powertools_line(metrics)


def _powertools_bare(_sink: str) -> Job:
    from aws_lambda_powertools import Metrics

    metrics = Metrics(namespace="AgentOps/Events", service="bench")

    def job() -> None:
        metrics.add_metric(name="issue_detected", unit="Count", value=1)
        for name, value in DATA.items():
            metrics.add_metadata(key=name, value=value)
        metrics.flush_metrics()

    return job


def _powertools_both(_sink: str) -> Job:
    from aws_lambda_powertools import Logger, Metrics

    metrics = Metrics(namespace="AgentOps/Events", service="bench")
    logger = Logger(service="bench")

    def job() -> None:
        metrics.add_dimension(name="Environment", value="production")
        metrics.add_dimensions(Environment="production", AgentName="bench")
        metrics.add_metric(name="issue_detected", unit="Count", value=1)
        metrics.flush_metrics()
        logger.info("issue_detected", extra={**IDS, "data": DATA})

    return job


def _powertools_usage(_sink: str) -> Job:
    from aws_lambda_powertools import Metrics

    metrics = Metrics(namespace="AgentOps/Costs", service="bench")

    def job() -> None:
        metrics.add_metric(name="InputTokens", unit="Count", value=INPUT_TOKENS)
        metrics.add_metric(name="OutputTokens", unit="Count", value=OUTPUT_TOKENS)
        metrics.add_metadata(key="agentops.event", value={**IDS, "type": "llm_usage", "data": USAGE})
        metrics.flush_metrics()

    return job


def _powertools_invocation(_sink: str) -> Job:
    from aws_lambda_powertools import Logger, Metrics

    metrics = Metrics(namespace="AgentOps/Events", service="bench")
    logger = Logger(service="bench")

    @logger.inject_lambda_context
    @metrics.log_metrics(capture_cold_start_metric=True)
    def handler(_event: dict, _context: Context) -> None:
        metrics.add_dimension(name="Environment", value="production")
        for _ in range(EVENTS_AN_INVOCATION):
            metrics.add_metric(name="issue_detected", unit="Count", value=1)
            logger.info("issue_detected", extra={**IDS, "data": DATA})

    context = Context()
    return lambda: handler({}, context)


def _emf_line(kind: str, values: dict, data: dict) -> None:
    from aws_embedded_metrics.logger.metrics_context import MetricsContext
    from aws_embedded_metrics.serializers.log_serializer import LogSerializer

    context = MetricsContext.empty()
    context.namespace = "AgentOps/Events"
    context.set_dimensions(
        [{"Environment": "production"}, {"Environment": "production", "AgentName": "bench"}]
    )
    for name, value in values.items():
        context.put_metric(name, value, "Count")
    at = _now()
    context.set_property("timestamp", at)
    context.set_property("level", "INFO")
    context.set_property("agentops.event", {**IDS, "type": kind, "at": at, "data": data})
    for line in LogSerializer.serialize(context):
        print(line)


def _emf_event(_sink: str) -> Job:
    return lambda: _emf_line("issue_detected", {"issue_detected": 1}, DATA)


def _emf_usage(_sink: str) -> Job:
    tokens = {"InputTokens": INPUT_TOKENS, "OutputTokens": OUTPUT_TOKENS}
    return lambda: _emf_line("llm_usage", tokens, USAGE)


def _emf_invocation(_sink: str) -> Job:
    def job() -> None:
        for _ in range(EVENTS_AN_INVOCATION):
            _emf_line("issue_detected", {"issue_detected": 1}, DATA)

    return job


def _otel(sink: str):
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{sink}/v1/traces")))
    return provider, provider.get_tracer("bench")


ATTRIBUTES = {"deployment.environment.name": "production", "gen_ai.agent.name": "bench", **DATA}


def _otel_event(sink: str) -> Job:
    _, tracer = _otel(sink)
    return lambda: tracer.start_span("issue_detected", attributes=ATTRIBUTES).end()


def _otel_usage(sink: str) -> Job:
    _, tracer = _otel(sink)
    return lambda: tracer.start_span("chat", attributes=USAGE).end()


def _otel_invocation(sink: str) -> Job:
    provider, tracer = _otel(sink)

    def job() -> None:
        with tracer.start_as_current_span("invocation"):
            for _ in range(EVENTS_AN_INVOCATION):
                tracer.start_span("issue_detected", attributes=ATTRIBUTES).end()
        provider.force_flush()

    return job


def _langfuse(sink: str):
    from langfuse import Langfuse

    return Langfuse(public_key="pk-lf-bench", secret_key="sk-lf-bench", base_url=sink)


def _langfuse_event(sink: str) -> Job:
    langfuse = _langfuse(sink)
    return lambda: langfuse.create_event(name="issue_detected", metadata=DATA)


def _langfuse_usage(sink: str) -> Job:
    langfuse = _langfuse(sink)
    tokens = {"input": INPUT_TOKENS, "output": OUTPUT_TOKENS}
    return lambda: langfuse.start_observation(
        name="chat", as_type="generation", model=MODEL, usage_details=tokens
    ).end()


def _langfuse_invocation(sink: str) -> Job:
    langfuse = _langfuse(sink)

    def job() -> None:
        with langfuse.start_as_current_observation(name="invocation", as_type="span"):
            for _ in range(EVENTS_AN_INVOCATION):
                langfuse.create_event(name="issue_detected", metadata=DATA)
        langfuse.flush()

    return job


def _agentops():
    import agentops
    from agentops.sdk.decorators import operation

    agentops.init(
        api_key="11111111-2222-3333-4444-555555555555",
        auto_start_session=False,
        instrument_llm_calls=False,
        log_level="CRITICAL",
    )

    @operation(name="issue_detected")
    def event(**_data: object) -> None:
        pass

    return agentops, event


def _agentops_event(_sink: str) -> Job:
    agentops, event = _agentops()
    agentops.start_trace("bench")
    return lambda: event(**DATA)


def _agentops_usage(_sink: str) -> Job:
    from opentelemetry import trace

    agentops, _ = _agentops()
    agentops.start_trace("bench")
    tracer = trace.get_tracer("bench")
    return lambda: tracer.start_span("chat", attributes=USAGE).end()


def _agentops_invocation(_sink: str) -> Job:
    agentops, event = _agentops()

    def job() -> None:
        trace = agentops.start_trace("invocation")
        for _ in range(EVENTS_AN_INVOCATION):
            event(**DATA)
        agentops.end_trace(trace, "Success")

    return job


def _genai_price(_sink: str) -> Job:
    from genai_prices import Usage, calc_price

    usage = Usage(input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS)
    return lambda: calc_price(usage, model_ref=MODEL, provider_id="anthropic").total_price


POWERTOOLS = "Powertools Metrics"
EMF, OTEL, LANGFUSE, AGENTOPS_SDK = (
    "aws-embedded-metrics", "OpenTelemetry SDK, batch", "Langfuse", "AgentOps SDK",
)  # fmt: skip
GENAI_PRICES = "genai-prices"
THREAD = "exported by a thread"
NO_PRICE, LATER = "no price", f"priced by its server; {THREAD}"
FLUSHED = "flushed at the end, for Lambda then freezes"

PEER_CASES = (
    Case(EVENT, POWERTOOLS, _powertools_event, "the same line"),
    Case(EVENT, f"{POWERTOOLS}, bare", _powertools_bare, "no ids, no time, one set of dimensions"),
    Case(EVENT, "Powertools Metrics + Logger", _powertools_both, "two lines"),
    Case(EVENT, EMF, _emf_event, "the same line"),
    Case(EVENT, OTEL, _otel_event, THREAD),
    Case(EVENT, LANGFUSE, _langfuse_event, THREAD),
    Case(EVENT, AGENTOPS_SDK, _agentops_event, THREAD, AGENTOPS),
    Case(LLM, GENAI_PRICES, _genai_price, "the lookup alone"),
    Case(LLM, POWERTOOLS, _powertools_usage, NO_PRICE),
    Case(LLM, EMF, _emf_usage, NO_PRICE),
    Case(LLM, OTEL, _otel_usage, f"{NO_PRICE}; {THREAD}"),
    Case(LLM, LANGFUSE, _langfuse_usage, LATER),
    Case(LLM, AGENTOPS_SDK, _agentops_usage, LATER, AGENTOPS),
    Case(INVOCATION, "Powertools Metrics + Logger", _powertools_invocation, "its two decorators"),
    Case(INVOCATION, EMF, _emf_invocation, "no record of the invocation itself"),
    Case(INVOCATION, OTEL, _otel_invocation, FLUSHED),
    Case(INVOCATION, LANGFUSE, _langfuse_invocation, FLUSHED),
    Case(INVOCATION, AGENTOPS_SDK, _agentops_invocation, FLUSHED, AGENTOPS),
)

"""`AgentOpsMonitor`: what an agent's code calls."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentops_monitoring import arguments, identity, settings, trace, transport
from agentops_monitoring.event_types import AgentEventType
from agentops_monitoring.line import LineRenderer
from agentops_monitoring.scopes import Span, Workflow
from agentops_monitoring.trace import TraceContext

if TYPE_CHECKING:
    from decimal import Decimal


class AgentOpsMonitor:
    """Records what one agent does, as one JSON line per event.

    No method blocks, calls a network or raises into the agent. Wrong *arguments* are recorded with the
    reason in the line; with `AGENTOPS_STRICT=1` they raise a `ValueError` instead. Odd *values* inside data
    are rendered in every mode.

    Parameters
    ----------
    agent_name
        The agent's name on dashboards and in alarms; `AGENTOPS_AGENT_NAME`, else the function's name, when
        left out.
    """

    def __init__(self, agent_name: str | None = None) -> None:
        self._settings = settings.load()
        self._unsaid: list[str] = []
        named = self._settings.agent_name if agent_name is None else agent_name
        self.agent_name = arguments.agent_name(named)
        if not (arguments.is_text(named) and named == self.agent_name):
            self._unsaid.append(f"agent_name {arguments.shown(named)} is {arguments.AGENT_NAME_RULE}")
            self._check(self._unsaid)
        self._lines = LineRenderer(self.agent_name, self._settings)

    @property
    def current(self) -> TraceContext:
        """The workflow, trace and span that an event recorded now would belong to."""
        return trace.current()

    def record_event(self, event_type: AgentEventType | str, data: Mapping[str, Any] | None = None) -> str:
        """Record an event.

        Parameters
        ----------
        event_type
            A built-in type or one that the agent declares gets its own metric; any other name is kept and
            counted as `custom_event`.
        data
            The event's fields, of any type.

        Returns
        -------
        str
            The event's id.

        Raises
        ------
        ValueError
            In strict mode: the type is not a printable name, or the data is no mapping.
        """
        problems: list[str] = []
        kind = arguments.event_type(event_type, problems)
        if data is None:
            data = {}
        elif not arguments.is_mapping(data):
            problems.append(f"data is no mapping but {type(data).__name__}")
            data = {"value": data}
        return self.emit(kind, data, problems=problems)

    def record_decision(
        self,
        *,
        decision_type: str,
        reasoning_chain: Sequence[Mapping[str, Any]],
        inputs: Any = None,
        outputs: Any = None,
        confidence_score: float | None = None,
        alternatives: Any = None,
        decision_id: str | None = None,
    ) -> str:
        """Record a decision with the whole reasoning that led to it.

        Parameters
        ----------
        decision_type
            What kind of decision it is, such as "remediation".
        reasoning_chain
            The steps in order, each with `thought`, `action`, `observation` and any further fields.
        inputs, outputs
            What the decision was based on, and what was decided.
        confidence_score
            0 … 1.
        alternatives
            What else was considered.
        decision_id
            Yours, where you have one.

        Returns
        -------
        str
            The decision's id.

        Raises
        ------
        ValueError
            In strict mode: a step is no mapping, or the confidence is not within 0 … 1.
        """
        problems: list[str] = []
        if not arguments.is_text(decision_type) or not decision_type:
            problems.append(f"decision_type {arguments.shown(decision_type)} is no name")
        identifier = arguments.identifier(decision_id) or identity.new_span_id()
        data = {
            "decision_id": identifier,
            "decision_type": decision_type
            if arguments.is_text(decision_type)
            else arguments.shown(decision_type),
            "reasoning_chain": arguments.steps(reasoning_chain, problems),
            "inputs": inputs,
            "outputs": outputs,
            "confidence_score": arguments.confidence(confidence_score, problems),
        }
        if alternatives is not None:
            data["alternatives"] = alternatives
        self.emit(AgentEventType.DECISION_MADE, data, problems=problems)
        return identifier

    def track_llm_usage(
        self,
        *,
        model: str | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
        cache_write_1h_tokens: int = 0,
        tier: str = "standard",
        region: str | None = None,
        provider: str | None = None,
        response_id: str | None = None,
        response: object = None,
        duration_ms: float | None = None,
    ) -> Decimal | None:
        """Record a call of a language model.

        A call that was seen automatically and is reported here as well counts once.

        Parameters
        ----------
        model
            Any name the provider or Bedrock has for it.
        input_tokens
            Prompt tokens, *without* those read from or written to a cache.
        output_tokens
            Generated tokens, reasoning included.
        cache_read_tokens, cache_write_tokens, cache_write_1h_tokens
            Prompt tokens read from a cache, written to one for 5 minutes, written to one for an hour.
        tier
            "standard", "batch", "flex" or "priority".
        region
            The AWS region of the call; some cost more.
        provider, response_id, duration_ms
            Further fields; the duration is in milliseconds.
        response
            The provider's response; model and tokens are read from it where they are not given.

        Returns
        -------
        Decimal | None
            The call's USD; None when the model's price is not known.

        Raises
        ------
        ValueError
            In strict mode: no model, or a number of tokens that is none.
        """
        from agentops_monitoring import llm

        problems: list[str] = []
        response_id = arguments.label("response_id", response_id, problems)
        tier = arguments.label("tier", tier, problems) or "standard"
        read = None
        if response is not None:
            try:
                model_read, id_read, read = llm.read_response(response)
                model, response_id = model_read if model is None else model, response_id or id_read
            except Exception as error:  # noqa: BLE001 - a response of a shape nobody foresaw
                problems.append(f"response cannot be read: {type(error).__name__}")
        given: dict[str, object] = {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "cache_read_tokens": cache_read_tokens,
            "cache_write_tokens": cache_write_tokens,
            "cache_write_1h_tokens": cache_write_1h_tokens,
        }
        if read is not None and input_tokens is None and output_tokens is None:
            given = {name: getattr(read, name) for name in given}
            tier = read.tier if tier == "standard" else tier
        if not arguments.is_text(model) or not model:
            problems.append(f"model {arguments.shown(model)} is no name")
            model = "unknown"
        tokens: dict[str, int | None] = {}
        for name, value in given.items():
            tokens[name] = llm.token_count(value)
            if tokens[name] is None:
                problems.append(f"{name} {arguments.shown(value)} is no number of tokens")
        self._check(problems)
        try:
            return self.record_call(
                model=model,
                tokens=tokens,
                tier=tier,
                region=arguments.label("region", region, problems),
                provider=arguments.label("provider", provider, problems),
                response_id=response_id,
                duration_ms=duration_ms,
                source="manual",
                problems=problems,
                context=trace.current(),
            )
        except Exception:  # noqa: BLE001 - never into the agent
            return None

    def record_call(
        self,
        *,
        model: str,
        tokens: Mapping[str, int | None],
        tier: str,
        region: str | None,
        provider: str | None,
        response_id: str | None,
        duration_ms: float | None,
        source: str,
        problems: list[str],
        context: TraceContext,
    ) -> Decimal | None:
        """Write one model call; the way in for our own instrumentation. A count of None is not known."""
        from agentops_monitoring import llm, pricing

        known = {name: count for name, count in tokens.items() if count is not None}
        cost = None
        if len(known) == len(tokens):
            try:
                cost = llm.price(model, pricing.TokenUsage(**known, tier=tier), region)
            except Exception as error:  # noqa: BLE001 - no price is better than no event
                problems.append(f"no price: {type(error).__name__}")
            counts = tuple(known.values())
            if source == "auto":
                llm.remember(context, response_id, model, counts)
            elif llm.claim(context, response_id, model, counts):
                return cost
        data: dict[str, Any] = {
            "gen_ai.request.model": model,
            "gen_ai.provider.name": provider or llm.provider_of(model),
            **{field: tokens[name] for name, field in llm.TOKEN_FIELDS},
            "gen_ai.response.id": response_id,
            "cost_usd": None if cost is None else f"{cost:f}",
            "duration_ms": duration_ms,
            "source": source,
            "tier": tier,
            "region": region,
        }
        self.emit(AgentEventType.LLM_USAGE, data, context=context, problems=problems, checked=True)
        return cost

    def send_message(self, *, to: str, message_type: str, payload: Any) -> str:
        """Send a message to another agent over the bus `EVENT_BUS_NAME`.

        Unlike the recording methods this is an action, so it calls AWS, and a failure is the caller's to
        know.

        Parameters
        ----------
        to
            The receiving agent's name.
        message_type
            What receivers subscribe to, such as "patch.ready".
        payload
            A mapping becomes the event's detail; anything else its field `payload`. The keys `environment`
            and `agentops` are the monitor's.

        Returns
        -------
        str
            The message's id.

        Raises
        ------
        MessageNotSentError
            EventBridge refused the message, or it is too large for it.
        botocore.exceptions.ClientError
            The call failed.
        """
        from agentops_monitoring.instrument import messages

        return messages.send(self, to=to, message_type=message_type, payload=payload)

    def complete_workflow(self, reason: str | None = None, **fields: Any) -> str:
        """Record that the current workflow reached its goal; returns the event's id."""
        return self._end_workflow(AgentEventType.WORKFLOW_COMPLETED, reason, fields)

    def fail_workflow(self, reason: str | None = None, **fields: Any) -> str:
        """Record that the current workflow is given up; returns the event's id."""
        return self._end_workflow(AgentEventType.WORKFLOW_FAILED, reason, fields)

    def _end_workflow(self, kind: AgentEventType, reason: str | None, fields: Mapping[str, Any]) -> str:
        started = trace.current().workflow_started_ms
        now = time.time_ns() // 1_000_000
        duration = None if started is None else max(0, now - started)
        return self.emit(kind, {**fields, "reason": reason, "duration_ms": duration})

    def span(self, name: str, **fields: Any) -> Span:
        """Return a context manager: what is recorded inside belongs to a span of that name."""
        return Span(self, name, fields)

    def workflow(self, workflow_id: str | None = None) -> Workflow:
        """Return a context manager: what is recorded inside belongs to that workflow, else to a new one."""
        return Workflow(workflow_id)

    def emit(
        self,
        kind: str,
        data: object,
        *,
        context: TraceContext | None = None,
        span_id: str | None = None,
        parent_id: str | None = None,
        at_ms: int | None = None,
        problems: list[str] | None = None,
        checked: bool = False,
    ) -> str:
        """Write one event; the way in for our own instrumentation, which knows its spans.

        Without a `span_id` the event gets one of its own, below the current span.
        """
        if problems and not checked:
            self._check(problems)
        try:
            if self._unsaid:
                problems = [*self._unsaid, *(problems or ())]
                self._unsaid = []
            if context is None:
                context = trace.current()
            if span_id is None:
                span_id = identity.new_span_id()
                parent_id = context.span_id
            event_id, lines = self._lines.render(
                kind,
                data,
                context,
                span_id=span_id,
                parent_id=parent_id,
                at_ms=time.time_ns() // 1_000_000 if at_ms is None else at_ms,
                problems=problems,
            )
            transport.write(lines)
        except Exception:  # noqa: BLE001 - never into the agent
            return ""
        return event_id

    def _check(self, problems: Sequence[str]) -> None:
        if self._settings.strict and problems:
            raise ValueError("; ".join(problems))

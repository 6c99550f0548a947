"""`AgentOpsMonitor`: what an agent's code calls."""

from __future__ import annotations

import time

from agentops_monitoring import arguments as check
from agentops_monitoring import identity, trace
from agentops_monitoring.event_types import DECISION_OUTCOME, SPAN, AgentEventType
from agentops_monitoring.recorder import Recorder
from agentops_monitoring.scopes import Belonging, Span, ToolCall, Workflow, tool_data

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from decimal import Decimal
    from typing import Any


class AgentOpsMonitor(Recorder):
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
        if type(event_type) is AgentEventType and type(data) is dict:  # nothing to check, as mostly
            return self.emit(event_type, data)
        problems: list[str] = []
        kind = check.event_type(event_type, problems)
        if data is None:
            data = {}
        elif not check.is_mapping(data):
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
            The steps in order: what was thought, done and seen, as the texts `thought`, `action`,
            `observation`, none of them needed, beside any further fields of any type.
        inputs, outputs
            What the decision was based on, and what was decided.
        confidence_score
            0 … 1.
        alternatives
            What else was considered, and perhaps why it was not chosen; of any form.
        decision_id
            Yours, where you have one.

        Returns
        -------
        str
            The decision's id; `record_outcome` takes it once it is known who was right.

        Raises
        ------
        ValueError
            In strict mode: a step is no mapping, one of its three texts is none, or the confidence is not
            within 0 … 1.
        """
        problems: list[str] = []
        kind = check.text("decision_type", decision_type, problems)
        identifier = check.identifier(decision_id) or identity.new_span_id()
        data = {
            "decision_id": identifier,
            "decision_type": kind if check.is_text(kind) else check.shown(kind),
            "reasoning_chain": check.steps(reasoning_chain, problems),
            "inputs": inputs,
            "outputs": outputs,
            "confidence_score": check.fraction("confidence_score", confidence_score, problems),
        }
        if alternatives is not None:
            data["alternatives"] = alternatives
        self.emit(AgentEventType.DECISION_MADE, data, problems=problems)
        return identifier

    def record_outcome(
        self,
        decision_id: str,
        *,
        correct: bool | None = None,
        score: float | None = None,
        evidence: Any = None,
        workflow_id: str | None = None,
    ) -> str:
        """Record what became of a decision, whoever made it and however long ago.

        Parameters
        ----------
        decision_id
            What `record_decision` returned.
        correct
            Whether the decision proved right.
        score
            How right, 0 … 1, where yes or no says too little.
        evidence
            What tells, such as a test's result; of any form.
        workflow_id
            The decision's workflow, where it is not the current one.

        Returns
        -------
        str
            The event's id.

        Raises
        ------
        ValueError
            In strict mode: no decision is named, nothing is said of it, or a value is none of the above.
        """
        problems: list[str] = []
        data = {
            "decision_id": check.identifier(check.text("decision_id", decision_id, problems)),
            "correct": check.verdict("correct", correct, problems),
            "score": check.fraction("score", score, problems),
            "evidence": evidence,
        }
        if correct is None and score is None:
            problems.append("neither correct nor score is given")
        context = None
        if workflow_id is not None:
            named = check.identifier(check.text("workflow_id", workflow_id, problems))
            context = trace.current().of_workflow(named) if named else None
        return self.emit(DECISION_OUTCOME, data, context=context, problems=problems)

    def track_tool(
        self,
        name: str,
        *,
        arguments: Any = None,
        result: Any = None,
        error: Any = None,
        duration_ms: float | None = None,
    ) -> str:
        """Record the call of a tool that has ended; `tool` records one from begin to end.

        Parameters
        ----------
        name
            The tool's name.
        arguments, result
            With what it was called, and what it answered; of any form.
        error
            What went wrong: an exception, a text; None for nothing.
        duration_ms
            How long it took, in milliseconds.

        Returns
        -------
        str
            The event's id.

        Raises
        ------
        ValueError
            In strict mode: the name is no text, or the duration is no number.
        """
        problems: list[str] = []
        data = tool_data(
            check.text("name", name, problems),
            arguments,
            result,
            check.failure(error),
            check.milliseconds("duration_ms", duration_ms, problems),
        )
        return self.emit(SPAN, data, problems=problems)

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
        metadata: Mapping[str, Any] | None = None,
    ) -> Decimal | None:
        """Record a call of a language model.

        A call that was seen automatically and is reported here as well counts once: it is recognised by its
        response id, else by its model and tokens within the invocation.

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
            "standard", "batch", "flex", "priority" or "fast".
        region
            The AWS region of the call; some cost more.
        provider, response_id, duration_ms
            Further fields; the duration is in milliseconds.
        response
            The provider's response; model and tokens are read from it where they are not given.
        metadata
            What else is to be known of the call, such as the prompt's version; also of one that was seen.

        Returns
        -------
        Decimal | None
            The call's USD; None when the model's price is not known.

        Raises
        ------
        ValueError
            In strict mode: no model, or a number of tokens that is none.
        """
        return (_track or _load_track())(
            self,
            model,
            (input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens),
            tier,
            region,
            provider,
            response_id,
            response,
            duration_ms,
            metadata,
        )

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

    def _end_workflow(self, kind: AgentEventType, reason: object, fields: Mapping[str, Any]) -> str:
        problems: list[str] = []
        if reason is not None:
            reason = check.text("reason", reason, problems)
        started = trace.current().workflow_started_ms
        now = time.time_ns() // 1_000_000
        duration = None if started is None else max(0, now - started)
        return self.emit(kind, {**fields, "reason": reason, "duration_ms": duration}, problems=problems)

    def span(self, name: str, /, **fields: Any) -> Span:
        """Return a context manager: what is recorded inside belongs to a span of that name.

        Its event says how long it took, and the exception that ended it. `fields` of the span may be changed
        until it ends.
        """
        return Span(self, name, fields)

    def tool(self, name: str, *, arguments: Any = None) -> ToolCall:
        """Return a context manager around the call of a tool, a span that says what was asked and answered.

        Set `result` of what it yields, or `error` where the tool fails without raising:

        >>> with monitor.tool("search", arguments={"query": "p99"}) as call:
        ...     call.result = search("p99")
        """
        return ToolCall(self, name, arguments)

    def workflow(
        self,
        workflow_id: str | None = None,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> Workflow:
        """Return a context manager: what is recorded inside belongs to that workflow, else to a new one.

        The further parameters are those of `context`.
        """
        return Workflow(self, workflow_id, user_id, session_id, tags)

    def message(self, record: object) -> Span:
        """Return a context manager: what is recorded inside belongs to that message's workflow.

        For a batch whose messages belong to several workflows; the messages of an invocation that all belong
        to one are joined by themselves.

        Parameters
        ----------
        record
            A record of an event from SQS or SNS, as it came or in a data class of Powertools, or a message
            that `receive_message` of SQS returned. Without a context it is a span of the current workflow.
        """
        from agentops_monitoring.receiving import Handling

        return Handling(self, record)

    def context(
        self,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> Belonging:
        """Return a context manager: what is recorded inside is for that user, session and these tags.

        They are fields of each line, never dimensions of a metric. User and session travel with messages to
        other agents; tags stay here.

        Parameters
        ----------
        user_id, session_id
            Yours, of 256 characters at most; longer ones are shortened, distinct. None keeps the outer one.
        tags
            Texts, numbers and truth values by name, of 256 characters at most; they join the outer ones. In
            all 32 at most, in 8,000 bytes, are kept.

        Raises
        ------
        ValueError
            In strict mode: an id that is none, tags that are none, too many or too long.
        """
        return Belonging(self, user_id, session_id, tags)


_track: Callable[..., Decimal | None] | None = None


def _load_track() -> Callable[..., Decimal | None]:
    # Not at import, for agents that report no model call; an import in each call costs as much as a price.
    global _track
    from agentops_monitoring.llm import track

    _track = track
    return track

"""What becomes known of one request to a model, in whatever form its agent takes the answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from agentops_monitoring import responses
from agentops_monitoring.instrument import body, model_calls
from agentops_monitoring.instrument.model_calls import Call
from agentops_monitoring.responses import Reading


class Answer:
    """The answer to one request; what its pieces mean is its SDK's."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.request: tuple[str, str] | None = None
        """Of a call that is paid for: its SDK and path, which with its body tell what it can cost."""
        self._response: Any = None
        self._watched = False
        self._ended = False

    def see_line(self, line: bytes) -> None:
        """Take one line of a stream or of a file."""

    def see_body(self, content: bytes) -> None:
        """Take a body as a whole."""

    def see_result(self, result: object) -> None:
        """Take a body that the SDK has parsed."""

    def finish(self, problem: str | None) -> None:
        """Record what is known; called once. The problem is why nothing more will be known."""

    def refused(self, error: BaseException) -> None:
        """Record that there is no answer."""

    def arrived(self, response: Any) -> None:
        """Take the response: read already, or to be read by the agent."""
        if response is None or response.status_code >= 300:
            return
        if response.is_closed:
            self._response = response
        else:
            self._watched = True
            body.watch(response, body.reader_for(response, self.see_line, self.see_body, self.ended))

    def returned(self, result: Any) -> None:
        """Take what the agent gets."""
        # No response: something in between, such as a cache, answered, and nothing was spent.
        if self._watched:
            return
        if self._response is None:
            if self.call.held is not None:
                self.call.held.drop()
            return
        response, self._response = self._response, None
        with suppress(Exception):  # an answer of a shape nobody foresaw
            if isinstance(result, dict) or getattr(result, "usage", None) is not None:
                # Not parsed a second time: an embedding's body is large.
                self.see_result(result)
            else:
                self.see_response(response)
        self.ended(complete=True)

    def see_response(self, response: Any) -> None:
        """Take a response that was read at once."""
        reader = body.reader_for(response, self.see_line, self.see_body, self.ended)
        reader.feed(response.content)
        reader.end(complete=True)

    def failed(self, error: BaseException) -> None:
        """Take note that the agent gets an error instead."""
        if self._watched:
            return
        if self._response is not None:
            # The model has answered; it is a helper, such as parse(), that does not like what it said.
            self.returned(None)
        elif isinstance(error, Exception):
            self.refused(error)
        else:
            self.finish(model_calls.CANCELLED)

    def ended(self, *, complete: bool) -> None:
        """Take note that nothing follows."""
        if not self._ended:
            self._ended = True
            self.finish(None if complete else model_calls.HALF_READ)


class ModelAnswer(Answer):
    """One answer of a model, at once or as a stream of events."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self.stream = responses.StreamReader()
        self.reading: Reading | None = None
        """What the answer as a whole says."""

    def see_event(self, event: Mapping[str, Any]) -> None:
        """Take an event of a stream."""
        if self.stream.see(event):
            # Before the agent has it, since it may report the call when it sees the tokens.
            self.reading = self.stream.reading
            self.ended(complete=True)

    def see_body(self, content: bytes) -> None:
        self.see_result(json_of(content))

    def see_result(self, result: object) -> None:
        self.reading = responses.read_response(result)

    def refused(self, error: BaseException) -> None:
        model_calls.record_failure(self.call, error, getattr(error, "status_code", None))

    def finish(self, problem: str | None) -> None:
        reading = Reading(None, None, None)
        with suppress(Exception):  # figures of a shape nobody foresaw: a call without a price
            reading = self.reading or self.stream.reading
        if self.reading is not None and reading.usage is not None:
            problem = None
        call = self.call._replace(model=self.billed_model(reading.model))
        model_calls.record(call, reading.response_id, reading.usage, problem)

    def billed_model(self, answered: str | None) -> str:
        """Return the name that tells the price: what the agent asked for, else what has answered."""
        from agentops_monitoring import pricing

        asked = self.call.model
        if answered is None or answered == asked:
            return asked
        if asked == model_calls.UNNAMED:
            return answered
        return asked if pricing.resolve(asked) or not pricing.resolve(answered) else answered


def json_of(text: bytes) -> dict[str, Any]:
    """Return the JSON object in a document, or in a line of an event stream; empty where there is none."""
    try:
        found = json.loads(text.removeprefix(b"data:"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}

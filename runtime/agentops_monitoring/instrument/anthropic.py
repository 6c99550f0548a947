"""Model calls through the `anthropic` SDK, its clients for Bedrock, Vertex and Foundry included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from agentops_monitoring import instrument, responses
from agentops_monitoring.instrument import model_calls, stainless
from agentops_monitoring.instrument.answers import Answer, ModelAnswer, json_of


def patch(base_client: ModuleType) -> Callable[[], None]:
    """Patch the module `anthropic._base_client`; returns what undoes it."""
    return stainless.patch(base_client, start)


def start(client: Any, options: Any) -> Answer | None:
    """Return what is to learn from a request's answer; None where no model answers it."""
    method, path = options.method.lower(), options.url.partition("?")[0]
    if method == "post" and path == "/v1/messages":
        answer = _Message(model_calls.begin(stainless.model_of(options), *_platform(client)))
        if instrument.guard is not None:
            answer.request = "anthropic", f"{path}?{_betas(client, options)}"
        return answer
    if method == "post" and path == "/v1/messages/batches" and instrument.guard is not None:
        asked = options.json_data if isinstance(options.json_data, Mapping) else {}
        batch = _Batch(model_calls.begin(_model_of(asked), *_platform(client)))
        batch.request = "anthropic", path
        return batch
    if method == "get" and path.endswith("/results") and "/v1/messages/batches/" in path:
        return _BatchResults(model_calls.begin(None, *_platform(client)))
    return None


def _betas(client: Any, options: Any) -> str:
    headers = (getattr(client, "_custom_headers", None), getattr(options, "headers", None))
    return ",".join(str(each.get("anthropic-beta") or "") for each in headers if isinstance(each, Mapping))


def _platform(client: Any) -> tuple[str, str | None]:
    """Return the provider, named as the OpenTelemetry conventions do, and the region."""
    kinds = " ".join(kind.__name__ for kind in type(client).__mro__)
    if "Bedrock" in kinds:
        return "aws.bedrock", getattr(client, "aws_region", None)
    if "Vertex" in kinds:
        return "gcp.vertex_ai", getattr(client, "region", None)
    return "anthropic", None


class _Message(ModelAnswer):
    def see_line(self, line: bytes) -> None:
        # Of a stream only the first and the last events name tokens. In a text the quotes are escaped.
        if b'"usage"' not in line and b'"message_stop"' not in line:
            return
        event = json_of(line)
        self.see_event(event)
        if event.get("type") == "message_delta" and (event.get("delta") or {}).get("stop_reason"):
            # The figures are final; all that may follow is the end.
            self.reading = self.stream.reading


def _model_of(batch: Mapping[str, Any]) -> object:
    """Return the model of a batch's requests; none where they have several."""
    models = {each["params"].get("model") for each in batch.get("requests") or ()}
    return models.pop() if len(models) == 1 else None


class _Batch(Answer):
    """A batch that is made: what it takes is recorded when its results are fetched, and on the budget now."""

    def refused(self, error: BaseException) -> None:
        model_calls.record_failure(self.call, error, getattr(error, "status_code", None))

    def finish(self, problem: str | None) -> None:  # noqa: ARG002
        model_calls.settle(self.call, None)


class _BatchResults(Answer):
    """The results of a batch, a line each: they can be fetched again for 29 days."""

    def see_line(self, line: bytes) -> None:
        if b'"usage"' in line:
            reading = responses.read_response(json_of(line))
            model_calls.record_kept(self.call, reading, reading.response_id)

"""Model calls through the `openai` SDK, its clients for Azure and Bedrock included."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from agentops_monitoring import instrument, responses
from agentops_monitoring.instrument import model_calls, stainless
from agentops_monitoring.instrument.answers import Answer, ModelAnswer, json_of
from agentops_monitoring.instrument.model_calls import Call

NO_USAGE = "the stream names no tokens; it does with stream_options={'include_usage': True}"

AZURE = "azure.ai.openai"
_OPERATIONS = {
    "/chat/completions": "chat",
    "/completions": "text_completion",
    "/responses": "chat",
    "/responses/compact": "chat",
    "/embeddings": "embeddings",
    "/images/generations": "generate_content",
    "/images/edits": "generate_content",
    "/audio/transcriptions": "generate_content",
    "/audio/translations": "generate_content",
    "/audio/speech": "generate_content",
}
"""The paths that a model answers, and what the conventions call it, `gen_ai.operation.name`."""
_PROVIDERS = {"bedrock": "aws.bedrock", "vertex": "gcp.vertex_ai"}
_HOSTS = (
    (".openai.azure.com", AZURE),
    (".services.ai.azure.com", AZURE),
    ("api.deepseek.com", "deepseek"),
    ("api.groq.com", "groq"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.x.ai", "x_ai"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
)
"""Who else speaks OpenAI's protocol and has a name in the conventions, `gen_ai.provider.name`:
https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/."""


def patch(base_client: ModuleType) -> Callable[[], None]:
    """Patch the module `openai._base_client`; returns what undoes it."""
    return stainless.patch(base_client, start)


def start(client: Any, options: Any) -> Answer | None:
    """Return what is to learn from a request's answer; None where no model answers it."""
    method, path = options.method.lower(), options.url.partition("?")[0].rstrip("/")
    if method == "post" and path in _OPERATIONS:
        call = model_calls.begin(stainless.model_of(options), *_platform(client), _OPERATIONS[path])
        answer = _Response(call, by_chunks=path.endswith("completions"))
        answer.request = "openai", path
        return answer
    if method == "post" and path == "/batches" and instrument.guard is not None:
        batch = Answer(model_calls.begin(None, *_platform(client)))
        batch.request = "openai", path
        return batch
    if method == "get" and path.startswith("/responses/") and path.count("/") == 2:
        return _KeptResponse(model_calls.begin(None, *_platform(client)))
    if method == "get" and path.startswith("/files/") and path.endswith("/content"):
        return _BatchResults(model_calls.begin(None, *_platform(client)))
    return None


def _platform(client: Any) -> tuple[str, str | None]:
    """Return the provider, named as the OpenTelemetry conventions do, and the region."""
    kinds = " ".join(kind.__name__ for kind in type(client).__mro__)
    runtime = getattr(client, "_provider_runtime", None)
    provider = _PROVIDERS.get(getattr(runtime, "name", ""), "aws.bedrock" if "Bedrock" in kinds else None)
    if provider is not None:
        return provider, getattr(client, "aws_region", None) or getattr(runtime, "region", None)
    if "Azure" in kinds:
        return AZURE, None
    host = getattr(getattr(client, "base_url", None), "host", None) or ""
    return next((name for suffix, name in _HOSTS if host.endswith(suffix)), "openai"), None


def _field(source: object, name: str) -> object:
    return source.get(name) if isinstance(source, dict) else getattr(source, name, None)


class _Response(ModelAnswer):
    """An answer of chat, responses, embeddings and the like."""

    def __init__(self, call: Call, *, by_chunks: bool = False) -> None:
        super().__init__(call)
        self._by_chunks = by_chunks
        """Whether a stream names its tokens only on demand."""
        self._of_events = False
        self._named = False
        self._background = False
        self._pending = False

    def see_line(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        self._of_events = True
        if b"[DONE]" in line[:14]:
            self.ended(complete=True)
            return
        # With include_usage each chunk has the field, but the last alone has figures in it.
        silent = b'"usage"' not in line or b'"usage":null' in line or b'"usage": null' in line
        if not (silent and self._named):
            self._named = True
            event = json_of(line)
            self._look(event.get("response"))
            self.see_event(event)

    def see_result(self, result: object) -> None:
        self._look(result)
        super().see_result(result)

    def _look(self, response: object) -> None:
        """Note whether a response is made in the background, and made yet."""
        self._background = self._background or _field(response, "background") is True
        self._pending = _field(response, "status") in ("queued", "in_progress")

    def finish(self, problem: str | None) -> None:
        if self._of_events and problem is None:
            # Some servers put the figures of all so far into each chunk.
            self.reading = self.reading or self.stream.reading
            if self.reading.usage is None and self._by_chunks:
                problem = NO_USAGE
        elif self._background and self._pending:
            model_calls.settle(self.call, None)
            return  # its tokens come with the response that is fetched later
        if self._background and self.reading is not None and self.reading.response_id is not None:
            model_calls.first_time(self.reading.response_id)
        super().finish(problem)

    def billed_model(self, answered: str | None) -> str:
        if self.call.provider == AZURE and answered:
            return answered  # what is asked for is a deployment, whose name is its owner's choice
        return super().billed_model(answered)


class _KeptResponse(_Response):
    """A response that is fetched: counted here if it was made in the background, and once."""

    def refused(self, error: BaseException) -> None:
        pass

    def finish(self, problem: str | None) -> None:
        if problem is None and self._background and self.reading is not None:
            model_calls.record_kept(self.call, self.reading, self.reading.response_id)


class _BatchResults(Answer):
    """A file, which may hold the results of a batch, a line each; it can be fetched again."""

    def see_response(self, response: Any) -> None:
        # Files hold anything; only what begins like results is cut into lines.
        if b'"custom_id"' in response.content[:4096]:
            super().see_response(response)

    def see_line(self, line: bytes) -> None:
        if b'"custom_id"' in line and b'"usage"' in line:
            result = json_of(line)
            reading = responses.read_response(result)
            # An embedding has no id of its own.
            model_calls.record_kept(self.call, reading, reading.response_id or result.get("id"))

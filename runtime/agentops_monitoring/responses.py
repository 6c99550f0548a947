"""What a provider's response, or the events of its stream, say of a model call: model, id, tokens.

The one place that knows how Bedrock, Anthropic and OpenAI report what a call took.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from agentops_monitoring.pricing import TokenUsage

_HEADER = "x-amzn-bedrock-"

# What OpenAI runs itself in a response and bills apart from its tokens: the item, and the kind of fee.
_TOOLS = {
    "web_search_call": "web_searches",
    "file_search_call": "file_searches",
    "code_interpreter_call": "code_interpreter_calls",
    "image_generation_call": "image_generation_calls",
}


class Reading(NamedTuple):
    """What a response says; None for what it does not."""

    model: str | None
    response_id: str | None
    usage: TokenUsage | None


def read_response(response: object) -> Reading:
    """Read a response of Bedrock, Anthropic or OpenAI: an SDK's object, its dict, or a result of a batch.

    Parameters
    ----------
    response
        Of Bedrock: what boto3 returned from Converse or InvokeModel, or InvokeModel's decoded body.
        InvokeModel's own answer is read by its headers, for its body can be read once, and by the agent.
    """
    batch = _get(response, "custom_id") is not None
    if batch:
        # Anthropic: {"custom_id", "result": {"message"}}. OpenAI: {"custom_id", "response": {"body"}}.
        response = _get(_get(response, "result"), "message") or _get(_get(response, "response"), "body")
    usage = _plain(_get(response, "usage"))
    if isinstance(response, Mapping) and ("inputTokens" in usage or "ResponseMetadata" in response):
        metadata = response.get("ResponseMetadata") or {}
        found = converse_usage(response) or body_usage({}, metadata.get("HTTPHeaders") or {})
        return Reading(None, _text(metadata.get("RequestId")), found)
    found = _by_shape(usage, _text(_get(response, "service_tier")))
    if found is None and isinstance(response, Mapping):
        found = body_usage(response, {})
    if found is not None:
        found = _with_tools(found, _get(response, "output"))
        if batch and found.tier == "standard":
            found = found._replace(tier="batch")
    return Reading(_text(_get(response, "model")), _text(_get(response, "id")), found)


def converse_usage(answer: Mapping[str, Any]) -> TokenUsage | None:
    """Return the tokens of an answer of Bedrock Converse, or of the last event of its stream."""
    found = _by_shape(answer.get("usage") or {}, None)
    tier = bedrock_tier(
        (answer.get("serviceTier") or {}).get("type"),
        (answer.get("performanceConfig") or {}).get("latency"),
    )
    return None if found is None else found._replace(tier=tier)


def body_usage(body: Mapping[str, Any], headers: Mapping[str, str]) -> TokenUsage | None:
    """Read the tokens of InvokeModel, whose body is the model's own."""
    from agentops_monitoring.pricing import TokenUsage

    tier = bedrock_tier(
        headers.get(f"{_HEADER}service-tier"), headers.get(f"{_HEADER}performanceconfig-latency")
    )
    usage = body.get("usage")
    found = _by_shape(usage, None) if isinstance(usage, Mapping) else None
    metrics = body.get("amazon-bedrock-invocationMetrics")
    if found is None and isinstance(metrics, Mapping):
        found = TokenUsage(
            metrics["inputTokenCount"],
            metrics["outputTokenCount"],
            metrics.get("cacheReadInputTokenCount") or 0,
            metrics.get("cacheWriteInputTokenCount") or 0,
        )
    if found is None and f"{_HEADER}input-token-count" in headers:
        found = TokenUsage(
            int(headers[f"{_HEADER}input-token-count"]),
            # An embedding has no output.
            int(headers.get(f"{_HEADER}output-token-count", 0)),
            int(headers.get(f"{_HEADER}cache-read-input-token-count", 0)),
            int(headers.get(f"{_HEADER}cache-write-input-token-count", 0)),
        )
    if found is None:
        found = _older_body(body)
    return found if found is None or tier == "standard" else found._replace(tier=tier)


def _older_body(body: Mapping[str, Any]) -> TokenUsage | None:
    """Read the bodies of Llama and Titan, for an agent that has nothing but the body.

    https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-meta.html and
    …/model-parameters-titan-text.html.
    """
    from agentops_monitoring.pricing import TokenUsage

    if "prompt_token_count" in body:
        return TokenUsage(int(body["prompt_token_count"]), int(body.get("generation_token_count") or 0))
    if "inputTextTokenCount" in body:
        results = body.get("results") or ()
        return TokenUsage(
            int(body["inputTextTokenCount"]), sum(int(each.get("tokenCount") or 0) for each in results)
        )
    return None


def _by_shape(usage: Mapping[str, Any], tier: str | None) -> TokenUsage | None:
    from agentops_monitoring.pricing import TokenUsage

    if "inputTokens" in usage:
        counts = {**usage}
        # Amazon's models name the cached ones in InvokeModel's body by another name than Converse.
        for kind in ("Read", "Write"):
            counts.setdefault(f"cache{kind}InputTokens", usage.get(f"cache{kind}InputTokenCount"))
        return TokenUsage.from_bedrock(counts)
    if "input_tokens" in usage and not _speaks_openai(usage):
        return TokenUsage.from_anthropic(usage)
    if "prompt_tokens" in usage or "input_tokens" in usage:
        return TokenUsage.from_openai(usage, tier)
    return None


def _speaks_openai(usage: Mapping[str, Any]) -> bool:
    # Anthropic says nothing of details of the input, and no total.
    return any(name in usage for name in ("total_tokens", "input_tokens_details", "input_token_details"))


def bedrock_tier(service_tier: object, latency: object) -> str:
    """Return the tier that a request or an answer of Bedrock names."""
    if latency == "optimized":
        return "optimized"
    return "standard" if service_tier in (None, "", "default") else str(service_tier)


def _with_tools(usage: TokenUsage, output: object) -> TokenUsage:
    if not isinstance(output, list | tuple):
        return usage
    fees: dict[str, int] = {}
    for item in output:
        kind = _TOOLS.get(str(_get(item, "type")))
        # Opening a page that a search found costs nothing more.
        action = _get(_get(item, "action"), "type")
        if kind is not None and action in (None, "search"):
            fees[kind] = fees.get(kind, 0) + 1
    return usage._replace(extra=(*usage.extra, *fees.items())) if fees else usage


class StreamReader:
    """Reads a call's tokens out of the events of its stream, as they come.

    Takes the events of Anthropic's Messages, OpenAI's chat completions (chunks) and responses, and Bedrock's
    ConverseStream, and the decoded chunks of InvokeModelWithResponseStream; objects and dicts alike.
    """

    __slots__ = ("_fields", "_output", "_tier", "_usage", "model", "response_id")

    def __init__(self) -> None:
        self.model: str | None = None
        self.response_id: str | None = None
        self._usage: dict[str, Any] = {}
        self._fields: dict[str, Any] = {}
        self._tier: str | None = None
        self._output: object = None

    def see(self, event: object) -> bool:
        """Take an event; return whether it was the last that says anything of the tokens."""
        kind = _get(event, "type")
        if kind is None:
            return self._see_untyped(event)
        if kind in ("message_start", "message_delta", "message_stop"):
            message = _get(event, "message")
            self._name(message)
            # The figures of a delta are running totals; what it does not name stands as it was.
            for said in (_get(message, "usage"), _get(event, "usage")):
                self._usage.update((name, value) for name, value in _plain(said).items() if value is not None)
            self._keep(event, "amazon-bedrock-invocationMetrics")
            return bool(kind == "message_stop")
        if kind == "content_block_start":
            # Another model took over; the message's name is that of the one that began.
            self.model = _text(_get(_get(_get(event, "content_block"), "to"), "model")) or self.model
            return False
        if type(kind) is str and kind.startswith("response."):
            answer = _get(event, "response")
            if answer is not None and not isinstance(answer, str):
                self._name(answer)
                self._whole(answer)
            return kind in ("response.completed", "response.incomplete", "response.failed")
        return False

    def _see_untyped(self, event: object) -> bool:
        metadata = _get(event, "metadata")
        if isinstance(metadata, Mapping) and "usage" in metadata:
            self._fields = dict(metadata)
            return True
        self._keep(event, "amazon-bedrock-invocationMetrics")
        if "amazon-bedrock-invocationMetrics" in self._fields:
            return True
        choices = _get(event, "choices")
        if choices is None:
            return False
        self._name(event)
        self._whole(event)
        # The chunk with the figures of all has no choices; servers that put them in each chunk count on.
        return bool(self._usage) and not choices

    def _name(self, source: object) -> None:
        self.model = _text(_get(source, "model")) or self.model
        self.response_id = _text(_get(source, "id")) or self.response_id

    def _whole(self, source: object) -> None:
        self._tier = _text(_get(source, "service_tier")) or self._tier
        usage = _plain(_get(source, "usage"))
        if usage:
            self._usage, self._output = dict(usage), _get(source, "output")

    def _keep(self, event: object, name: str) -> None:
        found = _get(event, name)
        if found:
            self._fields[name] = found

    @property
    def reading(self) -> Reading:
        """What the events so far say; no tokens when none of them told."""
        usage = _by_shape(self._usage, self._tier)
        if usage is None and self._fields:
            usage = converse_usage(self._fields) or body_usage(self._fields, {})
        if usage is not None:
            usage = _with_tools(usage, self._output)
        return Reading(self.model, self.response_id, usage)


def _get(source: object, name: str) -> Any:
    if isinstance(source, Mapping):
        return source.get(name)
    return getattr(source, name, None)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _plain(value: object) -> Mapping[str, Any]:
    """Return an SDK's object as a mapping, all the way down."""
    if isinstance(value, Mapping):
        return {key: _plain_item(item) for key, item in value.items()}
    dump = getattr(type(value), "model_dump", None)
    if callable(dump):
        dumped = dump(value)
        return dumped if isinstance(dumped, Mapping) else {}
    if hasattr(value, "__dict__"):
        return {key: _plain_item(item) for key, item in vars(value).items()}
    return {}


def _plain_item(item: object) -> object:
    if item is None or isinstance(item, str | int | float):
        return item
    if isinstance(item, Iterable) and not isinstance(item, Mapping):
        return [_plain_item(each) for each in item]
    return _plain(item)

"""The worst case of a model call, read off its request: how many tokens it can take at most.

**Input.** No tokenizer of these models makes more tokens of a text than it has bytes in UTF-8: those that
work on bytes (byte-pair encoding, as in tiktoken, https://github.com/openai/tiktoken) start from one token a
byte and only merge; those that work on characters fall back on one token a byte (SentencePiece's
`byte_fallback`, https://github.com/google/sentencepiece). Some normalize a text first, which can make it
longer, so each character counts as the longest of its forms. What a provider adds by itself is allowed for:
marks of roles and messages, which take less than the JSON around them, counted too; a prompt for the use of
tools, 159 to 530 tokens, 700 more for its own text editor and 245 for its shell
(https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview#pricing). What no byte of the request
bounds (a picture, a document, a conversation that the provider keeps) is bounded by the model's context
window.

**Output.** What the request allows, else the context window: no answer is longer.

**Neither** where a provider's own tools run within the call (search, code, MCP), each of which feeds what it
finds to the model again: such a call has no bound.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from unicodedata import normalize

FRAMING = 512
"""Tokens for what a provider puts around the messages."""
TOOLS, TOOL = 1024, 1024
"""Tokens for the prompt on tools, and for the description of each tool of the provider's own."""


class Unbounded(Exception):
    """Nothing in the request bounds the call; the text says why."""


class Bound(NamedTuple):
    """The most that a call can take."""

    input_tokens: int | None
    """None: the context window, of each of its inputs."""
    output_tokens: int | None
    """Of each of its answers; None: the context window."""
    answers: int = 1
    tiers: tuple[str, ...] = ("standard",)
    """The tiers that may serve it; the dearest counts."""
    needed: str = "standard"
    """The tier that must have a price, for the request names it."""
    cached: bool = False
    """Whether its input may be written to a cache, which can cost more than reading it."""
    audio: bool = False
    """Whether its input holds audio, which must have a price then."""
    long: bool = False
    """Whether it asks for a window of a million tokens, where the model's own may be smaller."""


def of_request(kind: str, path: str, body: object) -> list[Bound]:
    """Return the bounds of the calls that a request makes: of a batch several, else one.

    Parameters
    ----------
    kind
        "converse", "invoke", "anthropic" or "openai".
    path
        Of the request, where its kind has several, and behind a `?` the betas that its headers ask for; of
        "invoke" the tier that they name.
    body
        Decoded JSON; of "converse" and "invoke" what botocore sends.

    Raises
    ------
    Unbounded
        Nothing bounds them.
    """
    if kind in ("converse", "invoke"):
        if not isinstance(body, bytes | bytearray | str):
            raise Unbounded("its body is no text")
        body = json.loads(body)
    if not isinstance(body, Mapping):
        raise Unbounded("its body is no JSON object")
    if kind == "converse":
        return [_converse(body)]
    if kind == "invoke":
        return [_invoked(body, path or "standard")]
    if kind == "openai":
        return [_openai(path, body)]
    path, _, betas = path.partition("?")
    if path.endswith("/batches"):
        # Not all models have a price for batches, which is below the standard one.
        return [_anthropic(each.get("params") or {}) for each in body.get("requests") or ()]
    bound = _anthropic(body)
    return [bound._replace(long=bound.long or _LONG in betas)]


def weight(value: object) -> int:
    """Return how many tokens a JSON value can become at most.

    Raises
    ------
    Unbounded
        It is no JSON value.
    """
    if isinstance(value, str):
        return _bytes(value)
    if isinstance(value, Mapping):
        return 2 + sum(_bytes(str(key)) + weight(each) + 2 for key, each in value.items())
    if isinstance(value, list | tuple):
        return 2 + sum(weight(each) + 1 for each in value)
    if value is None or isinstance(value, bool | int | float):
        return len(str(value)) + 1
    raise Unbounded(f"a {type(value).__name__} stands in its body")


def _bytes(text: str) -> int:
    if text.isascii():
        return len(text)
    # By characters, since to put many combining marks in their order takes the square of their number.
    return sum(_longest(each) * times for each, times in Counter(text).items())


@lru_cache(maxsize=4096)
def _longest(character: str) -> int:
    """Return the bytes of a character, or of what it is decomposed into; composing makes it no longer."""
    forms = (character, normalize("NFD", character), normalize("NFKD", character))
    return max(len(each.encode("utf-8", "surrogatepass")) for each in forms)


# Anthropic: https://platform.claude.com/docs/en/api/messages/create

_PLAIN = frozenset({"text", "tool_use", "tool_result", "thinking", "redacted_thinking"})
_LONG = "context-1m"
"""What asks for a long window: https://platform.claude.com/docs/en/build-with-claude/context-windows."""
_OWN_TOOLS = ("bash_", "text_editor_", "computer_", "memory_")
"""Tools that Anthropic describes and the agent runs; all others with a type run at Anthropic's."""


def _anthropic(body: Mapping[str, Any]) -> Bound:
    if body.get("mcp_servers"):
        raise Unbounded("the provider calls MCP servers in it")
    if body.get("fallbacks"):
        raise Unbounded("other models, each with its price, may answer it")
    if body.get("compaction") or "compact" in str(body.get("context_management") or ""):
        raise Unbounded("the provider compacts its context in it")
    tokens = FRAMING + weight(body) + _of_tools(_anthropic_tools(body.get("tools") or ()))
    thinking = body.get("thinking") or {}
    output = _highest(body.get("max_tokens"), thinking.get("budget_tokens"))
    speed = "fast" if body.get("speed") == "fast" else "standard"
    kept = body.get("container") or body.get("thread")
    plain = _only_text(body, _PLAIN) and not kept
    return Bound(
        tokens if plain else None,
        output,
        # Where the request does not say it, the workspace may, and inference in the US costs more:
        # https://platform.claude.com/docs/en/manage-claude/data-residency
        tiers=(speed, f"{speed}@us"),
        needed=speed,
        cached="cache_control" in str(body),
        long=_LONG in str(body.get("anthropic_beta") or ""),
    )


def _anthropic_tools(tools: Iterable[Any]) -> Iterable[bool]:
    """Yield for each tool whether the provider describes it."""
    for tool in tools:
        kind = str(tool.get("type") or "custom")
        if kind != "custom" and not kind.startswith(_OWN_TOOLS):
            raise Unbounded(f"the provider runs {kind} in it")
        yield kind != "custom"


def _of_tools(own: Iterable[bool]) -> int:
    counted = list(own)
    return (TOOLS if counted else 0) + TOOL * sum(counted)


def _only_text(body: Mapping[str, Any], plain: frozenset[str]) -> bool:
    contents = [body.get("system"), *(each.get("content") for each in body.get("messages") or ())]
    return all(_is_text(content, plain) for content in contents)


def _is_text(content: object, plain: frozenset[str]) -> bool:
    if isinstance(content, list | tuple):
        return all(_is_text(each, plain) for each in content)
    if isinstance(content, Mapping):
        kind = content.get("type") or ("message" if "content" in content else "")
        if kind == "reasoning" and not content.get("encrypted_content"):
            return False  # the provider keeps it
        return kind in plain and all(_is_text(content.get(name), plain) for name in ("content", "output"))
    return True  # a text, or nothing


def _sounds(body: Mapping[str, Any]) -> bool:
    contents = [each.get("content") for each in body.get("messages") or ()]
    blocks = [block for content in contents if isinstance(content, list | tuple) for block in content]
    return any("audio" in block or "input_audio" in block for block in blocks if isinstance(block, Mapping))


# OpenAI: https://platform.openai.com/docs/api-reference

_PARTS = frozenset(
    {
        *("text", "refusal", "input_text", "output_text", "summary_text", "reasoning_text", "message"),
        *("function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"),
        "reasoning",
    }
)
# OpenAI calls the same tier by two names: https://developers.openai.com/api/docs/guides/fast-mode.
_FAST = ("priority", "fast")
_KEPT = ("previous_response_id", "conversation", "prompt", "container")
"""What of a request for a response stands for a text that it does not hold."""
_CACHED = "cached_content"
"""The same of Gemini's: https://ai.google.dev/gemini-api/docs/openai."""


def _openai(path: str, body: Mapping[str, Any]) -> Bound:
    tier = str(body.get("service_tier") or "auto")
    dearer = _FAST if tier in ("auto", *_FAST) else () if tier == "default" else (tier,)
    tiers = ("standard", *dearer)
    needed = "standard" if tier in ("default", "auto", "flex") else tier
    tokens = FRAMING + weight(body) + _of_tools(_openai_tools(body))
    # Some models write what they are asked to a cache by themselves, and bill that.
    bound = Bound(tokens, None, tiers=tiers, needed=needed, cached=True)
    if path == "/embeddings":
        return bound._replace(output_tokens=0)
    if path == "/responses":
        if "compact" in str(body.get("context_management") or ""):
            raise Unbounded("the provider compacts its context in it")
        kept = any(body.get(name) for name in _KEPT)
        plain = not kept and _is_text(body.get("input"), _PARTS)
        return bound._replace(
            input_tokens=tokens if plain else None, output_tokens=_highest(body.get("max_output_tokens"))
        )
    if path == "/chat/completions":
        if body.get("web_search_options") is not None:
            raise Unbounded("the provider searches the web in it")
        if body.get("audio") or "audio" in (body.get("modalities") or ()):
            raise Unbounded("its answer is audio")
        said = any(each.get("audio") for each in body.get("messages") or ())
        plain = _only_text(body, _PARTS) and not said and _CACHED not in str(body.get("extra_body") or "")
        output = _highest(body.get("max_completion_tokens"), body.get("max_tokens"))
        if output is not None and body.get("prediction"):
            # What was predicted and is not so is billed as output, too:
            # https://developers.openai.com/api/docs/guides/predicted-outputs
            output += weight(body["prediction"])
        return bound._replace(
            input_tokens=tokens if plain else None,
            output_tokens=output,
            answers=_count(body.get("n")),
            audio=said or _sounds(body),
        )
    if path == "/completions":
        prompts = body.get("prompt")
        texts = prompts if isinstance(prompts, list) and not isinstance(next(iter(prompts), 0), int) else ()
        several = max(1, len(texts))
        return bound._replace(
            output_tokens=_highest(body.get("max_tokens")) or 16,  # its default
            answers=several * max(_count(body.get("n")), _count(body.get("best_of"))),
        )
    raise Unbounded(f"nothing in a request to {path} says how long its answer may become")


def _openai_tools(body: Mapping[str, Any]) -> Iterable[bool]:
    for tool in [*(body.get("tools") or ()), *(body.get("functions") or ())]:
        kind = str(tool.get("type") or "function")
        if kind not in ("function", "custom"):
            raise Unbounded(f"the provider runs {kind} in it")
        yield False


# Bedrock: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and, for the
# bodies of InvokeModel, https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html

_BLOCKS = frozenset({"text", "toolUse", "toolResult", "cachePoint", "reasoningContent", "json"})
_LIMITS = ("max_tokens", "maxTokens", "max_new_tokens", "max_completion_tokens", "max_gen_len")
_OLD_LIMITS = ("max_tokens_to_sample", "maxTokenCount")


def _converse(body: Mapping[str, Any]) -> Bound:
    tools = (body.get("toolConfig") or {}).get("tools") or ()
    if any("systemTool" in tool for tool in tools):
        raise Unbounded("the provider runs a tool of its own in it")
    more = body.get("additionalModelRequestFields") or {}
    nested = _anthropic_tools(more.get("tools") or ()) if isinstance(more, Mapping) else ()
    contents = [body.get("system"), *(each.get("content") for each in body.get("messages") or ())]
    plain = all(_is_block_text(content) for content in contents) and not body.get("promptVariables")
    tokens = FRAMING + weight(body) + _of_tools([*(False for _ in tools), *nested])
    tier = str((body.get("serviceTier") or {}).get("type") or "default")
    if (body.get("performanceConfig") or {}).get("latency") == "optimized":
        tier = "optimized"
    tier = "standard" if tier == "default" else tier
    bound = Bound(
        tokens if plain else None,
        _highest(*_limits(body.get("inferenceConfig")), *_limits(more)),
        _answers(more),
        cached="cachePoint" in str(body) or "cache_control" in str(more),
        audio=_sounds(body),
        long=_LONG in str(more),
    )
    return _of_tier(bound, tier)


def _of_tier(bound: Bound, tier: str) -> Bound:
    # What is asked for may not be had, and is served at the standard price then; flex is below it.
    return bound._replace(tiers=("standard", tier), needed="standard" if tier == "flex" else tier)


def _answers(fields: object) -> int:
    if not isinstance(fields, Mapping):
        return 1
    return max(_count(fields.get("n")), _count(fields.get("num_generations")))


def _is_block_text(content: object) -> bool:
    for block in content if isinstance(content, list) else ():
        if not (isinstance(block, Mapping) and block.keys() <= _BLOCKS):
            return False
        if not _is_block_text((block.get("toolResult") or {}).get("content")):
            return False
        reasoning = block.get("reasoningContent")
        if reasoning is not None and not reasoning.keys() <= {"reasoningText", "redactedContent"}:
            return False
    return True


def _limits(fields: object) -> Iterable[object]:
    if isinstance(fields, Mapping):
        yield from (fields.get(name) for name in (*_LIMITS, *_OLD_LIMITS))
        yield (fields.get("thinking") or {}).get("budget_tokens")


def _invoked(body: Mapping[str, Any], tier: str) -> Bound:
    if "anthropic_version" in body:
        return _of_tier(_anthropic(body), tier)
    text = _only_text(body, _PARTS) or _only_blocks(body)
    media = any(name in body for name in _MEDIA) or not _is_text(body.get("inputs"), _PARTS)
    tokens = FRAMING + weight(body) + _of_tools(_openai_tools(body)) if text and not media else None
    return _of_tier(_answered(Bound(tokens, None), body), tier)


_MEDIA = ("images", "inputImage", "inputVideo", "image", "video", "mediaSource", "taskType")


def _only_blocks(body: Mapping[str, Any]) -> bool:
    contents = [body.get("system"), *(each.get("content") for each in body.get("messages") or ())]
    return all(_is_block_text(content) for content in contents)


def _answered(bound: Bound, body: Mapping[str, Any]) -> Bound:
    found = _highest(
        *_limits(body), *_limits(body.get("inferenceConfig")), *_limits(body.get("textGenerationConfig"))
    )
    return bound._replace(
        output_tokens=found, answers=_answers(body), cached="cache" in str(body), audio=_sounds(body)
    )


def _highest(*given: object) -> int | None:
    found = [each for each in given if isinstance(each, int) and not isinstance(each, bool) and each >= 0]
    return max(found) if found else None


def _count(given: object) -> int:
    return given if isinstance(given, int) and given > 0 else 1

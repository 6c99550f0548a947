"""Pass Converse calls on to an OpenAI-compatible server: Ollama, vLLM, llama.cpp and others."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from local.model_api import Answer, ApiError

TIMEOUT_SECONDS = 110
_STOP_REASONS = {"length": "max_tokens", "content_filter": "content_filtered"}


def upstream(url: str, model: str) -> Callable[[Mapping[str, Any]], Answer]:
    """Answer with an OpenAI-compatible server's model; `UPSTREAM_API_KEY` in the environment is its key."""
    key = os.environ.get("UPSTREAM_API_KEY")
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}

    def answer(request: Mapping[str, Any]) -> Answer:
        body = json.dumps(_chat_request(request, model)).encode()
        call = urllib.request.Request(f"{url.rstrip('/')}/chat/completions", body, headers)
        try:
            with urllib.request.urlopen(call, timeout=TIMEOUT_SECONDS) as response:
                return _chat_answer(json.load(response))
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode("utf-8", "replace")
            if error.code == 429:
                raise ApiError(429, "ThrottlingException", said) from error
            if error.code < 500:
                raise ApiError(400, "ValidationException", said) from error
            raise ApiError(503, "ServiceUnavailableException", said) from error
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise ApiError(503, "ServiceUnavailableException", f"upstream: {error!r}") from error

    return answer


def _chat_request(request: Mapping[str, Any], model: str) -> dict[str, Any]:
    turns = [{"role": "system", "content": _text(request["system"])}] if request.get("system") else []
    turns += [{"role": turn["role"], "content": _text(turn["content"])} for turn in request["messages"]]
    settings = request.get("inferenceConfig", {})
    names = {
        "maxTokens": "max_tokens",
        "temperature": "temperature",
        "topP": "top_p",
        "stopSequences": "stop",
    }
    chosen = {theirs: settings[ours] for ours, theirs in names.items() if ours in settings}
    return {"model": model, "messages": turns, **chosen}


def _chat_answer(response: Mapping[str, Any]) -> Answer:
    choice, used = response["choices"][0], response["usage"]
    prompt, output = int(used["prompt_tokens"]), int(used["completion_tokens"])
    # These servers count cached tokens within the prompt; Converse counts them apart.
    cached = int((used.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
    counts = {
        "inputTokens": prompt - cached,
        "outputTokens": output,
        "totalTokens": prompt + output,
        "cacheReadInputTokens": cached,
        "cacheWriteInputTokens": 0,
    }
    reason = _STOP_REASONS.get(choice.get("finish_reason") or "", "end_turn")
    return choice["message"].get("content") or "", reason, counts


def _text(blocks: Sequence[Mapping[str, Any]]) -> str:
    if any(not block.keys() <= {"text", "cachePoint"} for block in blocks):
        raise ApiError(400, "ValidationException", "Only text can be passed on.")
    return "\n".join(block["text"] for block in blocks if "text" in block)

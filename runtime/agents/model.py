"""Ask a model through Bedrock's Converse API, for an answer that can be used."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from . import clients
from .answers import AnswerError, json_object

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime.type_defs import MessageTypeDef

DEFAULT_MODEL = "global.anthropic.claude-sonnet-5-5"
MAX_TRIES = 3
# Models that take cache points; others refuse the request (Bedrock user guide, "Prompt caching").
_CACHING = re.compile(r"amazon\.nova|anthropic\.claude-(3-7|3-5-haiku|[a-z]+-\d)")
_CUT_OFF = "it was cut off; answer shorter"

T = TypeVar("T")


class ModelError(Exception):
    """The model could not be reached or refused the call, for all retries; or the budget has no room."""


def user(text: str, *, cache: bool = False) -> MessageTypeDef:
    """Return a turn of ours; with `cache`, everything up to here may be read from cache by later calls."""
    if cache and _CACHING.search(_model_id()):
        return {"role": "user", "content": [{"text": text}, {"cachePoint": {"type": "default"}}]}
    return {"role": "user", "content": [{"text": text}]}


def assistant(text: str) -> MessageTypeDef:
    """Return a turn of the model's. Converse takes no empty text."""
    return {"role": "assistant", "content": [{"text": text or "(no answer)"}]}


def ask(
    system: str,
    messages: Sequence[MessageTypeDef],
    read: Callable[[dict[str, Any]], T],
    *,
    max_tokens: int = 4096,
) -> tuple[T, str]:
    """Ask until the answer can be used, at most `MAX_TRIES` times.

    Parameters
    ----------
    system
        Who the model is, and the form of its answer.
    messages
        The conversation so far, ending with a turn of ours.
    read
        Makes the result of the answer's JSON object; raises `AnswerError` with what to do better,
        which goes back to the model.
    max_tokens
        Of the answer.

    Returns
    -------
    tuple
        What `read` made, and the answer's text.

    Raises
    ------
    AnswerError
        The last answer can't be used either.
    ModelError
        The service failed.
    """
    conversation = list(messages)
    for left in reversed(range(MAX_TRIES)):
        text, stop_reason = _converse(system, conversation, max_tokens)
        try:
            if stop_reason == "max_tokens":
                raise AnswerError(_CUT_OFF)
            return read(json_object(text)), text
        except AnswerError as error:
            if not left:
                raise
            again = f"Your answer could not be used: {error}. Answer again, with the JSON object alone."
            conversation += [assistant(text), user(again)]
    raise AssertionError("unreachable: the last try returns or raises")


def _converse(system: str, messages: list[MessageTypeDef], max_tokens: int) -> tuple[str, str]:
    from botocore.exceptions import BotoCoreError, ClientError

    from agentops_monitoring import BudgetExceeded

    # No temperature: some models refuse any but their own.
    try:
        response = clients.bedrock().converse(
            modelId=_model_id(),
            system=[{"text": system}],
            messages=messages,
            inferenceConfig={"maxTokens": max_tokens},
        )
    except ClientError as error:
        raise ModelError(error.response.get("Error", {}).get("Code", "ClientError")) from error
    except (BotoCoreError, BudgetExceeded) as error:
        raise ModelError(type(error).__name__) from error
    content = response["output"].get("message", {}).get("content", [])
    return "".join(block.get("text", "") for block in content), response["stopReason"]


def _model_id() -> str:
    return os.environ.get("MODEL_ID") or DEFAULT_MODEL

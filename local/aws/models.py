"""Bedrock's models: calls, once judged, are passed on to a server that speaks Bedrock's API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ministack import app

from local.aws import metrics

LONGEST = 900.0  # seconds; as long as a function may wait
PASSED_ON = ("content-type", "x-amzn-errortype")


def _count(model: str, content: bytes) -> None:
    """Store Bedrock's own metrics of a call; tokens of answers that come in one piece."""
    counts = {"Invocations": 1}
    try:
        usage = json.loads(content)["usage"]
        counts |= {"InputTokenCount": usage["inputTokens"], "OutputTokenCount": usage["outputTokens"]}
    except (ValueError, KeyError, TypeError):
        pass  # a stream, or another API than Converse
    for name, count in counts.items():
        metrics.record("AWS/Bedrock", name, count, "Count", {"ModelId": model})


def install(url: str) -> None:
    """Answer every call of bedrock-runtime from that server; without one MiniStack's canned replies stay."""

    def ask(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        server = urlsplit(url)
        kind = HTTPSConnection if server.scheme == "https" else HTTPConnection
        connection = kind(server.netloc, timeout=LONGEST)
        try:
            *before, model, operation = path.removeprefix("/model/").split("/")
            identifier = quote("/".join([*before, model]), safe="")
            kept = {"Content-Type": headers.get("content-type", "application/json")}
            connection.request(method, f"{server.path}/model/{identifier}/{operation}", body, kept)
            answer = connection.getresponse()
            sent = {name: value for name in PASSED_ON if (value := answer.getheader(name))}
            content = answer.read()
            if answer.status == 200:
                _count(unquote(identifier), content)
            return answer.status, sent, content
        finally:
            connection.close()

    async def pass_on(method: str, path: str, headers: Mapping[str, str], body: bytes, _: Any) -> Any:
        return await asyncio.to_thread(ask, method, path, headers, body)

    if url:
        app.SERVICE_HANDLERS["bedrock-runtime"] = pass_on

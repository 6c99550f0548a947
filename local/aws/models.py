"""Bedrock's models: calls, once judged, are passed on to a server that speaks Bedrock's API."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlsplit

from ministack import app

LONGEST = 900.0  # seconds; as long as a function may wait
PASSED_ON = ("content-type", "x-amzn-errortype")


def install(url: str) -> None:
    """Answer every call of bedrock-runtime from that server; without one MiniStack's canned replies stay."""

    def ask(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        server = urlsplit(url)
        kind = HTTPSConnection if server.scheme == "https" else HTTPConnection
        connection = kind(server.netloc, timeout=LONGEST)
        try:
            *before, model, operation = path.removeprefix("/model/").split("/")
            identifier = quote("/".join([*before, model]), safe="")
            content = {"Content-Type": headers.get("content-type", "application/json")}
            connection.request(method, f"{server.path}/model/{identifier}/{operation}", body, content)
            answer = connection.getresponse()
            sent = {name: value for name in PASSED_ON if (value := answer.getheader(name))}
            return answer.status, sent, answer.read()
        finally:
            connection.close()

    async def pass_on(method: str, path: str, headers: Mapping[str, str], body: bytes, _: Any) -> Any:
        return await asyncio.to_thread(ask, method, path, headers, body)

    if url:
        app.SERVICE_HANDLERS["bedrock-runtime"] = pass_on

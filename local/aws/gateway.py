"""The HTTP entry: MiniStack's application, with ``/_local/*`` in front.

``GET /_local/idle``
    ``{"pending": n, …}``: asynchronous invocations, undelivered log batches, unread stream records.
``GET /_local/mail``
    The e-mails that SNS would have sent.
``GET /_local/calls``
    What each function has called: ``{function: {action: [resource, …]}}``.
``POST /_local/clock``  ``{"advance_seconds": n}``
    Move the time that alarms and schedules see.
``GET /_local/faults``, ``PUT /_local/faults``  ``{"seed": n, "rules": [rule, …]}``
    What is to go wrong (see ``faults``), and how often it has.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hypercorn.protocol.events import StreamClosed

from local.aws import (
    alarms,
    clock,
    dynamodb,
    faults,
    functions,
    invocations,
    kept_ready,
    limits,
    logs,
    metrics,
    models,
    notifications,
    permissions,
    streams,
    templates,
)

MINISTACK = "1.5.33"
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class Local:
    """Our parts, put together and into MiniStack.

    Parameters
    ----------
    endpoint
        The URL that this process serves.
    folder
        Where function code is unpacked.
    function_variables
        Added to every function's environment.
    retry_seconds
        The pause before the first asynchronous retry.
    model_url
        What answers Bedrock's calls; MiniStack when empty.
    """

    def __init__(
        self,
        endpoint: str,
        folder: Path,
        function_variables: Mapping[str, str],
        retry_seconds: float,
        model_url: str,
    ) -> None:
        found = version("ministack")
        if found != MINISTACK:
            raise RuntimeError(
                f"local AWS: written against the internals of ministack {MINISTACK}, found {found}"
            )
        self._faults = faults.Faults()
        self.functions = functions.Functions(endpoint, folder, function_variables, self._faults)
        self._invocations = invocations.Invocations(self.functions, self._faults, retry_seconds)
        self._streams = streams.Streams(self.functions, self._faults)
        submit = self._invocations.submit
        functions.install(self.functions, submit)
        invocations.install(self._invocations)
        streams.install(self._streams)
        metrics.install()
        self._subscriptions = logs.install(submit)
        notifications.install(submit)
        permissions.install()
        models.install(model_url)
        faults.install(self._faults, self.functions.environment_of)
        templates.install()
        self._alarms = alarms.install()
        clock.install()
        dynamodb.install()
        limits.install()
        kept_ready.install()

    def idle(self) -> dict[str, int]:
        """Return what is under way, by kind, and their sum as ``pending``.

        It looks twice: what moves on from one kind to another during the first look is in the second.
        """
        looks = []
        for _ in range(2):
            kinds = {
                "invocations": max(self._invocations.pending, self.functions.running),
                "log_batches": self._subscriptions.pending,
                "stream_records": self._streams.pending,
                "alarms": self._alarms.pending,
            }
            looks.append({"pending": sum(kinds.values()), **kinds})
        return max(looks, key=lambda kinds: kinds["pending"])

    def answer(self, request: str, body: bytes) -> tuple[int, Any]:
        """Answer a request for one of our own pages, ``<method> <path>``."""
        pages: dict[str, Callable[[], Any]] = {
            "GET /_local/idle": self.idle,
            "GET /_local/mail": notifications.mail,
            "GET /_local/calls": permissions.calls,
            "GET /_local/faults": self._faults.state,
            "PUT /_local/faults": lambda: self._faults.order(json.loads(body)),
            "POST /_local/clock": lambda: {"now": clock.advance(_seconds(body))},
        }
        if request not in pages:
            return 404, {"message": f"no such page: {request}; there are {', '.join(pages)}"}
        return 200, pages[request]()


def _seconds(body: bytes) -> float:
    match json.loads(body or b"null"):
        case {"advance_seconds": int() | float() as seconds}:
            return seconds
    raise ValueError('expected {"advance_seconds": number}')


def application(inner: Application, local: Local) -> Application:
    """Return the ASGI application."""

    async def serve(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/_local/"):
            try:
                await inner(scope, receive, send)
            except faults.NoAnswerError:
                stream: Any = send.__self__  # type: ignore[attr-defined] # hypercorn's; ASGI always answers
                await stream.send(StreamClosed(stream_id=stream.stream_id))
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        try:
            status, answer = await asyncio.to_thread(local.answer, f"{scope['method']} {scope['path']}", body)
        except ValueError as error:
            status, answer = 400, {"message": f"{type(error).__name__}: {error}"}
        content = json.dumps(answer).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return serve

"""Reads a response's body along with the agent: not a byte more, not a moment earlier."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any, Protocol

See = Callable[[bytes], None]


class Ended(Protocol):
    """Called at a body's end."""

    def __call__(self, *, complete: bool) -> None:
        """Take note whether all of it was read."""


_BODY = "_agentops_body"
_kinds: dict[type, Any] = {}
"""The classes of responses, and what they are while they are watched."""


class Reader(Protocol):
    """Learns from a body what it needs to know."""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes, before the agent has them."""

    def end(self, *, complete: bool) -> None:
        """Take note that no more bytes follow, since all were read or since nobody reads them."""


def watch(response: Any, reader: Reader) -> None:
    """Let a reader see what passes through `iter_bytes` of an httpx response that is not read yet.

    All other ways to read its text lead through there. The response itself stays what it is, and gets its
    own class back at the end.
    """
    kind = type(response)
    watched = _kinds.get(kind)
    if watched is None:
        watched = _kinds[kind] = _watched(kind)
    response.__dict__[_BODY] = _Body(reader)
    response.__class__ = watched


def _watched(kind: Any) -> Any:
    """Return a class of responses that are read along with.

    Not methods of the one response: they would hold it in a cycle, and leave it to the garbage collector to
    close a dropped one; through a weak reference, they would find it gone when the collector does.
    """

    class Watched(kind):  # type: ignore[misc]
        def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
            body = self.__dict__.get(_BODY)
            if body is None:
                return kind.iter_bytes(self, chunk_size)  # type: ignore[no-any-return]
            return body.read(self, kind.iter_bytes, chunk_size)  # type: ignore[no-any-return]

        def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
            body = self.__dict__.get(_BODY)
            if body is None:
                return kind.aiter_bytes(self, chunk_size)  # type: ignore[no-any-return]
            return body.read_async(self, kind.aiter_bytes, chunk_size)  # type: ignore[no-any-return]

        def close(self) -> None:
            _closed(self)
            kind.close(self)

        async def aclose(self) -> None:
            _closed(self)
            await kind.aclose(self)

    Watched.__name__, Watched.__qualname__, Watched.__module__ = (
        kind.__name__, kind.__qualname__, kind.__module__,
    )  # fmt: skip
    return Watched


def _closed(response: Any) -> None:
    # None for a method that was taken from the response before its end.
    body = response.__dict__.get(_BODY)
    if body is not None:
        body.closed(response)


class _Body:
    def __init__(self, reader: Reader) -> None:
        self._reader: Reader | None = reader
        self._waiting = False

    def read(
        self, response: Any, method: Callable[[Any, int | None], Iterator[bytes]], chunk_size: int | None
    ) -> Iterator[bytes]:
        chunks = method(response, chunk_size)
        complete = False
        try:
            while True:
                self._waiting = True
                try:
                    chunk = next(chunks)
                except StopIteration:
                    complete = True
                    return
                finally:
                    self._waiting = False
                self._see(chunk)
                yield chunk
        finally:
            self._end(response, complete)

    async def read_async(
        self, response: Any, method: Callable[[Any, int | None], AsyncIterator[bytes]], chunk_size: int | None
    ) -> AsyncIterator[bytes]:
        chunks = method(response, chunk_size)
        complete = False
        try:
            while True:
                self._waiting = True
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    complete = True
                    return
                finally:
                    self._waiting = False
                self._see(chunk)
                yield chunk
        finally:
            self._end(response, complete)

    def closed(self, response: Any) -> None:
        # httpx closes a response when its last raw bytes are in, before it hands out what it decodes of them.
        if not self._waiting:
            self._end(response, False)

    def _see(self, chunk: bytes) -> None:
        # Once a chunk: a try costs nothing, a context manager does.
        if self._reader is not None:
            try:  # noqa: SIM105
                self._reader.feed(chunk)
            except Exception:  # noqa: BLE001, S110 - bytes of a shape nobody foresaw
                pass

    def _end(self, response: Any, complete: bool) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            with suppress(Exception):
                reader.end(complete=complete)
        if response is not None and response.__dict__.pop(_BODY, None) is not None:
            response.__class__ = type(response).__bases__[0]

    def __del__(self) -> None:
        self._end(None, False)


MAX_KEPT = 32 * 1024 * 1024
"""Bytes of a body, or of one of its lines, that are kept; a longer one is no answer of a model."""


class Lines:
    """Cuts a body into lines, and hands on those that are not empty."""

    def __init__(self, see: See, ended: Ended) -> None:
        self._see = see
        self._ended = ended
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        if b"\n" not in chunk:
            self._rest += chunk
            if len(self._rest) > MAX_KEPT:
                self._rest.clear()
            return
        if self._rest:
            chunk = bytes(self._rest) + chunk
            self._rest.clear()
        lines = chunk.split(b"\n")
        self._rest += lines.pop()
        for line in lines:
            if line:
                self._see(line)

    def end(self, *, complete: bool) -> None:
        """Hand on a last line without an end."""
        if complete and self._rest:
            self._see(bytes(self._rest))
        self._ended(complete=complete)


class Frames:
    """Cuts a body into the events of an AWS event stream, and hands on the model's own JSON in them."""

    def __init__(self, see: See, ended: Ended) -> None:
        from botocore.eventstream import EventStreamBuffer

        self._buffer = EventStreamBuffer()
        self._see = see
        self._ended = ended

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._buffer.add_data(chunk)
        for event in self._buffer:
            payload = json.loads(event.payload)
            if isinstance(payload.get("bytes"), str):
                self._see(b64decode(payload["bytes"]))

    def end(self, *, complete: bool) -> None:
        """Hand on the end."""
        self._ended(complete=complete)


class Whole:
    """Keeps a body, and hands it on when it is all there."""

    def __init__(self, see: See, ended: Ended) -> None:
        self._see = see
        self._ended = ended
        self._body = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._body += chunk
        if len(self._body) > MAX_KEPT:
            self._body.clear()

    def end(self, *, complete: bool) -> None:
        """Hand on the body."""
        if complete and self._body:
            self._see(bytes(self._body))
        self._ended(complete=complete)


def reader_for(response: Any, see_line: See, see_body: See, ended: Ended) -> Reader:
    """Choose the reader for a response's content type."""
    kind = response.headers.get("content-type", "")
    if "amazon.eventstream" in kind:
        return Frames(see_line, ended)
    if "json" in kind and "jsonl" not in kind:
        return Whole(see_body, ended)
    return Lines(see_line, ended)

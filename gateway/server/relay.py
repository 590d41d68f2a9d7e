"""A response that goes out as it came: nothing added that we did not mean to add."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any, cast

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.helpers import must_be_empty_body, rfc822_formatted_time

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http_writer import StreamWriter
    from multidict import CIMultiDict

# How long the other side may take for what was written before its connection was closed.
FLUSH_S = 10.0
_RESET = struct.pack("ii", 1, 0)


class Relay(web.StreamResponse):
    """A StreamResponse without aiohttp's own `Server` line and guessed `Content-Type`."""

    def __init__(self, status: int, reason: str | None, headers: CIMultiDict[str]) -> None:
        super().__init__(status=status, reason=reason, _real_headers=headers)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write the head. Raises what a connection that is gone raises."""
        length = self._headers.get(hdrs.CONTENT_LENGTH)
        if (
            length is None
            or not length.isdecimal()
            or self.prepared
            or request.version != HttpVersion11
            or must_be_empty_body(request.method, self._status)
        ):
            return await super().prepare(request)
        # Most responses: of all that aiohttp would consider, this is what is left to do.
        self._req = request
        writer = self._payload_writer = cast("StreamWriter", request._payload_writer)  # noqa: SLF001
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        writer.length = int(length)
        if hdrs.DATE not in self._headers:
            self._headers[hdrs.DATE] = rfc822_formatted_time()
        if not self._keep_alive:
            self._headers[hdrs.CONNECTION] = "close"
        at_once(writer.write_headers(f"HTTP/1.1 {self._status} {self._reason}", self._headers))
        writer.send_headers()
        return writer

    async def _prepare_headers(self) -> None:
        # aiohttp's low-level server has no hook at this place; the byte tests hold it.
        absent = [n for n in (hdrs.SERVER, hdrs.CONTENT_TYPE) if n not in self.headers]
        length = self.headers.get(hdrs.CONTENT_LENGTH) if self.status == 304 else None
        await super()._prepare_headers()
        for name in absent:
            self.headers.popall(name, None)
        if length is not None:
            # RFC 9110 section 8.6: in a 304 it tells the length that a 200 would have had.
            self.headers[hdrs.CONTENT_LENGTH] = length

    def put(self, piece: bytes) -> None:
        """Write, and don't wait for the client to take it. Raises ConnectionError once it is gone."""
        at_once(cast("StreamWriter", self._payload_writer).write(piece, drain=False))


def at_once(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that has nothing to wait for."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("what was to be done at once has waited")


class Cut(web.StreamResponse):
    """What a handler returns when there is nothing to end properly: the connection closes after
    the bytes that are written already, and a body that was under way stays unfinished.

    (Raising instead would make aiohttp log a traceback for each client that went away.)
    """

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002
        """End the connection."""
        raise ConnectionResetError


def cut(request: web.BaseRequest) -> Cut:
    """End the connection without ending the response: the client must see that it is cut short.

    A chunked body that ended in order would pass for a whole one.
    """
    transport = request.transport
    if transport is None:
        return Cut()
    if request.version < HttpVersion11:
        # Without chunks the end of the connection is the end of the body: only a reset differs.
        connection: socket.socket | None = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
        return Cut()
    close_within(transport, FLUSH_S)
    return Cut()


def close_within(transport: asyncio.WriteTransport, seconds: float) -> None:
    """Close after what is written; at once if that is not taken in time."""
    transport.close()
    asyncio.get_running_loop().call_later(seconds, transport.abort)

"""An upgraded connection (WebSocket), passed on byte for byte in both directions.

The upstream is asked first, through the same client and with the same error mapping as any
request; only when it answers 101 do we answer 101. From there on nothing is parsed, so that
compression, subprotocols, pings and close codes stay between client and upstream.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from aiohttp import ServerDisconnectedError

from gateway.server.relay import FLUSH_S, Relay, close_within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web
    from multidict import CIMultiDict

    from gateway.upstream.response import Response

_HIGH_WATER = 256 * 1024


class Pipe:
    """Bytes from a protocol that hands its input to a parser: this is the parser.

    Holds at most about `_HIGH_WATER` bytes: beyond that the sender is paused.
    """

    def __init__(self, transport: asyncio.Transport | None) -> None:
        self._transport = transport
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._ended = False
        self._waiting: asyncio.Event = asyncio.Event()

    # What aiohttp's protocols call on a parser and its payload.

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes in; never ends the protocol."""
        if data:
            self._pieces.append(bytes(data))
            self._held += len(data)
            if self._held > _HIGH_WATER and not self._paused and self._transport is not None:
                self._transport.pause_reading()
                self._paused = True
            self._waiting.set()
        return False, b""

    def feed_eof(self) -> None:
        """The sender is done, or gone."""
        self._ended = True
        self._waiting.set()

    def is_eof(self) -> bool:
        """Asked when the connection is given back: one that was upgraded is never used again."""
        return self._ended

    def set_exception(self, *_: Any) -> None:
        """The sender is gone."""
        self.feed_eof()

    def rest(self) -> bytes:
        """Take out what has come and was not passed on."""
        left = b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        return left

    async def drain_to(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Pass everything on until the sender is done."""
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self._held -= len(piece)
                await write(piece)
            if self._paused and self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()
            self._paused = False
            if self._ended:
                return
            self._waiting.clear()
            await self._waiting.wait()


class _Upgraded(Relay):
    """A 101 and the raw bytes after it: no framing of ours."""

    _length_check = False


async def tunnel(
    request: web.BaseRequest, upstream: Response, headers: CIMultiDict[str]
) -> web.StreamResponse:
    """Answer 101 as the upstream did, then carry bytes both ways until either side is done."""
    protocol = upstream.connection
    transport = protocol.transport
    if transport is None:
        raise ServerDisconnectedError
    relay = _Upgraded(upstream.status, upstream.reason, headers)
    await relay.prepare(request)
    from_upstream = Pipe(transport)
    from_client = Pipe(request.transport)
    protocol.set_parser(from_upstream, from_upstream)
    request.protocol.set_parser(from_client)  # type: ignore[arg-type]  # duck-typed by aiohttp
    request.protocol.keep_alive(False)

    async def to_upstream(piece: bytes) -> None:
        transport.write(piece)
        await protocol._drain_helper()  # noqa: SLF001 - what aiohttp's own WebSocket writer awaits

    try:
        async with asyncio.TaskGroup() as both:
            down = both.create_task(from_upstream.drain_to(relay.write))
            up = both.create_task(from_client.drain_to(to_upstream))
            # Either side's end ends both: half-closed tunnels would have no other deadline.
            await asyncio.wait((down, up), return_when=asyncio.FIRST_COMPLETED)
            if not down.done():
                from_upstream.feed_eof()
            if not up.done():
                from_client.feed_eof()
    except* (ConnectionError, OSError):
        # One side went away while the other was written to: the same as its end.
        pass
    finally:
        # What one side said before it went is still for the other: a close frame, often.
        if (last := from_client.rest()) and not transport.is_closing():
            transport.write(last)
        # An upgraded connection is never reused: this closes it after what is written.
        protocol.close()
        close_within(transport, FLUSH_S)
        if request.transport is not None:
            close_within(request.transport, FLUSH_S)
    return relay

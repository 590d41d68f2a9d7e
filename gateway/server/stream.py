"""Chunks of an upstream answer: to the client as they arrive, and into a recording beside.

Rule 1: nothing is buffered on the way to the client; its pace is the upstream's pace.
Rule 2: a recording has a bound; beyond it the answer goes on, only unrecorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from typing import TYPE_CHECKING, Protocol

import aiohttp

from gateway.core.model import Form
from gateway.core.pacing import gaps
from gateway.core.sse import Splitter
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from gateway.budget import Share
    from gateway.server.relay import Relay
    from gateway.upstream.response import Response

_MAX_EVENT_BYTES = 1024 * 1024

STALL_S = 600.0
"""A client that takes nothing for so long is gone: its upstream call must not be held for ever."""


class ClientGone(Exception):
    """The client has hung up. Nobody's error; the upstream call ends with it."""


class Recording:
    """What an upstream answers, identity-encoded, at most `limit` bytes of it."""

    def __init__(
        self,
        form: Form,
        coding: str,
        limit: int,
        timer: Callable[[], float] | None = None,
        share: Share | None = None,
    ) -> None:
        """`timer` gives seconds by any clock; with one, a plain stream's pace is kept too. `share`
        grows by what is held; where it can't, the recording is given up.
        """
        self.form = form
        self.complete = False
        """The upstream's last byte has come."""
        self.overflowed = False
        self._coding = coding
        self._limit = limit
        self._share = share
        self._pieces: list[bytes] = []
        self.size = 0
        """Bytes that have come, as they came."""
        self._timer = timer if form is Form.STREAM and self.plain else None
        self._ends: list[int] = []
        self.arrived_ms: list[int] = []
        """When each chunk of a plain stream came, by `timer`."""

    @property
    def plain(self) -> bool:
        """Not encoded: events can be told apart while they pass."""
        return self._coding in {"", "identity"}

    def feed(self, chunk: bytes) -> None:
        """Keep the chunk, as long as there is room."""
        if self.overflowed:
            return
        self.size += len(chunk)
        if self.size > self._limit or not (self._share is None or self._share.grow(len(chunk))):
            self.overflowed = True
            self.forget()
            return
        self._pieces.append(chunk)
        if self._timer is not None:
            self._ends.append(self.size)
            self.arrived_ms.append(int(self._timer() * 1000))

    def forget(self) -> None:
        """Hold nothing any more."""
        self._pieces.clear()
        if self._share is not None:
            self._share.release()

    def gaps_ms(self) -> tuple[int, ...]:
        """The stream's pace, event by event; empty where none was kept."""
        return gaps(b"".join(self._pieces), self._ends, self.arrived_ms) if self._ends else ()

    def payload(self) -> bytes | None:
        """The recorded bytes, decoded; None when they can't be, or would be too many."""
        raw = b"".join(self._pieces)
        # From here on they are held once, not twice.
        self._pieces = [raw]
        if self.plain:
            return raw
        try:
            # 32 adds automatic detection of gzip and zlib headers; a raw deflate is not taken.
            inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
            decoded = inflater.decompress(raw, self._limit)
        except zlib.error:
            return None
        ended = inflater.eof or not self.complete
        return decoded if ended and not inflater.unconsumed_tail else None


def recording(
    upstream: Response,
    limit: int,
    timer: Callable[[], float] | None = None,
    share: Share | None = None,
) -> Recording | None:
    """A recording for the answer, by what its own headers say; None for what can't be stored."""
    coding = upstream.headers.get("Content-Encoding", "").strip().lower()
    if coding not in {"", "identity", "gzip", "deflate"}:
        return None
    kind = upstream.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        return Recording(Form.STREAM, coding, limit, timer, share)
    if kind == "application/json" or kind.endswith("+json"):
        return Recording(Form.BODY, coding, limit, None, share)
    return None


class Sieve:
    """Passes events on as `wanted` leaves them; what it leaves nothing of is kept back."""

    def __init__(self, wanted: Callable[[bytes], bytes]) -> None:
        self._wanted = wanted
        self._splitter = Splitter(_MAX_EVENT_BYTES)

    def feed(self, chunk: bytes) -> bytes:
        """What of the stream may go out now."""
        pieces = self._splitter.feed(chunk)
        return b"".join(self._wanted(piece) or self._left_of(piece) for piece in pieces)

    @staticmethod
    def _left_of(unwanted: bytes) -> bytes:
        # Where a chunk ended between the CR and the LF of a line end, the LF opens the next event.
        return b"\n" if unwanted.startswith(b"\n") else b""

    def rest(self) -> bytes:
        """What is left when the stream has ended."""
        return self._splitter.rest()


class Source(Protocol):
    """Where a response's body comes from, part by part."""

    async def pass_to(
        self, sink: Callable[[bytes], bool], room: Callable[[], Awaitable[None]]
    ) -> None:
        """Hand each part to `sink` as it comes; where `sink` says that it can't take more, `room`
        is awaited. Returns at the end of the body; raises what ended it before that, after all
        that came was handed over.
        """


class _Outlet:
    """Where a body goes out, part by part, and what becomes of each on the way."""

    def __init__(
        self,
        request: web.BaseRequest,
        out: Relay,
        taken: Recording | None,
        sieve: Sieve | None,
        on_first: Callable[[], None] | None,
    ) -> None:
        self._protocol = request.protocol
        self._put = out.put
        self._taken = taken
        self._sieve = sieve
        self._on_first = on_first

    def put(self, chunk: bytes) -> bool:
        """Send a part; True while the client keeps up. Raises `ClientGone`."""
        if self._on_first is not None:
            self._on_first()
            self._on_first = None
        if self._taken is not None:
            self._taken.feed(chunk)
        piece = chunk if self._sieve is None else self._sieve.feed(chunk)
        if piece:
            try:
                self._put(piece)
            except ConnectionError as error:
                raise ClientGone from error
        return not self._protocol.writing_paused

    async def room(self) -> None:
        """Wait while the client lags behind by more than the buffers hold. Raises `ClientGone`."""
        try:
            async with asyncio.timeout(STALL_S):
                await self._protocol._drain_helper()  # noqa: SLF001 - what aiohttp's writer awaits
        except (ConnectionError, TimeoutError) as error:
            raise ClientGone from error


async def relay_response(
    request: web.BaseRequest,
    out: Relay,
    source: Source,
    *,
    taken: Recording | None = None,
    sieve: Sieve | None = None,
    on_first: Callable[[], None] | None = None,
) -> web.StreamResponse:
    """Send a response on, each part of its body as it arrives; `taken` records what arrives,
    `sieve` changes what is sent.

    `on_first` is called at the first byte of the body. Raises `ClientGone`, and the source's errors
    for a body that breaks off, after all that came of it has been sent on.
    """
    if sieve is not None:
        out.headers.popall("Content-Length", None)
    outlet = _Outlet(request, out, taken, sieve, on_first)
    try:
        try:
            await out.prepare(request)
        except ConnectionError as error:
            raise ClientGone from error
        await source.pass_to(outlet.put, outlet.room)
    except (aiohttp.ClientError, TimeoutError, OSError, GatewayError):
        if sieve is not None and (left := sieve.rest()):
            with contextlib.suppress(ConnectionError):
                out.put(left)
        raise
    if taken is not None:
        taken.complete = True
    await _end(sieve, out)
    return out


async def take_whole(upstream: Response, taken: Recording, on_first: Callable[[], None]) -> None:
    """Read the upstream's body into the recording and nowhere else."""
    first = True
    while chunk := await upstream.content.readany():
        if first:
            on_first()
            first = False
        taken.feed(chunk)
    taken.complete = True


async def _end(sieve: Sieve | None, out: Relay) -> None:
    try:
        if sieve is not None and (piece := sieve.rest()):
            await out.write(piece)
        await out.write_eof()
    except ConnectionError as error:
        raise ClientGone from error

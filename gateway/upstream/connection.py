"""One connection to an upstream: a request out, its response in, and then perhaps the next.

aiohttp's C parser (llhttp) and `StreamReader` below, nothing of its session: what a session does
for each request costs several times what the request itself does. What aiohttp's own protocol
holds holds here too, and:

Rule 1: a connection is given back only after a response that ended by its own framing, a request
that was sent in full, and not a byte too many. Everything else ends it.
Rule 2: silence has a deadline, measured by one timer for the connection and not one for each
piece. Time in which we don't read, or wait for the client's next piece, is not the upstream's.
Rule 3: a response may come before the request is out: it is told at once, and what is left of the
request stays unsent.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from gateway.upstream.request import cut, write_pieces
from gateway.upstream.response import Response

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable

    from aiohttp.http import RawResponseMessage

PIECE = 64 * 1024
MAX_HEAD_BYTES = 64 * 1024
# A larger body is written in pieces, so that encrypting it never holds up the loop for long.
_WHOLE = 8 * PIECE
# Up to here, one buffer of head and body is cheaper than two.
_JOINED = 8 * 1024
_MAX_INTERIM = 32
_NO_BODY = frozenset((204, 304))
_NAMES = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]*")


class RawTaker(Protocol):
    """Takes the bytes of an upgraded connection."""

    def feed_data(self, data: bytes) -> Any:
        """Take bytes in."""

    def feed_eof(self) -> None:
        """No more will come."""


class Connection(BaseProtocol):
    """A protocol for one request at a time; `on_lost` is called when it is gone."""

    __slots__ = (
        "_active_at",
        "_answered",
        "_error",
        "_idle_s",
        "_interim",
        "_payload",
        "_raw",
        "_sent",
        "_spoiled",
        "_tail",
        "_timer",
        "_waiter",
        "_writer",
        "expires_at",
        "on_body",
        "on_lost",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.on_lost: Callable[[Connection], None] | None = None
        self.on_body: Callable[[], None] | None = None
        """Called when something of the body has come, or its end."""
        self.expires_at = 0.0
        """Loop time after which it is not used again; the pool's."""
        self._parser: Any = None
        self._payload: StreamReader = EMPTY_PAYLOAD
        self._answered: RawResponseMessage | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._writer: asyncio.Task[None] | None = None
        self._sent = True
        self._spoiled = False
        self._interim = 0
        self._raw: RawTaker | None = None
        self._tail = b""
        self._idle_s = self._active_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def upgraded(self) -> bool:
        """It has answered 101, and carries something else than HTTP now."""
        return self._upgraded

    def __repr__(self) -> str:
        state = "lost" if self.transport is None else "idle" if self._parser is None else "busy"
        return f"<Connection {state}>"

    # --- a request ------------------------------------------------------------------------------

    async def ask(
        self,
        head: bytes,
        body: bytes | AsyncIterator[bytes] | None,
        *,
        length: int | None,
        bodyless: bool,
        idle_s: float,
    ) -> Response:
        """Send a request; returns when the head of its response is there.

        `length` is what the head says of an iterator's bytes; None sends them in chunks.
        `bodyless`: the response has no body whatever its head says (it answers a HEAD).
        Raises aiohttp's ClientError, TimeoutError; `GatewayError` behind one when the iterator
        raised it.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("the connection is closed")
        self._parser = HttpResponseParser(
            self,
            self._loop,
            PIECE,
            payload_exception=aiohttp.ClientPayloadError,
            response_with_body=not bodyless,
            read_until_eof=True,
            auto_decompress=False,
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
        )
        self._answered, self._interim = None, 0
        self._watch(idle_s)
        if body is None:
            transport.write(head)
        elif isinstance(body, bytes) and len(body) <= _WHOLE:
            if len(body) <= _JOINED:
                transport.write(head + body)
            else:
                transport.writelines((head, body))
        else:
            self._sent = False
            transport.write(head)
            if isinstance(body, bytes):
                pieces, length = cut(body), len(body)
            else:
                pieces = body
            self._writer = self._loop.create_task(self._pass_on(pieces, length))
        if self._error is None and self._answered is None:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._error is not None:
            raise self._error
        assert self._answered is not None
        return Response(self, self._answered, self._payload)

    async def _pass_on(self, pieces: AsyncIterator[bytes], length: int | None) -> None:
        """Write a body piece by piece, at the pace at which the upstream takes it."""
        try:
            await write_pieces(self, pieces, length)
            self._sent = True
        except Exception as error:  # noqa: BLE001 - whatever a client's body may raise
            told = aiohttp.ClientConnectionError(f"the request body failed: {error}")
            told.__cause__ = error
            # Where the connection itself broke, that was told before.
            self._fail(told)

    def active(self) -> None:
        """Something moved: silence begins anew."""
        self._active_at = self._loop.time()

    async def drained(self) -> None:
        """Wait while the upstream takes less than we write."""
        if self._paused:
            await self._drain_helper()

    # --- its response ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take in what the upstream sent; empty where the parser may go on."""
        parser = self._parser
        if data:
            self._active_at = self._loop.time()
        elif parser is None:
            return
        if self._upgraded:
            self._take_raw(data)
            return
        if parser is None:
            # Nothing was asked: this answers nothing, and must not be taken for the next answer.
            self.abort()
            return
        try:
            messages, upgraded, tail = parser.feed_data(data)
        except Exception as error:  # noqa: BLE001 - the parser raises what a peer provokes
            self._fail(_unreadable(error))
            return
        for message, payload in messages:
            self._take(message, payload)
        if upgraded:
            self._upgraded = True
            if tail:
                self._take_raw(tail)
        elif self.on_body is not None:
            self.on_body()

    def _take(self, message: RawResponseMessage, payload: StreamReader) -> None:
        if self._answered is not None:
            # A second response to one request.
            self._spoiled = True
            return
        status = message.code
        if 100 <= status < 200 and status != 101:
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                self._fail(aiohttp.ClientPayloadError("too many interim responses"))
            return
        if _NAMES.fullmatch("".join(message.headers)) is None:
            # The parser takes `content-length :` for a length; a client behind us may not.
            self._fail(aiohttp.ClientPayloadError("a header name that is none"))
            return
        self._answered = message
        self._payload = EMPTY_PAYLOAD if status in _NO_BODY else payload
        self._wake()

    def _take_raw(self, data: bytes) -> None:
        if self._raw is not None:
            self._raw.feed_data(data)
            return
        self._tail += data
        if len(self._tail) > PIECE and not self._buffer_paused:
            self._pause_reading_for_buffer()

    def set_parser(self, parser: RawTaker, payload: object = None) -> None:  # noqa: ARG002
        """Give the bytes after a 101 to `parser` (as aiohttp's protocols call it)."""
        self._raw = parser
        self._drop_timer()
        if self._tail:
            tail, self._tail = self._tail, b""
            parser.feed_data(tail)
        if self._buffer_paused:
            self._resume_reading_for_buffer()
        if self.transport is None:
            parser.feed_eof()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Called for every piece that is read; only one that was paused has anything to do."""
        if self._reading_paused:
            self._active_at = self._loop.time()
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell whoever waits; a response that ends with its connection ends here."""
        self._drop_timer()
        if self._raw is not None:
            self._raw.feed_eof()
        if self._parser is not None and not self._upgraded:
            if self._answered is None:
                self._fail(
                    aiohttp.ServerDisconnectedError()
                    if exc is None
                    else aiohttp.ClientOSError(*exc.args)
                )
            elif not self._payload.is_eof():
                self._end_with_connection(exc)
        super().connection_lost(exc)
        if self.on_body is not None:
            self.on_body()
        if self._writer is not None:
            self._writer.cancel()
        if self.on_lost is not None:
            self.on_lost(self)

    def _end_with_connection(self, exc: BaseException | None) -> None:
        if exc is not None:
            # Cut, and not ended: without a length, nothing else tells the two apart.
            self._break_payload(aiohttp.ClientOSError(*exc.args))
            return
        try:
            self._parser.feed_eof()
        except Exception as error:  # noqa: BLE001 - the parser raises what a peer provokes
            self._break_payload(
                aiohttp.ClientPayloadError(f"Response payload is not completed: {error!r}")
            )

    def _break_payload(self, error: BaseException) -> None:
        if self._payload.exception() is None:
            self._payload.set_exception(error)
            if self.on_body is not None:
                self.on_body()

    # --- its end --------------------------------------------------------------------------------

    def finish(self) -> bool:
        """Be done with the request; True when the connection may serve another."""
        message, parser = self._answered, self._parser
        writer, self._writer = self._writer, None
        if writer is not None and not writer.done():
            writer.cancel()
        if (
            message is None
            or message.should_close
            or self._upgraded
            or self._spoiled
            or self._error is not None
            or not self._sent
            or self._reading_paused
            or not self._payload.is_eof()
            or self.transport is None
            or self.transport.is_closing()
            # Answered early: what is left of the request would go out before the next one.
            or self.transport.get_write_buffer_size()
        ):
            return False
        try:
            # None unless bytes have come that begin another message.
            clean = parser.feed_eof() is None
        except Exception:  # noqa: BLE001 - as good as bytes too many
            clean = False
        self.forget()
        return clean

    def forget(self) -> None:
        """Nobody reads on: the parser and the body would hold each other, and this."""
        self._parser, self._payload = None, EMPTY_PAYLOAD

    def abort(self) -> None:
        """End the connection at once: what was not sent is not sent any more."""
        self._drop_timer()
        writer, self._writer = self._writer, None
        if writer is not None and not writer.done():
            writer.cancel()
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """End the connection after what is written."""
        self._drop_timer()
        if self.transport is not None:
            self.transport.close()

    def _fail(self, error: BaseException) -> None:
        """The call has failed: whoever waits for its head or its body is told."""
        if self._error is None:
            self._error = error
            if self._answered is not None and not self._payload.is_eof():
                self._break_payload(error)
        self._wake()
        self.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- silence --------------------------------------------------------------------------------

    def _watch(self, idle_s: float) -> None:
        """Hold the upstream to `idle_s`; a timer from an earlier request serves on."""
        now = self._active_at = self._loop.time()
        if self._timer is not None:
            if self._idle_s == idle_s:
                return
            self._timer.cancel()
        self._idle_s = idle_s
        self._timer = self._loop.call_at(now + idle_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._parser is None:
            # Idle: the next request starts the clock again.
            return
        now = self._loop.time()
        ours = self._reading_paused or not (self._sent or self._paused)
        due = (now if ours else self._active_at) + self._idle_s
        if due <= now:
            self._fail(aiohttp.SocketTimeoutError("Timeout on reading data from socket"))
        else:
            self._timer = self._loop.call_at(due, self._look)

    def _drop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _unreadable(error: Exception) -> Exception:
    if isinstance(error, HttpProcessingError):
        return aiohttp.ClientPayloadError(error.message)
    return aiohttp.ClientPayloadError(f"{type(error).__name__}: {error}")

"""An upstream that does exactly as told, byte for byte and moment for moment.

Not built on an HTTP library on purpose: it shows what was really on the wire, and says what no
library would let it say.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypeAlias

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from types import TracebackType

Wait: TypeAlias = "float | asyncio.Event | None"
Piece: TypeAlias = "tuple[Wait, bytes] | bytes"
"""What to wait for (seconds, or an event) and what to send then."""

DEADLINE_S = 10.0


@asynccontextmanager
async def serve_app(app: web.Application) -> AsyncIterator[str]:
    """Serve an aiohttp app on a free port of the loopback; yields `http://127.0.0.1:PORT`."""
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def response(
    body: bytes, *, status: str = "200 OK", headers: Mapping[str, str] | None = None
) -> bytes:
    """A whole response with a content-length."""
    lines = {"content-type": "application/json", **(headers or {})}
    lines["content-length"] = str(len(body))
    return _head(status, lines) + body


def stream_head(*, status: str = "200 OK", headers: Mapping[str, str] | None = None) -> bytes:
    """The head of a chunked event stream; send `chunk(...)`s and `LAST_CHUNK` after it."""
    lines = {"content-type": "text/event-stream; charset=utf-8", **(headers or {})}
    return _head(status, {**lines, "transfer-encoding": "chunked"})


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def _head(status: str, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1")


@dataclass(slots=True)
class Seen:
    """One request, exactly as it arrived, and what became of its answer."""

    request_line: bytes
    """`POST /v1/x HTTP/1.1`, without the line end."""
    header_lines: list[bytes]
    """In order and spelling of the wire, without line ends."""
    body: bytes
    """Decoded when it came in chunks."""
    connection: int
    """Counts connections from 0: requests on a reused connection share it."""
    arrived_at: float
    """Loop time."""
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client closed the connection, before or after the answer was complete."""
    hung_up_at: float | None = None
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the whole script was sent."""
    sent: list[tuple[float, int]] = field(default_factory=list)
    """Loop time and size of each piece that the socket has taken."""

    def headers(self) -> dict[str, str]:
        """The headers by lower-case name; of repeated ones the last."""
        pairs = (line.decode("latin-1").partition(":") for line in self.header_lines)
        return {name.strip().lower(): value.strip() for name, _, value in pairs}

    @property
    def sent_bytes(self) -> int:
        """How much of the answer the socket has taken."""
        return sum(size for _, size in self.sent)


@dataclass(frozen=True, slots=True)
class _Script:
    pieces: tuple[Piece, ...]
    then_close: bool


class ScriptedUpstream:
    """The server: a queue of scripts, one for each request, and what was seen.

        async with ScriptedUpstream() as upstream:
            gate = asyncio.Event()
            upstream.answer(stream_head(), (gate, chunk(b"data: 1\\n\\n")), LAST_CHUNK)
            ...
            seen = await upstream.request(0)

    A request for which nothing is queued gets the `otherwise` script, or 500.
    """

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.connections = 0
        self._scripts: deque[_Script] = deque()
        self._otherwise = _Script((response(b"{}", status="500 No Script"),), then_close=True)
        self._arrived = asyncio.Condition()
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self.url = ""
        """`http://127.0.0.1:PORT`."""

    def answer(self, *pieces: Piece, then_close: bool = False) -> None:
        """Queue the answer to the next request that has none."""
        self._scripts.append(_Script(pieces, then_close))

    def otherwise(self, *pieces: Piece, then_close: bool = False) -> None:
        """The answer to every request for which nothing is queued."""
        self._otherwise = _Script(pieces, then_close)

    async def request(self, number: int, *, deadline_s: float = DEADLINE_S) -> Seen:
        """The request of that number (from 0), as soon as it has arrived in full."""
        async with asyncio.timeout(deadline_s), self._arrived:
            await self._arrived.wait_for(lambda: len(self.seen) > number)
        return self.seen[number]

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Link(self), "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [link.task for link in self._links if link.task is not None]
        for link in tuple(self._links):
            link.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    def next_script(self) -> _Script:
        """Whose turn it is."""
        return self._scripts.popleft() if self._scripts else self._otherwise

    async def saw(self, seen: Seen) -> None:
        """Record a request and wake those who wait for it."""
        async with self._arrived:
            self.seen.append(seen)
            self._arrived.notify_all()

    def opened(self, link: _Link) -> int:
        """Number a new connection."""
        self._links.add(link)
        self.connections += 1
        return self.connections - 1

    def closed(self, link: _Link) -> None:
        """Forget a connection."""
        self._links.discard(link)


class _Link(asyncio.Protocol):
    """One connection: reads requests, plays scripts, notices when the other side goes."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self._upstream = upstream
        self._number = -1
        self._buffer = bytearray()
        self._more = asyncio.Event()
        self._gone = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport | None = None
        self._current: Seen | None = None
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # What the socket has not taken must not count as sent.
        transport.set_write_buffer_limits(high=0)
        self._number = self._upstream.opened(self)
        self.task = asyncio.get_running_loop().create_task(self._run())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._more.set()

    def eof_received(self) -> bool:
        self._went()
        return False

    def connection_lost(self, _problem: Exception | None) -> None:
        self._went()
        self._upstream.closed(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def abort(self) -> None:
        """Drop the connection and whatever it was doing."""
        if self._transport is not None:
            self._transport.abort()
        if self.task is not None:
            self.task.cancel()

    def _went(self) -> None:
        self._gone.set()
        self._more.set()
        self._writable.set()
        seen = self._current
        if seen is not None and not seen.hung_up.is_set():
            seen.hung_up_at = asyncio.get_running_loop().time()
            seen.hung_up.set()

    async def _run(self) -> None:
        assert self._transport is not None
        try:
            while True:
                seen = await self._read()
                self._current = seen
                await self._upstream.saw(seen)
                script = self._upstream.next_script()
                if not await self._play(script.pieces, seen):
                    return
                seen.answered.set()
                if script.then_close:
                    return
        except EOFError:
            return
        finally:
            self._transport.close()

    async def _play(self, pieces: Sequence[Piece], seen: Seen) -> bool:
        """Send the script; False when the client is gone."""
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        for piece in pieces:
            wait, data = piece if isinstance(piece, tuple) else (None, piece)
            if isinstance(wait, asyncio.Event):
                await self._first_of(wait)
            elif wait is not None:
                try:
                    async with asyncio.timeout(wait):
                        await self._gone.wait()
                except TimeoutError:
                    pass
            if self._gone.is_set():
                return False
            self._transport.write(data)
            await self._writable.wait()
            if self._gone.is_set():
                return False
            seen.sent.append((loop.time(), len(data)))
        return True

    async def _first_of(self, event: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        waits = [loop.create_task(e.wait()) for e in (event, self._gone)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _read(self) -> Seen:
        head = await self._until(b"\r\n\r\n")
        request_line, *header_lines = head[:-4].split(b"\r\n")
        seen = Seen(
            request_line, header_lines, b"", self._number, asyncio.get_running_loop().time()
        )
        headers = seen.headers()
        if headers.get("expect", "").lower() == "100-continue":
            assert self._transport is not None
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in headers.get("transfer-encoding", "").lower():
            seen.body = await self._chunks()
        else:
            seen.body = await self._exactly(int(headers.get("content-length", "0")))
        return seen

    async def _chunks(self) -> bytes:
        body = bytearray()
        while True:
            size = int((await self._until(b"\r\n")).split(b";")[0], 16)
            body += await self._exactly(size)
            await self._exactly(2)
            if size == 0:
                return bytes(body)

    async def _until(self, mark: bytes) -> bytes:
        while (at := self._buffer.find(mark)) < 0:
            await self._fill()
        return self._take(at + len(mark))

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._fill()
        return self._take(size)

    async def _fill(self) -> None:
        if self._gone.is_set():
            raise EOFError
        self._more.clear()
        await self._more.wait()

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

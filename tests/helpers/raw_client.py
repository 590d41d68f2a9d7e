"""A client that shows what was really on the wire: no HTTP library tidies up after it.

Reads responses as a strict HTTP/1.1 client would: an answer that ends early is `broken`.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from types import TracebackType

DEADLINE_S = 10.0
_NO_BODY = frozenset({101, 204, 304})
# Fields that speak of one connection, not of the message.
_PER_HOP = frozenset({"connection", "keep-alive", "transfer-encoding"})


class Broken(Exception):
    """The connection ended before the response did."""


@dataclass(slots=True)
class Head:
    """The head of a response, as it came."""

    status_line: bytes
    header_lines: list[bytes]

    @property
    def status(self) -> int:
        return int(self.status_line.split(b" ")[1])

    @property
    def pairs(self) -> list[tuple[str, bytes]]:
        """Lower-case names with their values, in order."""
        cut = (line.partition(b":") for line in self.header_lines)
        return [(name.decode("ascii").lower(), value.strip(b" \t")) for name, _, value in cut]

    def get(self, name: str) -> str:
        """All values of that name, joined; empty for none."""
        return ", ".join(v.decode("latin-1") for n, v in self.pairs if n == name)

    def end_to_end(self, *without: str) -> list[tuple[str, bytes]]:
        """The fields that are about the message, sorted, `x-gateway-*` and `without` left out."""
        return sorted(
            (name, value)
            for name, value in self.pairs
            if name not in _PER_HOP and name not in without and not name.startswith("x-gateway-")
        )


@dataclass(slots=True)
class Response:
    """A whole response."""

    head: Head
    body: bytes
    interim: list[Head] = field(default_factory=list)
    """1xx responses that came before it."""

    @property
    def status(self) -> int:
        return self.head.status


class RawClient:
    """`async with RawClient(url) as client:` one connection; every read has a deadline."""

    def __init__(self, url: str, *, receive_buffer: int | None = None) -> None:
        host, _, port = url.removeprefix("http://").partition("/")[0].rpartition(":")
        self._address = (host, int(port))
        self._receive_buffer = receive_buffer
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        if self._receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, self._address)
        except BaseException:
            sock.close()
            raise
        self._reader, self._writer = await asyncio.open_connection(sock=sock, limit=1 << 20)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        """Drop the connection at once."""
        if self._writer is not None:
            self._writer.transport.abort()

    @property
    def reader(self) -> asyncio.StreamReader:
        assert self._reader is not None
        return self._reader

    async def send(self, data: bytes, *, deadline_s: float = DEADLINE_S) -> None:
        """Write bytes as they are."""
        assert self._writer is not None
        self._writer.write(data)
        async with asyncio.timeout(deadline_s):
            await self._writer.drain()

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Send a request with a content-length, without waiting for the answer."""
        await self.send(request(method, target, body, headers))

    async def head(self, *, deadline_s: float = DEADLINE_S) -> Head:
        """The next head, 1xx ones included."""
        async with asyncio.timeout(deadline_s):
            try:
                raw = await self.reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as end:
                raise Broken(f"in the head, after {end.partial!r}") from end
            except ConnectionError as end:
                raise Broken(f"in the head: {end!r}") from end
        status_line, *lines = raw[:-4].split(b"\r\n")
        return Head(status_line, lines)

    async def response(self, method: str = "GET", *, deadline_s: float = DEADLINE_S) -> Response:
        """The next whole response. Raises `Broken` when it is cut short."""
        interim: list[Head] = []
        head = await self.head(deadline_s=deadline_s)
        while head.status < 200 and head.status != 101:
            interim.append(head)
            head = await self.head(deadline_s=deadline_s)
        pieces = [p async for p in self.pieces(head, method, deadline_s=deadline_s)]
        return Response(head, b"".join(pieces), interim)

    async def pieces(
        self, head: Head, method: str = "GET", *, deadline_s: float = DEADLINE_S
    ) -> AsyncIterator[bytes]:
        """The body: chunks of the chunked coding one by one, else as they come. The deadline is
        for each. Raises `Broken` when the body is cut short.
        """
        if method == "HEAD" or head.status in _NO_BODY:
            return
        try:
            if "chunked" in head.get("transfer-encoding").lower():
                while True:
                    async with asyncio.timeout(deadline_s):
                        size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
                        piece = (await self.reader.readexactly(size + 2))[:-2]
                    if not size:
                        return
                    yield piece
            length = head.get("content-length")
            left = int(length) if length else None
            while left is None or left > 0:
                async with asyncio.timeout(deadline_s):
                    piece = await self.reader.read(65536 if left is None else min(left, 65536))
                if not piece:
                    if left is None:
                        return
                    raise Broken(f"{left} bytes are missing")
                left = None if left is None else left - len(piece)
                yield piece
        except (asyncio.IncompleteReadError, ConnectionError) as end:
            raise Broken(f"in the body: {end!r}") from end

    async def received(self, head: Head) -> tuple[bytes, bool]:
        """What comes of the body, and whether it ends in order."""
        got: list[bytes] = []
        try:
            async for piece in self.pieces(head):
                got.append(piece)  # noqa: PERF401 - what came before it broke counts too
        except Broken:
            return b"".join(got), False
        return b"".join(got), True

    async def ended(self, *, deadline_s: float = DEADLINE_S) -> bytes:
        """What still comes until the other side closes."""
        async with asyncio.timeout(deadline_s):
            try:
                return await self.reader.read(-1)
            except ConnectionError:
                return b""


def request(
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Sequence[tuple[str, str]] = (),
    *,
    version: str = "1.1",
) -> bytes:
    """The bytes of a request; `body` comes with a content-length."""
    lines = [f"{method} {target} HTTP/{version}", "Host: gateway.test"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode("utf-8", "surrogateescape") + (body or b"")


async def fetch(
    url: str,
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> Response:
    """One request on a connection of its own."""
    async with RawClient(url) as client:
        await client.ask(method, target, body, headers)
        return await client.response(method)

"""A request as bytes: its head, and its body in pieces."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Mapping

_PIECE = 64 * 1024
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Wire(Protocol):
    """Where a body is written to."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """None once it is gone."""

    def active(self) -> None:
        """Called for each piece."""

    async def drained(self) -> None:
        """Returns when more can be written."""


def request_head(method: str, target: str, host_line: str, headers: Mapping[str, str]) -> bytes:
    """The head of a request, names and values in the order and spelling that they have.

    Raises ValueError for what would make two lines of one.
    """
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host_line}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    # Control signs are not printable; neither are tabs and lone bytes, which may stand in a value.
    if not "".join(lines).isprintable() and any(map(_CONTROL.search, lines)):
        raise ValueError("a control character in the head of the request")
    if " " in target:
        raise ValueError("a space in the target of the request")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


async def write_pieces(wire: Wire, pieces: AsyncIterator[bytes], length: int | None) -> None:
    """Write a body at the pace at which it comes and is taken: `length` bytes, or in chunks.

    Raises ValueError for a body of another length than was said: to the upstream, what is too
    much would be the next request.
    """
    left = length
    async for piece in pieces:
        transport = wire.transport
        if transport is None:
            return
        wire.active()
        if left is not None:
            left -= len(piece)
            if left < 0:
                raise ValueError("the body is longer than its Content-Length")
            transport.write(piece)
        elif piece:
            transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
        await wire.drained()
    if wire.transport is None:
        return
    if left:
        raise ValueError("the body is shorter than its Content-Length")
    if left is None:
        wire.transport.write(b"0\r\n\r\n")
    wire.active()


async def cut(body: bytes) -> AsyncIterator[bytes]:
    """A body in pieces that don't hold up the loop."""
    view = memoryview(body)
    for start in range(0, len(body), _PIECE):
        yield bytes(view[start : start + _PIECE])

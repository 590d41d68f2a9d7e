"""A request body: read whole within a bound, or passed on in pieces without being held."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11, hdrs

from gateway.errors import BadRequest, BodyTooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

_MIB = 1024 * 1024
# Longest silence of a client in the middle of its body.
_SILENCE_S = 60.0


async def read(request: web.BaseRequest, limit: int, silence_s: float = _SILENCE_S) -> bytes:
    """The body, at most `limit` bytes long.

    Raises `BodyTooLarge` before more is held, and `BadRequest` after `silence_s` without a byte.
    """
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    if request.content.is_eof():
        whole = request.content.read_nowait()
        if len(whole) > limit:
            raise _too_large(limit)
        return whole
    held: list[bytes] = []
    size = 0
    async for piece in pieces(request, silence_s):
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        held.append(piece)
    return held[0] if len(held) == 1 else b"".join(held)


def _too_large(limit: int) -> BodyTooLarge:
    allowed = f"{limit / _MIB:.4g} MiB" if limit >= _MIB else f"{limit} bytes"
    return BodyTooLarge(
        f"the request body is larger than the gateway's limit of {allowed}: "
        "send less, or raise server.body_limit_bytes"
    )


async def pieces(request: web.BaseRequest, silence_s: float = _SILENCE_S) -> AsyncIterator[bytes]:
    """The body as it arrives, with the sender's own pace."""
    await _invite(request)
    content = request.content
    while not content.at_eof():
        try:
            async with asyncio.timeout(silence_s):
                piece = await content.readany()
        except TimeoutError:
            raise BadRequest(f"the request body stopped arriving for {silence_s:g} s") from None
        if piece:
            yield piece


async def _invite(request: web.BaseRequest) -> None:
    """Say `100 Continue` to a client that waits for it: the body is wanted now.

    aiohttp does so for applications with routes only.
    """
    if request.version < HttpVersion11:
        return
    if request.headers.get(hdrs.EXPECT, "").strip().lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # These bytes are not the response's: one must still be able to begin.
        request.writer.output_size = 0

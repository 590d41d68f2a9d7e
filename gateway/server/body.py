"""A request body: read whole within a bound, or passed on in pieces without being held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import BodyTooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

_MIB = 1024 * 1024


async def read(request: web.BaseRequest, limit: int) -> bytes:
    """The body, at most `limit` bytes long. Raises `BodyTooLarge` before more is held."""
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    pieces: list[bytes] = []
    size = 0
    async for piece in request.content.iter_any():
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(limit: int) -> BodyTooLarge:
    allowed = f"{limit / _MIB:.4g} MiB" if limit >= _MIB else f"{limit} bytes"
    return BodyTooLarge(
        f"the request body is larger than the gateway's limit of {allowed}: "
        "send less, or raise server.body_limit_bytes"
    )


async def pieces(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """The body as it arrives, with the sender's own pace."""
    async for piece in request.content.iter_any():
        yield piece

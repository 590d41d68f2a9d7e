"""A request body: read whole within a bound, or passed on in pieces without being held."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11, hdrs

from gateway.errors import BadRequest, BodyTooLarge
from gateway.server.room import overloaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from gateway.budget import Share

_MIB = 1024 * 1024
# Longest silence of a client in the middle of its body.
_SILENCE_S = 60.0
# How much of an announced body is taken from the budget before it comes: all of most bodies.
_TAKEN_AHEAD = _MIB


async def read(
    request: web.BaseRequest,
    limit: int,
    share: Share | None = None,
    *,
    silence_s: float = _SILENCE_S,
) -> bytes:
    """The body, at most `limit` bytes long; `share` grows by what is held of it.

    Raises `BodyTooLarge` before more is held, `Overloaded` where the share's budget has no room,
    and `BadRequest` after `silence_s` without a byte. The caller gives the share back.
    """
    content = request.content
    if content.is_eof():
        # All of it came with the head, or soon after: nothing to wait for, and nothing to bound
        # but what is here.
        whole = content.read_nowait()
        if len(whole) > limit or (share is not None and not share.grow(len(whole))):
            _Account(limit, share).hold(len(whole))
        return whole
    account = _Account(limit, share)
    account.expect(request.content_length)
    held: list[bytes] = []
    async for piece in pieces(request, silence_s):
        account.hold(len(piece))
        held.append(piece)
    return held[0] if len(held) == 1 else b"".join(held)


class _Account:
    """Counts what is held of one body against its limit and its share."""

    def __init__(self, limit: int, share: Share | None) -> None:
        self._limit = limit
        self._share = share
        self._held = 0
        self._paid = 0

    def expect(self, length: int | None) -> None:
        """So much is announced: refuse now what can't be held."""
        if length is None:
            return
        self._hold_to_limits(length)
        if self._share is not None:
            if not self._share.budget.has_room(length):
                raise overloaded()
            # Not all of a large one: a claim that no bytes follow must not keep others out.
            self._pay(min(length, _TAKEN_AHEAD))

    def hold(self, size: int) -> None:
        """So much more has come."""
        self._held += size
        self._hold_to_limits(self._held)
        self._pay(self._held)

    def _hold_to_limits(self, size: int) -> None:
        if size > self._limit:
            raise _too_large(self._limit, "server.body_limit_bytes")
        if self._share is not None and size > self._share.budget.limit_bytes:
            # There will never be room: not a matter of trying again.
            raise _too_large(self._share.budget.limit_bytes, "server.memory_budget_bytes")

    def _pay(self, total: int) -> None:
        if self._share is None or total <= self._paid:
            return
        if not self._share.grow(total - self._paid):
            raise overloaded()
        self._paid = total


def _too_large(limit: int, setting: str) -> BodyTooLarge:
    allowed = f"{limit / _MIB:.4g} MiB" if limit >= _MIB else f"{limit} bytes"
    return BodyTooLarge(
        f"the request body is larger than the gateway's limit of {allowed}: "
        f"send less, or raise {setting}"
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

"""A response whose beginning was read before it is handed on."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from gateway.upstream.response import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_WAIT_S = 5.0
"""How long the body of an error may take: what follows is handed on as it comes."""


class Peeked(Response):
    """The same response: what was read of it comes first again."""

    __slots__ = ("head",)

    def __init__(self, response: Response, head: bytes) -> None:
        """`head` was read of the body of `response`."""
        self.status = response.status
        self.reason = response.reason
        self.headers = response.headers
        self.content = response.content
        self.connection = response.connection
        self.head = head

    async def pass_to(
        self, sink: Callable[[bytes], bool], room: Callable[[], Awaitable[None]]
    ) -> None:
        """See `Response.pass_to`."""
        head, self.head = self.head, b""
        if head and not sink(head):
            await room()
        await super().pass_to(sink, room)


async def peek(response: Response, limit: int) -> bytes:
    """The body's first bytes, about `limit` at most; all of it where it is shorter and comes at
    once. Raises what ended it before.
    """
    parts: list[bytes] = []
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_WAIT_S):
            while size < limit and (part := await response.content.readany()):
                parts.append(part)
                size += len(part)
    return b"".join(parts)

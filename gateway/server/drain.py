"""The end of serving: what runs may finish, nothing new begins.

aiohttp's own shutdown deafens every connection first, busy ones included: an upload would never
end, and a tunnel would lose what its client says. So we wait before it, with open ears.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web
    from aiohttp.web_protocol import RequestHandler


class Drain:
    """Stands before the handler of all requests, and knows which connections are busy."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        self._handler = handler
        self._busy: set[RequestHandler] = set()
        self._draining = False
        self._idle = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Drain {len(self._busy)} busy{', draining' if self._draining else ''}>"

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Let the handler answer; while draining, the connection ends with its answer."""
        connection = request.protocol
        # One request at a time: pipelined ones wait for each other.
        self._busy.add(connection)
        try:
            response = await self._handler(request)
        finally:
            self._busy.discard(connection)
            if self._draining and not self._busy:
                self._idle.set()
        if self._draining:
            if not response.prepared:
                response.force_close()
            connection.close()
        return response

    async def drain(self, server: web.Server, timeout_s: float) -> bool:
        """Close idle connections, and wait for busy ones; False when some still are in the end.

        The caller has closed the listening sockets.
        """
        self._draining = True
        # What has been accepted in this very moment may begin.
        await asyncio.sleep(0)
        for connection in server.connections:
            if connection not in self._busy:
                connection.force_close()
        if not self._busy:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

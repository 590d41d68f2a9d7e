"""A port that can be had, refused, and lost in a moment, with the connections on it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterator


class Port:
    """Serves an application. It may be opened again after it was closed, on the same number."""

    def __init__(self) -> None:
        self.host, self.number = "127.0.0.1", 0
        self.busy: set[asyncio.Transport] = set()
        """Connections with a request that is not answered yet."""
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._reopening: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        said = "listening" if self._listener is not None else "closed"
        return f"<Port {self.host}:{self.number} {said}, {len(self.busy)} busy>"

    async def open(self, app: web.Application, host: str, number: int) -> None:
        """Listen; 0 takes a free one."""
        self.host, self.number = host, number
        # Cancelled handlers are how a hung-up client is noticed while its prompt waits.
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await self._runner.setup()
        try:
            await self._listen()
        except OSError:
            await self.close()
            raise

    async def close(self) -> None:
        """End everything and wait for it."""
        self.abort()
        if self._reopening is not None:
            self._reopening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reopening
            self._reopening = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def abort(self) -> None:
        """End every connection now, and take no more. `close` still tidies up."""
        self._deaf()
        for connection in tuple(self._connections()):
            connection.abort()

    def refuse(self) -> None:
        """Take no new connections and end those that are idle; what was asked is still answered."""
        self._deaf()
        for connection in tuple(self._connections()):
            if connection not in self.busy:
                connection.close()

    def refuse_for(self, seconds: float) -> None:
        """The same, and take connections again after so long."""
        self.refuse()
        if self._reopening is not None:
            self._reopening.cancel()
        self._reopening = asyncio.get_running_loop().create_task(self._reopen(seconds))

    async def accept(self) -> None:
        """Take connections again."""
        if self._listener is None:
            await self._listen()

    def _connections(self) -> Iterator[asyncio.Transport]:
        if self._runner is not None and self._runner.server is not None:
            for each in self._runner.server.connections:
                if each.transport is not None:
                    yield each.transport

    async def _listen(self) -> None:
        assert self._runner is not None
        assert self._runner.server is not None
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._runner.server, self.host, self.number)
        self.number = self._listener.sockets[0].getsockname()[1]

    def _deaf(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _reopen(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.accept()

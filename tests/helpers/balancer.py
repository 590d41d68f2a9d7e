"""A balancer as a Service of Kubernetes is one: each connection goes to the next endpoint, and stays there.

It knows nothing of HTTP, looks at nobody's health, and hears late who is to be asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_PIECE = 65536


class Balancer:
    """`async with Balancer() as balancer:` connections to `url` go to `endpoints`, in turn."""

    def __init__(self, way_s: float = 0.0) -> None:
        """What is said, the end included, takes `way_s` from one side to the other."""
        self._way_s = way_s
        self.endpoints: list[str] = []
        """`http://HOST:PORT` of those that get new connections."""
        self.connections = 0
        """So many came."""
        self.refused = 0
        """Connections that nobody took."""
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._took, "127.0.0.1", 0)
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
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _took(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            endpoint = self.endpoints[self.connections % len(self.endpoints)]
            self.connections += 1
            host, _, port = endpoint.removeprefix("http://").partition(":")
            there, here = await asyncio.open_connection(host, int(port))
        except (OSError, ZeroDivisionError):
            self.refused += 1
            writer.transport.abort()
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass_on(reader, here))
                both.create_task(self._pass_on(there, writer))
        finally:
            for each in (here, writer):
                each.close()

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Until the end of one direction, which is passed on too."""
        with contextlib.suppress(ConnectionError):
            while piece := await source.read(_PIECE):
                await asyncio.sleep(self._way_s)
                sink.write(piece)
                await sink.drain()
        await asyncio.sleep(self._way_s)
        with contextlib.suppress(OSError, RuntimeError):
            sink.write_eof()

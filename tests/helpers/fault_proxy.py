"""A TCP proxy in front of Redis that misbehaves on command."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable


@dataclass
class Faults:
    """What to do to replies from now on; connections that are open are included."""

    delay_s: Callable[[], float] = lambda: 0.0
    """How long to hold the next reply; the order within a connection is kept."""
    cut_after: int | None = None
    """Close the connection cleanly after so many bytes of the next reply."""
    reset_after: int | None = None
    """As `cut_after`, but with RST."""
    refuse: bool = False
    """Accept and close at once."""


@dataclass
class FaultProxy:
    """Listens on a free port of 127.0.0.1 and forwards to `target_port`."""

    target_port: int
    tls: ssl.SSLContext | None = None
    """Ends TLS here; the target is spoken to in plain text."""
    faults: Faults = field(default_factory=Faults)
    port: int = 0
    connections: int = 0
    """Ever accepted."""

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    def drop(self) -> None:
        """End every connection that is open."""
        for task in tuple(self._tasks):
            task.cancel()

    @property
    def url(self) -> str:
        return f"redis{'s' if self.tls else ''}://127.0.0.1:{self.port}/0"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.faults.refuse:
                return
            upstream_reader, upstream_writer = await asyncio.open_connection(
                "127.0.0.1", self.target_port
            )
            try:
                await self._pump_both(reader, writer, upstream_reader, upstream_writer)
            finally:
                upstream_writer.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pump_both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream_reader: asyncio.StreamReader,
        upstream_writer: asyncio.StreamWriter,
    ) -> None:
        commands = asyncio.create_task(self._pump(reader, upstream_writer))
        replies = asyncio.create_task(self._pump_replies(upstream_reader, writer))
        pumps = {commands, replies}
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()

    async def _pump_replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                await asyncio.sleep(self.faults.delay_s())
                for limit, reset in (
                    (self.faults.cut_after, False),
                    (self.faults.reset_after, True),
                ):
                    if limit is not None:
                        writer.write(chunk[:limit])
                        await writer.drain()
                        if reset:
                            _reset(writer)
                        return
                writer.write(chunk)
                await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    peer: socket.socket = writer.get_extra_info("socket")
    # Lingering for zero seconds makes close() send RST instead of FIN.
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

"""A WebSocket upstream that says back what it hears."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from websockets.asyncio.server import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from websockets.asyncio.server import ServerConnection


async def echo(connection: ServerConnection) -> None:
    """Each message, until the other side closes."""
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def echoing() -> AsyncIterator[str]:
    """Yields `http://127.0.0.1:PORT`, where every path is a WebSocket that echoes."""
    async with serve(echo, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"

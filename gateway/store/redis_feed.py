"""Messages of one channel, as they are published.

Rule 1: whoever reads learns of a lost feed: by `StoreUnavailable`, at the latest after
`SILENCE_S`, also where the other side is merely stopped. What was published meanwhile is lost:
read the state itself after subscribing, and again at intervals.
Rule 2: a message that was yielded is whole; the order is the publisher's.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from gateway.store.base import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gateway.store.connections import Abortable

PING_S = 1.0
"""After so much silence the other side is asked whether it is there."""

SILENCE_S = 3 * PING_S
"""After so much it is not."""


@asynccontextmanager
async def subscribed(
    connect: Callable[[], Awaitable[Abortable]], channel: str
) -> AsyncIterator[AsyncIterator[bytes]]:
    """The messages of `channel` from now on, over a connection of their own.

    Raises `StoreUnavailable` when there is no subscription in time.
    """
    try:
        async with asyncio.timeout(SILENCE_S):
            connection = await connect()
            try:
                await connection.send_command("SUBSCRIBE", channel, check_health=False)
                reply = await connection.read_response()
            except BaseException:
                connection.abort()
                raise
    except Exception as exc:
        raise StoreUnavailable(f"no subscription ({type(exc).__name__}: {exc})") from exc
    try:
        if not isinstance(reply, list) or reply[0] != b"subscribe":
            raise StoreUnavailable("the reply to SUBSCRIBE is not one")
        yield _messages(connection)
    finally:
        connection.abort()


async def _messages(connection: Abortable) -> AsyncIterator[bytes]:
    pending: asyncio.Task[Any] | None = None
    silent_s = 0.0
    try:
        while silent_s < SILENCE_S:
            if pending is None:
                # A read is not cancelled halfway: it goes on while we ask whether anybody is
                # there. The `finally` below owns it.
                pending = asyncio.create_task(connection.read_response())  # noqa: TID251
            await asyncio.wait((pending,), timeout=PING_S)
            if not pending.done():
                silent_s += PING_S
                # In RESP2 PING is among the few commands that a subscriber may give.
                await connection.send_command("PING", check_health=False)
                continue
            done, pending, silent_s = pending, None, 0.0
            reply = done.result()
            if isinstance(reply, list) and len(reply) == 3 and reply[0] == b"message":
                yield reply[2]
    except Exception as exc:
        raise StoreUnavailable(f"the feed ended ({type(exc).__name__}: {exc})") from exc
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
    raise StoreUnavailable("the feed fell silent")

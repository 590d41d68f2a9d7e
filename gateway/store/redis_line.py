"""A connection of one's own to the server that takes writes for one key, for who keeps it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import hiredis
from redis.exceptions import ResponseError

from gateway.store.base import StoreUnavailable
from gateway.store.redis_replies import in_words, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.store.connections import Abortable
    from gateway.store.redis_node import Command


class Line:
    """Commands and their replies, one batch after the other. Not of the pool: its owner aborts it.

    After any `StoreUnavailable` but that of a refusal it is closed, and of no use any more.
    """

    def __init__(
        self,
        connection: Abortable,
        is_current: Callable[[], bool],
        on_trouble: Callable[[], None],
    ) -> None:
        """`is_current` tells whether the key still is that server's; `on_trouble` is called when it
        may not be.
        """
        self._connection = connection
        self._is_current = is_current
        self._on_trouble = on_trouble

    @property
    def is_usable(self) -> bool:
        """Connected, nothing left to read, and to the right server."""
        return self._connection.is_at_rest() and self._is_current()

    async def ask(self, commands: Sequence[Command], deadline_s: float) -> list[Any]:
        """The replies, refusals (`ResponseError`) among them. Raises `StoreUnavailable` when not
        all were there in time.
        """
        try:
            async with asyncio.timeout(deadline_s):
                packed = b"".join([hiredis.pack_command(command) for command in commands])
                await self._connection.send_packed_command(packed, check_health=False)
                replies = [await self._connection.reply() for _ in commands]
        except BaseException as exc:
            self.abort()
            if not isinstance(exc, Exception):
                raise
            if judge(exc).look_again:
                self._on_trouble()
            raise StoreUnavailable(in_words(exc), judge(exc).reason) from exc
        for reply in replies:
            if isinstance(reply, ResponseError) and judge(reply).look_again:
                self._on_trouble()
        return replies

    def abort(self) -> None:
        """Close it now."""
        self._connection.abort()


def obeyed(reply: Any) -> Any:
    """The reply. Raises `StoreUnavailable` where it is a refusal."""
    if isinstance(reply, ResponseError):
        raise StoreUnavailable(f"Redis refused: {reply}", judge(reply).reason)
    return reply

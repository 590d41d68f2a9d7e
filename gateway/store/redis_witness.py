"""Tells who wants to know what a Redis server was asked: commands by name and number, never a key.

One telling for all commands of one operation to one server. Beside those of others they share a
write and its round trip, so what is told ends when the replies to just these are there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from gateway.store.base import StoreUnavailable
from gateway.store.redis_replies import judge
from gateway.store.witness import WITNESS

if TYPE_CHECKING:
    import asyncio

    from gateway.store.redis_address import Place


def tell(name: str, count: int, place: Place, answer: asyncio.Future[Any]) -> None:
    """So many commands of that name were sent to this server; `answer` is as `Node.ask` gives it."""
    witness = WITNESS.get()
    if witness is None:
        return
    command = witness.command(name, count, place.host, place.port)

    def over(done: asyncio.Future[Any]) -> None:
        command.end(None if done.cancelled() else _why_not(done.result()))

    if answer.done():
        over(answer)
    else:
        answer.add_done_callback(over)


def _why_not(replies: list[Any] | StoreUnavailable) -> str | None:
    if isinstance(replies, StoreUnavailable):
        return replies.reason
    refusals = [reply for reply in replies if isinstance(reply, ResponseError)]
    return judge(refusals[0]).reason if refusals else None

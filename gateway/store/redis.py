"""A store that replicas share: one MGET for a lookup, one SET for an entry."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from gateway.store.base import StoreUnavailable
from gateway.store.breaker import Breaker
from gateway.store.connections import Connections, SlowHandshake, connector
from gateway.store.deadline import within
from gateway.store.redis_feed import subscribed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

logger = logging.getLogger(__name__)

CONNECTIONS = 64
"""Connections of one process, unless the URL says `max_connections`."""

WARM = 8
"""Connections made at start, so that a first burst need not wait for handshakes."""

CONNECT_TIMEOUT_S = 1.0
"""A connection attempt goes on for so long, even when the operation that began it is over."""


class RedisStore:
    """Every operation is over within `deadline_s`, waiting for a free connection included.

    Nothing is retried. When Redis does not answer at all, operations fail at once, without
    waiting, but for one each second that looks whether it is back.
    """

    name = "redis"

    def __init__(
        self,
        url: str,
        *,
        deadline_s: float = 0.05,
        key_prefix: str = "warmgate:",
        connections: int = CONNECTIONS,
    ) -> None:
        """A store at `url` (redis:// or rediss://, with redis-py's query options).

        Raises ValueError for a URL that can't be used.
        """
        make, size = connector(url)
        self._deadline_s = deadline_s
        self._prefix = key_prefix
        self._size = size or connections
        self._connections = Connections(
            make,
            size=self._size,
            connect_timeout_s=max(CONNECT_TIMEOUT_S, deadline_s),
            # A handshake is at least one round trip, and so is the command that comes after it.
            patience_s=deadline_s / 2,
        )
        self._breaker = Breaker(_now, span_s=deadline_s)

    def __repr__(self) -> str:
        return f"<RedisStore {self._connections!r} {self._breaker!r}>"

    async def start(self) -> None:
        """Connect once, so that the first request finds a connection; say so when it fails."""
        try:
            await self._ask("PING")
        except StoreUnavailable as exc:
            logger.warning("Redis is not there at start (%s); it is tried again on demand", exc)
        else:
            await self._connections.warm_up(min(WARM, self._size))

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The blobs, in the order asked. Raises `StoreUnavailable`."""
        if not keys:
            return []
        reply = await self._ask("MGET", *map(self._name, keys))
        if not isinstance(reply, list) or len(reply) != len(keys):
            raise StoreUnavailable("the reply to MGET is not one")
        return reply

    async def put(self, key: bytes, blob: bytes, ttl_s: float) -> None:
        """Keep the blob. Raises `StoreUnavailable`, then it may or may not have been kept."""
        await self._ask("SET", self._name(key), blob, "PX", max(1, round(ttl_s * 1000)))

    async def delete(self, keys: Sequence[bytes]) -> int:
        """Forget the keys; how many existed. Raises `StoreUnavailable`."""
        return int(await self._ask("UNLINK", *map(self._name, keys))) if keys else 0

    async def claim(self, name: str, value: bytes) -> bytes:
        """The value under `<prefix><name>`, which is `value` if we are the first to set it.

        Never expires. Raises `StoreUnavailable`.
        """
        if await self._ask("SET", self._prefix + name, value, "NX") is not None:
            return value
        held = await self._ask("GET", self._prefix + name)
        if not isinstance(held, bytes):
            raise StoreUnavailable(f"{name} went away between SET NX and GET")
        return held

    def named(self, name: str) -> str:
        """The key or channel of that name: behind our prefix, so that ACLs hold."""
        return self._prefix + name

    async def execute(self, *command: bytes | str | int) -> Any:
        """The reply to any command that answers at once and concerns one key.

        The key comes right after the command's name, whole, as `named` makes it (in EVAL and FCALL
        after the number of keys). Replies are as RESP2 has them: bytes, int, None or lists of
        these; HGETALL is a flat list. Same deadline and breaker as everything here: raises
        `StoreUnavailable`, nothing else; then a write may or may not have happened.
        """
        return await self._ask(*command)

    def subscription(self, channel: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The messages of a channel (as `named` makes it), over a connection of their own.

        `async with store.subscription(c) as messages: async for message in messages: ...`
        Entering and iterating raise `StoreUnavailable`, nothing else, when there is no feed or it
        is lost (at most 3 s after it fell silent). Then subscribe anew, after a pause: what was
        published meanwhile is lost. Publish with `execute("PUBLISH", channel, message)`.
        """
        return subscribed(self._connections.own, channel)

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.close()

    def _name(self, key: bytes) -> str:
        return self._prefix + key.hex()

    async def _ask(self, *command: bytes | str | int) -> Any:
        if not self._breaker.enter():
            raise StoreUnavailable("Redis does not answer; it is tried once a second")
        try:
            reply = await within(self._deadline_s, self._connections.ask(*command))
        except ResponseError as exc:
            # It is alive, it only says no: full, read-only, not permitted.
            self._answered()
            raise StoreUnavailable(f"Redis refused: {exc}") from exc
        except SlowHandshake as exc:
            self._breaker.abandoned()
            raise StoreUnavailable("connecting to Redis took too long to wait for") from exc
        except Exception as exc:
            problem = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
            self._failed(exc, problem)
            raise StoreUnavailable(f"Redis did not answer ({problem})") from exc
        except BaseException:
            self._breaker.abandoned()
            raise
        self._answered()
        return reply

    def _answered(self) -> None:
        if self._breaker.succeeded():
            logger.warning("Redis answers again")

    def _failed(self, exc: Exception, problem: str) -> None:
        opened = self._breaker.failed()
        if opened or not isinstance(exc, TimeoutError):
            self._connections.drop_idle()
        if opened:
            logger.warning("Redis does not answer (%s); requests go on without it", problem)


def _now() -> float:
    return asyncio.get_running_loop().time()

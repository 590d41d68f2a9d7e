"""A bounded pool of Redis connections, none of which ever has a reply pending when it is taken.

Rule 1: a connection goes back only when every reply to what was sent on it has been read. An
error, or a deadline with replies still due, closes it: the answer to one command can't be read as
the answer to the next.
Rule 2: a connection with unread bytes, or one that the server closed, is not handed out.
Rule 3: a caller waits no longer than its own deadline, but a connection attempt may outlive it and
serve the next caller: where the handshake (TCP, TLS, AUTH, SELECT) takes longer than the deadline
of one command, there would never be a connection otherwise. For the same reason a caller whose
patience went into the attempt does not use what it made: it would run into its deadline and close
the connection again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError

if TYPE_CHECKING:
    from collections.abc import Callable

IDLE_S = 60.0
"""A connection unused for longer is not trusted: NATs and load balancers forget it silently."""


class Abortable(AbstractConnection):
    """What redis-py's connection lacks: closing without waiting, and a look before reuse."""

    async def reply(self) -> Any:
        """The next reply. A refusal (`ResponseError`) is returned, not raised: its command is
        over, and replies to others come behind it. Raises when the connection is of no use.
        """
        # Three layers below `read_response`, which spends 3 microseconds on a timeout that is
        # always off here.
        return await self._parser.read_response()  # type: ignore[attr-defined] # redis-py

    def abort(self) -> None:
        """Close now. Bytes that a stopped server did not take are dropped, not kept in memory."""
        writer, self._writer, self._reader = self._writer, None, None
        self._parser.on_disconnect()  # type: ignore[no-untyped-call] # redis-py has no types here
        if writer is not None:
            writer.transport.abort()

    def is_at_rest(self) -> bool:
        """Connected, and nothing to read."""
        reader, writer = self._reader, self._writer
        return (
            reader is not None
            and writer is not None
            and not writer.transport.is_closing()
            and not reader.at_eof()
            and reader.exception() is None
            and self._socket_is_empty()  # type: ignore[no-untyped-call] # redis-py has no types here
        )


class Plain(Abortable, Connection):
    """TCP."""


class Secure(Abortable, SSLConnection):
    """TLS."""


class SlowHandshake(Exception):
    """There is a connection now, but too late for this caller: the next one has it."""


class Connections:
    """At most `size` connections, the most recently used first. For one event loop."""

    def __init__(
        self,
        make: Callable[[], Abortable],
        *,
        size: int,
        connect_timeout_s: float,
        patience_s: float,
    ) -> None:
        """`connect_timeout_s` bounds an attempt, whoever still waits for it; after `patience_s`
        its result is left to the next caller.
        """
        self._make = make
        self._patience_s = patience_s
        self._connect_timeout_s = connect_timeout_s
        self._size = size
        self._slots = asyncio.Semaphore(size)
        self._idle: deque[tuple[float, Abortable]] = deque()
        self._attempts: set[asyncio.Task[Abortable]] = set()
        self._waiting: deque[asyncio.Future[Abortable]] = deque()
        self._closed = False

    def __repr__(self) -> str:
        idle, connecting = len(self._idle), len(self._attempts)
        return f"<Connections of {self._size}: {idle} idle, {connecting} connecting>"

    async def converse(self, commands: bytes, replies: int, heed: Callable[[Any], None]) -> None:
        """Send the packed commands at once; `heed` each of so many replies as it comes, in order.

        A refusal is a reply. The caller brings the deadline; may raise anything.
        """
        connection = await self._take()
        try:
            await connection.send_packed_command(commands, check_health=False)
            for _ in range(replies):
                heed(await connection.reply())
        except BaseException:
            connection.abort()
            self._slots.release()
            raise
        self._pass_on(connection)

    async def own(self) -> Abortable:
        """A new connection that is not the pool's: the caller aborts it in the end."""
        return await self._connect()

    async def warm_up(self, count: int) -> None:
        """Make `count` connections for the first requests; one that fails is not missed."""
        for _ in range(count):
            await self._slots.acquire()
            self._attempt().add_done_callback(self._adopt)
        if self._attempts:
            await asyncio.wait(tuple(self._attempts))

    def drop_idle(self) -> None:
        """Close what waits for use: after a failure it most likely shares that fate."""
        while self._idle:
            self._idle.pop()[1].abort()

    async def close(self) -> None:
        """Close everything; what is in use closes when its command ends."""
        self._closed = True
        self.drop_idle()
        attempts = tuple(self._attempts)
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)

    async def _take(self) -> Abortable:
        await self._slots.acquire()
        began = asyncio.get_running_loop().time()
        oldest = began - IDLE_S
        while self._idle:
            since, connection = self._idle.pop()
            if since >= oldest and connection.is_at_rest():
                return connection
            connection.abort()
        attempt = self._attempt()
        # A connection that somebody gives back meanwhile is as good as a new one.
        returned: asyncio.Future[Abortable] = asyncio.get_running_loop().create_future()
        self._waiting.append(returned)
        try:
            await asyncio.wait((attempt, returned), return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            # The slot goes with the attempt, so that attempts are bounded too.
            attempt.add_done_callback(self._adopt)
            if returned.done():
                self._pass_on(returned.result())
            raise
        finally:
            with suppress(ValueError):
                self._waiting.remove(returned)
        if returned.done():
            # It came with its former user's slot: ours stays with the attempt.
            attempt.add_done_callback(self._adopt)
            return returned.result()
        if attempt.cancelled():
            self._slots.release()
            raise RedisConnectionError("the pool is closing")
        error = attempt.exception()
        if error is not None:
            self._slots.release()
            raise error
        if asyncio.get_running_loop().time() - began > self._patience_s:
            self._adopt(attempt)
            raise SlowHandshake
        return attempt.result()

    def _attempt(self) -> asyncio.Task[Abortable]:
        # The pool owns it: `close` cancels it, `_adopt` takes what nobody waits for.
        attempt = asyncio.create_task(self._connect())  # noqa: TID251
        self._attempts.add(attempt)
        attempt.add_done_callback(self._attempts.discard)
        return attempt

    async def _connect(self) -> Abortable:
        if self._closed:
            raise RedisConnectionError("the pool is closed")
        connection = self._make()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await connection.connect()  # type: ignore[no-untyped-call] # redis-py
        except BaseException:
            connection.abort()
            raise
        return connection

    def _adopt(self, attempt: asyncio.Task[Abortable]) -> None:
        if attempt.cancelled() or attempt.exception() is not None:
            self._slots.release()
        else:
            self._pass_on(attempt.result())

    def _pass_on(self, connection: Abortable) -> None:
        """To whoever waits, the slot with it; else among the idle, and the slot is free."""
        while self._waiting and not self._closed and connection.is_at_rest():
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._slots.release()
        if self._closed:
            connection.abort()
            return
        now = asyncio.get_running_loop().time()
        self._idle.append((now, connection))
        while self._idle[0][0] < now - IDLE_S:
            self._idle.popleft()[1].abort()

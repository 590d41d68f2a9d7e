"""One Redis server: its connections, its breaker, and the commands of this turn of the loop.

Rule 1: what is asked within one turn of the event loop goes out together, in one write, and a
reply is handed over as soon as it is there. By itself a command costs four times the CPU.
Rule 2: a batch is bounded, so that behind one huge value only so many others wait; a huge value
that is sent goes alone.
Rule 3: a batch has one deadline. Who asks gets replies or an error by then, never waits on.
Rule 4: a caller that goes away leaves the batch to those who stay: its reply is read and dropped.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import hiredis
from redis.exceptions import ResponseError

from gateway.store.base import StoreUnavailable
from gateway.store.breaker import Breaker
from gateway.store.connections import Connections, SlowHandshake
from gateway.store.deadline import within
from gateway.store.redis_replies import in_words, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.store.connections import Abortable
    from gateway.store.redis_address import Place

logger = logging.getLogger(__name__)

Command = tuple[Any, ...]
"""Words: bytes, str or int."""

BATCH = 32
"""Most callers whose commands share one write."""

HUGE_BYTES = 64 * 1024
"""Commands beyond this go alone: others would wait until they are sent."""

CONNECT_TIMEOUT_S = 1.0
"""A connection attempt goes on for so long, even when the operation that began it is over."""

QUIET_S = 10.0
"""So long after its last refusal, a server that obeys is said to obey again."""

_WHAT = {True: "entries", False: "lookups"}


class _Ask:
    """Commands of one caller, and where their replies go. They are never raised there: an error
    that nobody waits for any more would be logged by asyncio.
    """

    __slots__ = ("answer", "is_write", "packed", "replies", "wanted")

    def __init__(self, packed: bytes, wanted: int, answer: asyncio.Future[Any], *, is_write: bool):
        self.packed = packed
        self.wanted = wanted
        self.answer = answer
        self.replies: list[Any] = []
        self.is_write = is_write

    def heed(self, reply: Any) -> None:
        self.replies.append(reply)
        if len(self.replies) == self.wanted and not self.answer.done():
            self.answer.set_result(self.replies)

    def fail(self, error: StoreUnavailable) -> None:
        if not self.answer.done():
            self.answer.set_result(error)


class Node:
    """One server. For one event loop."""

    def __init__(
        self,
        place: Place,
        make: Callable[[], Abortable],
        *,
        size: int,
        deadline_s: float,
        on_trouble: Callable[[], None],
    ) -> None:
        """At most `size` connections to `place`; `on_trouble` is called when the server may not be
        the right one any more.
        """
        self.place = place
        self._deadline_s = deadline_s
        self.on_trouble = on_trouble
        self.connections = Connections(
            make,
            size=size,
            connect_timeout_s=max(CONNECT_TIMEOUT_S, deadline_s),
            # A handshake is at least one round trip, and so is the command that comes after it.
            patience_s=deadline_s / 2,
        )
        self.breaker = Breaker(_now, span_s=deadline_s)
        self._turn: list[_Ask] = []
        self._batches: set[asyncio.Task[None]] = set()
        # By whether it is entries (True) or lookups that are refused: the reason, and when last.
        self._refusing: dict[bool, str] = {}
        self._refused_at: dict[bool, float] = {}
        self._left_at = -CONNECT_TIMEOUT_S
        self._is_left = False

    def __repr__(self) -> str:
        return f"<Node {self.place} {self.connections!r} {self.breaker!r}>"

    def ask(
        self, commands: Sequence[Command], *, is_write: bool = False
    ) -> asyncio.Future[list[Any] | StoreUnavailable]:
        """The replies, refusals (`ResponseError`) among them, or why there are none; within the
        deadline. The future never raises but for its own cancellation.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        if not self.breaker.enter():
            answer.set_result(
                StoreUnavailable(
                    f"Redis at {self.place} does not answer; it is tried once a second", "away"
                )
            )
            return answer
        packed = b"".join([hiredis.pack_command(command) for command in commands])
        ask = _Ask(packed, len(commands), answer, is_write=is_write)
        if len(packed) > HUGE_BYTES:
            self._send([ask])
            return answer
        if not self._turn:
            loop.call_soon(self._flush)
        self._turn.append(ask)
        if len(self._turn) == BATCH:
            self._flush()
        return answer

    async def close(self) -> None:
        """Close all connections; what is under way ends within its deadline."""
        self._flush()
        await self.connections.close()
        if self._batches:
            await asyncio.wait(tuple(self._batches))

    def _flush(self) -> None:
        batch, self._turn = self._turn, []
        if batch:
            self._send(batch)

    def _send(self, batch: list[_Ask]) -> None:
        # The node owns it: it is over within the deadline, and `close` waits for it.
        task = asyncio.create_task(self._converse(batch))  # noqa: TID251
        self._batches.add(task)
        task.add_done_callback(self._batches.discard)

    async def _converse(self, batch: list[_Ask]) -> None:
        due = iter(batch)
        current = next(due)
        heard = False

        def heed(reply: Any) -> None:
            nonlocal current, heard
            heard = True
            current.heed(reply)
            if isinstance(reply, ResponseError):
                self._was_refused(reply, current)
            if len(current.replies) == current.wanted:
                current = next(due, current)

        packed = b"".join([ask.packed for ask in batch]) if len(batch) > 1 else batch[0].packed
        wanted = sum([ask.wanted for ask in batch])
        try:
            await within(self._deadline_s, self.connections.converse(packed, wanted, heed))
        except SlowHandshake:
            self.breaker.abandoned()
            self._fail(batch, "connecting took too long to wait for", "connecting")
        except Exception as exc:  # noqa: BLE001 - the caller gets it as what it means
            self._failed(exc, batch, heard=heard)
        except BaseException:
            self.breaker.abandoned()
            self._fail(batch, "the gateway is stopping", "closed")
            raise
        else:
            self._answered(batch)

    def _fail(self, batch: list[_Ask], problem: str, reason: str) -> None:
        error = StoreUnavailable(f"Redis at {self.place} did not answer ({problem})", reason)
        for ask in batch:
            ask.fail(error)

    def _answered(self, batch: list[_Ask]) -> None:
        if self.breaker.succeeded():
            logger.warning("Redis answers again (%s)", self.place)
        if self._is_left:
            # Only now the connection that said so is among them.
            self._is_left = False
            self.connections.drop_idle()
        for is_write in tuple(self._refusing):
            # Near a limit it refuses one moment and takes the next: only lasting peace is said.
            peace = _now() - self._refused_at[is_write] >= QUIET_S
            if peace and any(ask.is_write is is_write for ask in batch):
                del self._refusing[is_write]
                logger.warning("Redis takes %s again (%s)", _WHAT[is_write], self.place)

    def _was_refused(self, error: ResponseError, ask: _Ask) -> None:
        trouble = judge(error)
        if trouble.look_again:
            self.on_trouble()
        if trouble.reason == "read_only" and _now() - self._left_at >= CONNECT_TIMEOUT_S:
            # A name may point to another server by now: connect anew, but not with every entry.
            self._left_at = _now()
            self._is_left = True
        if trouble.reason == "moving" or str(error).startswith("WRONGTYPE"):
            return
        self._refused_at[ask.is_write] = _now()
        if self._refusing.get(ask.is_write) != trouble.reason:
            self._refusing[ask.is_write] = trouble.reason
            logger.warning(
                "Redis refuses %s (%s, %s: %s); requests go on without",
                _WHAT[ask.is_write],
                self.place,
                trouble.reason,
                error,
            )

    def _failed(self, exc: Exception, batch: list[_Ask], *, heard: bool) -> None:
        trouble = judge(exc)
        words = in_words(exc)
        if heard and trouble.reason == "late":
            # It answers, only not all of this in time: no reason to stop asking.
            self.breaker.abandoned()
            opened = False
        else:
            opened = self.breaker.failed(len(batch))
        if opened or not isinstance(exc, TimeoutError):
            self.connections.drop_idle()
        if opened:
            logger.warning(
                "Redis does not answer (%s, %s, %s); requests go on without it",
                self.place,
                trouble.reason,
                words,
            )
        if trouble.look_again:
            self.on_trouble()
        self._fail(batch, words, trouble.reason)


def _now() -> float:
    return asyncio.get_running_loop().time()

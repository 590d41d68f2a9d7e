"""What gateways tell each other of one pool: a stream in Redis, bounded in bytes.

    <prefix>route:<pool>   entries of one field, "f", with one frame

Rule 1: connections of its own, one that writes and one that waits for news: what is told here never
stands between a request and its answer, and a refusal of it says nothing about the cache.
Rule 2: the stream may go back: emptied, restored, failed over with lost writes. Where it ends before
what was heard last, it is read anew.
Rule 3: at most about `STREAM_BYTES`: each write says how many entries of the size that is usual now may
stay. A stream that nobody writes to expires.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import ResponseError

from gateway.store.base import StoreUnavailable
from gateway.store.journal import FRAME_BYTES, HISTORY_BYTES, HISTORY_RECORDS, records_in
from gateway.store.redis_line import obeyed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from gateway.store.redis import RedisStore
    from gateway.store.redis_line import Line

STREAM_BYTES = 32 << 20
HISTORY_S = 3600.0
"""What is older is not read when nothing of it is known."""

DEADLINE_S = 1.0
"""Of a write, and of a read that does not wait for news."""

WAIT_S = 0.5
"""How long a server waits for news before it says that there are none."""

_GATHER_S = 0.005
"""So long after news they are not asked for again: what many gateways write is read together."""

_READ = 16
"""Frames that one read takes."""

_PAGE_BYTES = 256 * 1024
_LARGEST_PAGE = 256

_PASSED = 4
"""So many times what we would keep there is read at most, whatever lies there."""

_ENTRY_BYTES = 96
"""About what Redis adds to a frame."""

_FEWEST, _MOST = 64, 100_000
"""Entries of a stream, whatever their size."""

_EXPIRES_S = 7200
_EXPIRE_EACH_S = 60.0

_QUIET = 10
"""Waits in vain until we look whether the stream went back."""


class _Id(NamedTuple):
    """Of an entry."""

    ms: int
    number: int

    def before(self) -> _Id:
        return _Id(self.ms, self.number - 1) if self.number else _Id(self.ms - 1, (1 << 64) - 1)

    def __str__(self) -> str:
        return f"{self.ms}-{self.number}"


class _Entry(NamedTuple):
    """Of a stream."""

    id: _Id
    frame: bytes
    """Empty where it can be none."""
    size: int
    """Of what lies there."""


_BEGIN = _Id(0, 0)


class RedisJournal:
    """The stream of one pool."""

    kind = "redis"
    shared = True
    lasting = True
    pace_s = 0.02

    def __init__(self, store: RedisStore, pool: str, *, stream_bytes: int = STREAM_BYTES) -> None:
        """Reached as the store is; the stream holds about `stream_bytes`."""
        self._store = store
        self._key = store.named(f"route:{pool}")
        self._stream_bytes = stream_bytes
        self._usual_bytes = 1024.0
        self._heard: _Id | None = None
        self._line: Line | None = None
        self._expire_at = 0.0

    def __repr__(self) -> str:
        return f"<RedisJournal {self._key} heard to {self._heard}>"

    async def follow(self) -> AsyncGenerator[Sequence[bytes], None]:
        """See `Journal`."""
        line = await self._store.line(self._key)
        try:
            await self._look_back(line)
            if self._heard is None:
                entries = await self._history(line)
                for each in reversed(entries):
                    self._weigh(each.size)
                self._heard = entries[0].id if entries else _BEGIN
                for place in range(len(entries), 0, -_READ):
                    yield [each.frame for each in reversed(entries[max(0, place - _READ) : place])]
            yield ()
            quiet = 0
            while line.is_usable:
                frames = await self._news(line)
                yield frames
                if frames:
                    await asyncio.sleep(_GATHER_S)
                quiet = 0 if frames else quiet + 1
                if quiet == _QUIET:
                    quiet = 0
                    if await self._look_back(line):
                        break
        finally:
            line.abort()
        raise StoreUnavailable("the stream went back, or elsewhere", "moving")

    async def write(self, frames: Sequence[bytes]) -> None:
        """See `Journal`."""
        if self._line is None or not self._line.is_usable:
            await self.close()
            self._line = await self._store.line(self._key)
        for frame in frames:
            self._weigh(len(frame))
        most = round(self._stream_bytes / (self._usual_bytes + _ENTRY_BYTES))
        most = min(max(most, _FEWEST), _MOST)
        commands: list[tuple[Any, ...]] = [
            ("XADD", self._key, "MAXLEN", "~", most, "*", "f", frame) for frame in frames
        ]
        now = asyncio.get_running_loop().time()
        if expire := now >= self._expire_at:
            self._expire_at = now + _EXPIRE_EACH_S
            commands.append(("EXPIRE", self._key, _EXPIRES_S))
        replies = await self._line.ask(commands, DEADLINE_S)
        # Whether it may expire is no reason not to be heard.
        for reply in replies[:-1] if expire else replies:
            if isinstance(reply, ResponseError):
                await self.close()
            obeyed(reply)

    async def close(self) -> None:
        """See `Journal`."""
        line, self._line = self._line, None
        if line is not None:
            line.abort()

    async def _news(self, line: Line) -> list[bytes]:
        wait = ("COUNT", _READ, "BLOCK", round(WAIT_S * 1000))
        command = ("XREAD", *wait, "STREAMS", self._key, str(self._heard))
        (reply,) = await line.ask([command], WAIT_S + DEADLINE_S)
        entries = _of_streams(obeyed(reply))
        if entries:
            self._heard = entries[-1].id
            # Others write too: all of it counts.
            for each in entries:
                self._weigh(each.size)
        return [each.frame for each in entries]

    async def _look_back(self, line: Line) -> bool:
        """Forget where we were if the stream ends before it: True then."""
        if self._heard is None:
            return False
        (reply,) = await line.ask([("XREVRANGE", self._key, "+", "-", "COUNT", 1)], DEADLINE_S)
        newest = _entries(obeyed(reply))
        if self._heard <= (newest[0].id if newest else _BEGIN):
            return False
        self._heard = None
        return True

    async def _history(self, line: Line) -> list[_Entry]:
        """The newest first: where there is too much, the oldest is not missed."""
        found: list[_Entry] = []
        size = passed = records = 0
        until, count = "+", 1
        while True:
            (reply,) = await line.ask(
                [("XREVRANGE", self._key, until, "-", "COUNT", count)], DEADLINE_S
            )
            page = _entries(obeyed(reply))
            for each in page:
                size += len(each.frame)
                passed += each.size
                records += records_in(each.frame)
                if (
                    size > HISTORY_BYTES
                    or passed > _PASSED * HISTORY_BYTES
                    or records > HISTORY_RECORDS
                    or (found and each.id.ms < found[0].id.ms - HISTORY_S * 1000)
                ):
                    return found
                found.append(each)
            if len(page) < count:
                return found
            until = str(page[-1].id.before())
            # Somebody may have put something huge there: it comes alone, not in hundreds.
            largest = max(each.size for each in page)
            count = min(max(_PAGE_BYTES // (largest + 1), 1), _LARGEST_PAGE)

    def _weigh(self, size: int) -> None:
        # What is too large is nobody's frame; it is trimmed like the others, in its turn.
        self._usual_bytes += (min(size, FRAME_BYTES) - self._usual_bytes) / 64


def _of_streams(reply: Any) -> list[_Entry]:
    """Of a reply to XREAD from one stream, in RESP2 or RESP3."""
    if not reply:
        return []
    ((_, entries),) = reply.items() if isinstance(reply, dict) else reply
    return _entries(entries)


def _entries(reply: Any) -> list[_Entry]:
    found: list[_Entry] = []
    for name, fields in reply or ():
        ms, _, number = name.partition(b"-")
        frame = b""
        with suppress(AttributeError, ValueError, IndexError):
            frame = fields[fields.index(b"f") + 1]
        size = len(frame)
        found.append(_Entry(_Id(int(ms), int(number)), frame if size <= FRAME_BYTES else b"", size))
    return found

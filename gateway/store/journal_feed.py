"""What one gateway tells the others of one pool, and hears of them, without any request waiting.

Rule 1: telling is an append to a bounded queue; where the journal can't keep up the oldest goes.
Rule 2: others are heard when the journal answered lately *and* what we told came back from it lately:
a feed of which only one direction works is none.
Rule 3: work on what is heard comes in slices, so that a long history holds up no request.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import OrderedDict, deque
from contextlib import aclosing, suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from gateway.core.route_records import RecordKind, decode, encode
from gateway.store.base import StoreUnavailable
from gateway.store.journal import (
    FRAME_RECORDS,
    RECORD_BYTES,
    Frame,
    packed,
    size_of,
    unpacked,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.route_records import RouteRecord
    from gateway.store.journal import Journal

logger = logging.getLogger(__name__)

FRESH_S = 2.0
"""What is older is no knowledge of what others do now."""

ROOM_BYTES = 16 << 20
"""What may wait to be told."""

_STEP_BYTES = 80
_RECORD_BYTES = 400
"""What a record that waits holds in memory, about."""

_LASTING = (RecordKind.PLACED, RecordKind.MADE)
"""What is worth knowing to who is started later."""

_JUDGE_S = 0.25

_AT_ONCE = 16
"""Frames in one write."""

_SLICE_S = 0.001
_BACKOFF_S = (0.1, 1.0)
_LAGS = 1024
_GATEWAYS = 256
"""Whose last frame is remembered."""

_GIVEN_UP_S = 10.0
"""A frame that did not come back so long after it was written is not waited for: the journal may
have lost it."""


class Feed:
    """One pool. For one event loop."""

    def __init__(
        self,
        pool: str,
        journal: Journal,
        gateway: int,
        hear: Callable[[RouteRecord], None],
        *,
        room_bytes: int = ROOM_BYTES,
    ) -> None:
        """Tell as `gateway` (64 random bits); `hear` gets what others told, and what was told
        before we began.
        """
        self._room_bytes = room_bytes
        self._pool = pool
        self._journal = journal
        self._gateway = gateway
        self._hear = hear
        self._queue: deque[tuple[float, int, RouteRecord]] = deque()
        self._queued_bytes = 0
        self._something = asyncio.Event()
        self._unsent: list[tuple[int, bytes]] = []
        self._sequences = count(1)
        # By sequence, when the oldest record of a frame was told that has not come back.
        self._on_the_way: OrderedDict[int, float] = OrderedDict()
        self._seen: OrderedDict[int, int] = OrderedDict()
        self._answered_at: float | None = None
        self._caught_up = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._lags: deque[float] = deque(maxlen=_LAGS)
        self._problems: dict[str, str] = {}
        self._slice_ends = 0.0
        self._complained = False
        self.shares = False
        """What the others do is known here, and what we do is known there."""
        self.on_shares: Callable[[bool], None] = lambda _: None
        """Called when `shares` has changed."""
        self.told = self.heard = self.dropped = self.ignored = 0

    def __repr__(self) -> str:
        return f"<Feed of {self._pool} over {self._journal!r}>"

    @property
    def lag_s(self) -> float | None:
        """From telling something until it came back, lately."""
        return self._lags[-1] if self._lags else None

    def tell(self, record: RouteRecord) -> None:
        """Let the others know, soon. Never waits, never raises."""
        if not self._journal.lasting:
            return
        if not self._journal.shared and record.kind not in _LASTING:
            # What was under way is over when somebody reads it.
            return
        size = _RECORD_BYTES + _STEP_BYTES * len(record.trail.prints)
        self._queue.append((time.monotonic(), size, record))
        self._queued_bytes += size
        while self._queued_bytes > self._room_bytes:
            self._queued_bytes -= self._queue.popleft()[1]
            self.dropped += 1
        self._something.set()

    async def start(self, patience_s: float) -> None:
        """Begin, and wait until what lies in the journal is known, or for `patience_s`."""
        if not self._journal.lasting:
            return
        # Owned here: `close` cancels them.
        self._tasks = [
            asyncio.create_task(self._keep_following()),  # noqa: TID251
            asyncio.create_task(self._keep_writing()),  # noqa: TID251
            asyncio.create_task(self._keep_judging()),  # noqa: TID251
        ]
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._caught_up.wait()

    async def close(self, timeout_s: float) -> None:
        """Tell what is still to be told, for `timeout_s`, and end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks:
            with suppress(Exception):
                async with asyncio.timeout(timeout_s):
                    await self._flush()
        self._tasks = []
        await self._journal.close()

    def figures(self) -> dict[str, Any]:
        """For people and metrics; times in seconds. Any thread may ask."""
        lags = sorted(list(self._lags))  # noqa: C414 - `list` takes it in one go
        return {
            "journal": self._journal.kind,
            "shares": self.shares,
            "told": self.told,
            "heard": self.heard,
            "dropped": self.dropped,
            "ignored": self.ignored,
            "waiting": len(self._queue),
            "lag_s": self.lag_s,
            "lag_p50_s": lags[len(lags) // 2] if lags else None,
            "lag_p99_s": lags[len(lags) * 99 // 100] if lags else None,
            "problem": next(iter(list(self._problems.values())), None),
        }

    # Whether it works.

    async def _keep_judging(self) -> None:
        while self._journal.shared:
            self._judge()
            await asyncio.sleep(_JUDGE_S)

    def _judge(self) -> None:
        since = time.monotonic() - FRESH_S
        known = self._answered_at is not None and self._answered_at >= since
        shares = (
            self._journal.shared
            and self._caught_up.is_set()
            and known
            and self._oldest_on_the_way() >= since
        )
        if shares is not self.shares:
            self.shares = shares
            try:
                self.on_shares(shares)
            except Exception:
                logger.exception("That %s is shared or not can't be used", self._pool)

    def _oldest_on_the_way(self) -> float:
        """When the oldest of what has not come back was told."""
        now = time.monotonic()
        unsent = self._unsent[0][0] if self._unsent else math.inf
        for sequence, told_at in list(self._on_the_way.items()):
            if sequence >= unsent or told_at > now - _GIVEN_UP_S:
                return told_at
            del self._on_the_way[sequence]
        return self._queue[0][0] if self._queue else now

    # Telling.

    async def _keep_writing(self) -> None:
        pause_s = _BACKOFF_S[0]
        while True:
            await self._something.wait()
            began = time.monotonic()
            try:
                await self._flush()
            except Exception as exc:  # noqa: BLE001 - whatever it is, the next attempt may succeed
                self._trouble("told", exc)
                await asyncio.sleep(_jittered(pause_s))
                pause_s = min(2 * pause_s, _BACKOFF_S[1])
                continue
            pause_s = _BACKOFF_S[0]
            self._well("told")
            # What is told until then goes in one write.
            await asyncio.sleep(max(0.0, began + self._journal.pace_s - time.monotonic()))

    async def _flush(self) -> None:
        while self._queue or self._unsent:
            if not self._unsent:
                await self._pack()
            await self._journal.write([frame for _, frame in self._unsent])
            self._unsent = []
        self._something.clear()

    async def _pack(self) -> None:
        """Of what waits, as many frames as go in one write."""
        frames: list[tuple[int, bytes]] = []
        records: list[bytes] = []
        size, told_at = 0, 0.0

        def end() -> None:
            sequence = next(self._sequences)
            frames.append((sequence, packed(Frame(self._gateway, sequence, tuple(records)))))
            records.clear()
            if self._journal.shared:
                self._on_the_way[sequence] = told_at

        try:
            while self._queue and len(frames) < _AT_ONCE:
                at, weight, record = self._queue.popleft()
                self._queued_bytes -= weight
                blob = self._encoded(record)
                if blob is None:
                    continue
                full = size + size_of(blob) > _ROOM or len(records) == FRAME_RECORDS
                if full and records:
                    end()
                    size = 0
                if not records:
                    told_at = at
                records.append(blob)
                size += size_of(blob)
                self.told += 1
                await self._take_turns()
        finally:
            # Also when we are to end: `close` tells what was begun.
            if records:
                end()
            self._unsent = frames

    def _encoded(self, record: RouteRecord) -> bytes | None:
        try:
            blob = encode(record)
        except Exception:
            logger.exception("A placement in %s can't be told", self._pool)
            blob = b""
        if 0 < len(blob) <= RECORD_BYTES:
            return blob
        self.dropped += 1
        return None

    # Hearing.

    async def _keep_following(self) -> None:
        pause_s = _BACKOFF_S[0]
        while True:
            try:
                async with aclosing(self._journal.follow()) as portions:
                    # What was written before may have been lost with the one that is gone.
                    self._forget_written()
                    async for frames in portions:
                        pause_s = _BACKOFF_S[0]
                        self._well("heard")
                        await self._take(frames)
            except Exception as exc:  # noqa: BLE001 - the same
                self._trouble("heard", exc)
            await asyncio.sleep(_jittered(pause_s))
            pause_s = min(2 * pause_s, _BACKOFF_S[1])

    async def _take(self, frames: Sequence[bytes]) -> None:
        self._answered_at = time.monotonic()
        if not frames and not self._caught_up.is_set():
            self._caught_up.set()
            self._judge()
        for blob in frames:
            frame = unpacked(blob)
            if frame is None:
                self.ignored += 1
            elif frame.gateway == self._gateway:
                self._came_back(frame.sequence)
            elif self._is_news(frame):
                for record in frame.records:
                    self._heed(record)
                    await self._take_turns()
            # A long history takes a while, and is not silence.
            self._answered_at = time.monotonic()

    def _is_news(self, frame: Frame) -> bool:
        last = self._seen.get(frame.gateway, 0)
        if frame.sequence <= last:
            return False
        self._seen[frame.gateway] = frame.sequence
        self._seen.move_to_end(frame.gateway)
        if len(self._seen) > _GATEWAYS:
            self._seen.popitem(last=False)
        return True

    def _came_back(self, sequence: int) -> None:
        told_at = self._on_the_way.get(sequence)
        if told_at is None:
            return
        self._lags.append(time.monotonic() - told_at)
        for each in list(self._on_the_way):
            if each > sequence:
                break
            del self._on_the_way[each]

    def _forget_written(self) -> None:
        unsent = {sequence for sequence, _ in self._unsent}
        for sequence in [each for each in self._on_the_way if each not in unsent]:
            del self._on_the_way[sequence]

    def _heed(self, blob: bytes) -> None:
        try:
            record = decode(blob)
            if record is None or record.gateway == self._gateway:
                self.ignored += 1
                return
            self._hear(record)
        except Exception:
            # Whatever lies in the journal: it costs a line in the log, never the feed.
            if not self._complained:
                self._complained = True
                logger.exception("What another gateway told of %s can't be used", self._pool)
            self.ignored += 1
            return
        self.heard += 1

    async def _take_turns(self) -> None:
        if time.monotonic() >= self._slice_ends:
            await asyncio.sleep(0)
            self._slice_ends = time.monotonic() + _SLICE_S

    def _trouble(self, what: str, exc: Exception) -> None:
        expected = isinstance(exc, StoreUnavailable)
        if what not in self._problems:
            logger.warning(
                "Placements in %s can't be %s (%s): it is tried again, requests go on",
                self._pool,
                what,
                exc,
                exc_info=None if expected else exc,
            )
        self._problems[what] = str(exc) if expected else repr(exc)

    def _well(self, what: str) -> None:
        if self._problems.pop(what, None) is not None:
            logger.warning("Placements in %s are %s again", self._pool, what)


_ROOM = RECORD_BYTES + size_of(b"")
"""For the records of one frame."""


def _jittered(seconds: float) -> float:
    # So that gateways that lost one server don't all come back to it at once.
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - no secret

"""A store in one file: a thread of its own does the work, and nobody waits for it too long."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from gateway.store.base import StoreUnavailable
from gateway.store.deadline import within
from gateway.store.sqlite_file import SqliteFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

T = TypeVar("T")

BUDGET_BYTES = 4 << 30

PENDING_PUTS = 1024
PENDING_BYTES = 64 << 20
"""Bounds of what is accepted and not yet written; beyond either a put is refused."""

WAITING_JOBS = 1024
"""Bound of lookups and deletes that wait for the thread."""

BATCH_BYTES = 4 << 20
"""A transaction ends at about this size, so that a lookup behind it does not wait long."""

SWEEP_S = 30.0
"""How often to look for rows to remove."""

RETRY_S = 1.0
"""When to try again what failed: opening the file, writing a batch."""

OPEN_S = 2.0
FLUSH_S = 5.0
"""Bounds of `start` and `close`."""


class _Put(NamedTuple):
    expires_at: float
    blob: bytes


class _Job(NamedTuple):
    work: Callable[[], Any]
    answer: Future[Any]


class SqliteStore:
    """Puts are accepted into a bounded memory and written in batches; gets see them at once.

    A crash may lose the last puts, nothing else. A file that can't be opened makes the store
    unavailable, and is tried again every second. For one event loop.
    """

    name = "sqlite"

    def __init__(
        self,
        path: Path,
        *,
        deadline_s: float = 0.05,
        clock: Callable[[], float] = time.time,
        budget_bytes: int = BUDGET_BYTES,
        pending_puts: int = PENDING_PUTS,
        pending_bytes: int = PENDING_BYTES,
        sweep_s: float = SWEEP_S,
        retry_s: float = RETRY_S,
    ) -> None:
        """Entries live in `path`, about `budget_bytes` of them at most; `clock` gives seconds
        since the epoch.
        """
        self._deadline_s = deadline_s
        self._clock = clock
        self._pending_puts = pending_puts
        self._pending_bytes = pending_bytes
        self._sweep_s = sweep_s
        self._retry_s = retry_s
        self._file = SqliteFile(path, clock, budget_bytes=budget_bytes)
        self._thread = threading.Thread(target=self._run, name="warmgate-sqlite", daemon=True)
        # Guards what follows; held for a few operations in memory, never during I/O.
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._pending: dict[bytes, _Put] = {}
        self._size_bytes = 0
        self._closing = False
        # Of the thread alone.
        self._problem: str | None = None
        self._retry_at = 0.0
        self._sweep_at = time.monotonic() + sweep_s

    def __repr__(self) -> str:
        state = self._problem or ("open" if self._file.is_open else "closed")
        return f"<SqliteStore {self._file.path} {state}, {len(self._pending)} puts pending>"

    async def start(self) -> None:
        """Start the thread and let it open the file; a failure is logged, not raised."""
        self._thread.start()
        try:
            await self._ask(_nothing, OPEN_S)
        except StoreUnavailable as exc:
            logger.warning("%s is not open yet: %s", self._file.path, exc)

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The blobs, in the order asked. Raises `StoreUnavailable`."""
        now = self._clock()
        with self._changed:
            pending = {key: put for key in keys if (put := self._pending.get(key))}
        found = {key: put.blob for key, put in pending.items() if put.expires_at > now}
        missing = [key for key in keys if key not in pending]
        if missing:
            found |= await self._ask(lambda: self._file.read(missing), self._deadline_s)
        return [found.get(key) for key in keys]

    async def put(self, key: bytes, blob: bytes, ttl_s: float) -> None:
        """Accept the blob for writing. Raises `StoreUnavailable` when too much is waiting."""
        with self._changed:
            if self._closing or not self._file.is_open:
                raise StoreUnavailable(self._problem or "the file is not open")
            former = self._pending.pop(key, None)
            self._size_bytes -= 0 if former is None else len(former.blob)
            if (
                len(self._pending) >= self._pending_puts
                or self._size_bytes + len(blob) > self._pending_bytes
            ):
                raise StoreUnavailable("too much is waiting to be written")
            self._pending[key] = _Put(self._clock() + ttl_s, blob)
            self._size_bytes += len(blob)
            self._changed.notify()

    async def delete(self, keys: Sequence[bytes]) -> int:
        """Forget the keys; how many existed. Raises `StoreUnavailable`: some may be gone then."""
        if not keys:
            return 0
        with self._changed:
            dropped = {key: put for key in keys if (put := self._pending.pop(key, None))}
            self._size_bytes -= sum(len(put.blob) for put in dropped.values())
        deleted = await self._ask(lambda: self._file.delete(keys), self._deadline_s)
        return len(deleted | dropped.keys())

    async def close(self) -> None:
        """Write what was accepted, for up to five seconds, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is None:
            return
        await asyncio.to_thread(self._thread.join, FLUSH_S)
        if self._pending:
            logger.warning("%d answers were not written to %s", len(self._pending), self._file.path)

    async def _ask(self, work: Callable[[], T], deadline_s: float) -> T:
        answer: Future[T] = Future()
        with self._changed:
            if self._closing:
                raise StoreUnavailable("the store is closed")
            if len(self._jobs) >= WAITING_JOBS:
                raise StoreUnavailable("too many lookups are waiting")
            self._jobs.append(_Job(work, answer))
            self._changed.notify()
        try:
            # At the deadline the future is cancelled: an answer that comes later reaches nobody.
            return await within(deadline_s, asyncio.wrap_future(answer))
        except TimeoutError as exc:
            raise StoreUnavailable(f"no answer within {deadline_s * 1000:.0f} ms") from exc

    # What follows runs in the thread.

    def _run(self) -> None:
        while not self._closing:
            self._turn()
        flush_until = time.monotonic() + FLUSH_S
        while self._pending and self._file.is_open and time.monotonic() < flush_until:
            if not self._write():
                break
        for job in self._jobs:
            _answer(job)
        self._file.close()

    def _turn(self) -> None:
        with self._changed:
            now = time.monotonic()
            broken = self._problem is not None or not self._file.is_open
            wake_at = self._retry_at if broken else self._sweep_at
            if not self._jobs and not self._closing and (broken or not self._pending):
                self._changed.wait(max(0.0, wake_at - now))
            jobs, self._jobs = self._jobs, deque()
        may_retry = time.monotonic() >= self._retry_at
        if may_retry and not self._file.is_open:
            self._open()
        for job in jobs:
            _answer(job)
        if self._file.is_open and self._pending and (may_retry or self._problem is None):
            self._write()
        if self._file.is_open and not self._jobs and time.monotonic() >= self._sweep_at:
            self._sweep()

    def _open(self) -> None:
        try:
            self._file.open()
        except StoreUnavailable as exc:
            self._failed(exc)
        else:
            self._worked()

    def _write(self) -> bool:
        """Write some of what is pending, in one transaction. True when that worked."""
        batch: dict[bytes, _Put] = {}
        size_bytes = 0
        with self._changed:
            for key, put in self._pending.items():
                batch[key] = put
                size_bytes += len(put.blob)
                if size_bytes >= BATCH_BYTES:
                    break
        try:
            self._file.write([(key, *put) for key, put in batch.items()])
        except StoreUnavailable as exc:
            self._failed(exc)
            return False
        self._worked()
        with self._changed:
            for key, put in batch.items():
                # Only what was written: the key may have been put again, or deleted, meanwhile.
                if self._pending.get(key) is put:
                    del self._pending[key]
                    self._size_bytes -= len(put.blob)
        return True

    def _sweep(self) -> None:
        pause_s = self._sweep_s
        try:
            if self._file.sweep():
                pause_s = 0.0
        except StoreUnavailable as exc:
            logger.debug("sweeping failed: %s", exc)
        self._sweep_at = time.monotonic() + pause_s

    def _failed(self, exc: StoreUnavailable) -> None:
        if self._problem is None:
            logger.warning("%s; requests go on without it", exc)
        self._problem = str(exc)
        self._retry_at = time.monotonic() + self._retry_s

    def _worked(self) -> None:
        if self._problem is not None:
            logger.warning("%s works again", self._file.path)
        self._problem = None


def _answer(job: _Job) -> None:
    """Do the work, unless nobody waits for it any more."""
    if not job.answer.set_running_or_notify_cancel():
        return
    try:
        job.answer.set_result(job.work())
    except Exception as exc:  # noqa: BLE001 - the thread must live, the caller must hear
        problem = exc if isinstance(exc, StoreUnavailable) else StoreUnavailable(repr(exc))
        job.answer.set_exception(problem)


def _nothing() -> None:
    """Work that is done as soon as the thread gets to it."""

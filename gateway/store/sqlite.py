"""A store in one file: one thread writes, another looks up, and nobody waits for them too long."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from gateway.store.base import StoreUnavailable
from gateway.store.breaker import Breaker
from gateway.store.desk import Desk, DeskThread
from gateway.store.sqlite_file import Moved, SqliteFile, is_full
from gateway.store.sqlite_lookup import SqliteLookup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

BUDGET_BYTES = 4 << 30

PENDING_PUTS = 1024
PENDING_BYTES = 64 << 20
"""Bounds of what is accepted and not yet written; beyond either a put is refused."""

BATCH_BYTES = 4 << 20
"""A transaction ends at about this size, so that a delete behind it does not wait long."""

SWEEP_S = 30.0
"""How often to look for rows to remove."""

RETRY_S = 1.0
"""When to try again what failed: opening the file, writing a batch."""

BLOCKED_S = 0.25
"""How long to ask no more after several lookups in a row got no answer: the file is locked."""

OPEN_S = 2.0
FLUSH_S = 5.0
"""Bounds of `start` and `close`."""


class _Put(NamedTuple):
    expires_at: float
    blob: bytes


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
        self._lookup = SqliteLookup(self._file, clock, self._suspect)
        self._reader = DeskThread("warmgate-sqlite-read", self._lookup.close)
        self._breaker = Breaker(time.monotonic, open_s=BLOCKED_S)
        self._thread = threading.Thread(target=self._run, name="warmgate-sqlite", daemon=True)
        # Guards what follows; held for a few operations in memory, never during I/O.
        self._changed = threading.Condition()
        self._jobs = Desk(self._changed)
        self._suspected: tuple[Exception, tuple[int, int]] | None = None
        self._pending: dict[bytes, _Put] = {}
        self._size_bytes = 0
        # Of the writing thread alone.
        self._problem: str | None = None
        self._retry_at = 0.0
        self._sweep_at = time.monotonic() + sweep_s

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    def __repr__(self) -> str:
        state = self._problem or ("open" if self._file.is_open else "closed")
        return f"<SqliteStore {self._file.path} {state}, {len(self._pending)} puts pending>"

    async def start(self) -> None:
        """Start the threads and let them open the file; a failure is logged, not raised."""
        self._thread.start()
        self._reader.start()
        try:
            await self._jobs.ask(_nothing, OPEN_S)
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
            found |= await self._look_up(missing)
        return [found.get(key) for key in keys]

    async def put(self, key: bytes, blob: bytes, ttl_s: float) -> None:
        """Accept the blob for writing. Raises `StoreUnavailable` when too much is waiting."""
        with self._changed:
            if self._jobs.closing or not self._file.is_open:
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
        deleted = await self._jobs.ask(lambda: self._file.delete(keys), self._deadline_s)
        return len(deleted | dropped.keys())

    async def close(self) -> None:
        """Write what was accepted, for up to five seconds, and end the threads."""
        self._reader.close()
        self._jobs.close()
        if self._thread.ident is None:
            return
        await self._reader.join(FLUSH_S)
        await asyncio.to_thread(self._thread.join, FLUSH_S)
        if self._pending:
            logger.warning("%d answers were not written to %s", len(self._pending), self._file.path)

    async def _look_up(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        if not self._breaker.enter():
            raise StoreUnavailable(f"{self._file.path} did not answer lately")
        try:
            found = await self._reader.ask(lambda: self._lookup.read(keys), self._deadline_s)
        except StoreUnavailable:
            self._breaker.failed()
            raise
        except BaseException:
            self._breaker.abandoned()
            raise
        self._breaker.succeeded()
        return found

    def _suspect(self, problem: Exception, identity: tuple[int, int]) -> None:
        """The reading thread found that this file is useless: the writing one must mend it."""
        with self._changed:
            self._suspected = (problem, identity)
            self._changed.notify()

    # What follows runs in the writing thread.

    def _run(self) -> None:
        while not self._jobs.closing:
            self._turn()
        flush_until = time.monotonic() + FLUSH_S
        while self._pending and self._file.is_open and time.monotonic() < flush_until:
            if not self._write():
                break
        with self._changed:
            jobs = self._jobs.take()
        for job in jobs:
            job.do()
        self._file.close()

    def _turn(self) -> None:
        with self._changed:
            now = time.monotonic()
            broken = self._problem is not None or not self._file.is_open
            wake_at = self._retry_at if broken else self._sweep_at
            idle = not self._jobs and not self._jobs.closing and self._suspected is None
            if idle and (broken or not self._pending):
                self._changed.wait(max(0.0, wake_at - now))
            jobs = self._jobs.take()
            suspected, self._suspected = self._suspected, None
        # It may have been mended meanwhile: then it is another file.
        if suspected is not None and suspected[1] == self._file.identity:
            self._file.give_up(suspected[0])
            self._retry_at = 0.0
        may_retry = time.monotonic() >= self._retry_at
        if may_retry and not self._file.is_open:
            self._open()
        for job in jobs:
            job.do()
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
            # Where something waits to be written, that will tell, and not once a second.
            if not self._pending:
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
            if isinstance(exc, Moved):
                self._retry_at = 0.0
            elif is_full(exc.__cause__):
                self._shrink()
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

    def _shrink(self) -> None:
        try:
            self._file.shrink()
        except StoreUnavailable as exc:
            logger.debug("there is no room even to remove something: %s", exc)

    def _failed(self, exc: StoreUnavailable) -> None:
        if self._problem is None:
            logger.warning("%s; requests go on without it", exc)
        self._problem = str(exc)
        self._retry_at = time.monotonic() + self._retry_s

    def _worked(self) -> None:
        if self._problem is not None:
            logger.warning("%s works again", self._file.path)
        self._problem = None


def _nothing() -> None:
    """Work that is done as soon as the thread gets to it."""

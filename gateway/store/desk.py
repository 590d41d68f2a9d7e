"""A thread that does blocking work for one event loop, and nobody waits for it too long."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from gateway.store.base import StoreUnavailable
from gateway.store.deadline import within

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

WAITING_JOBS = 1024
"""Bound of what waits for the thread."""


class Job(NamedTuple):
    """Work, and where its outcome goes."""

    work: Callable[[], Any]
    answer: Future[Any]

    def do(self) -> None:
        """Do the work, unless nobody waits for it any more."""
        if not self.answer.set_running_or_notify_cancel():
            return
        try:
            self.answer.set_result(self.work())
        except Exception as exc:  # noqa: BLE001 - the thread must live, the caller must hear
            problem = exc if isinstance(exc, StoreUnavailable) else StoreUnavailable(repr(exc))
            self.answer.set_exception(problem)


class Desk:
    """Takes jobs for a thread; `changed` guards it, and is held for a few operations in memory."""

    def __init__(self, changed: threading.Condition) -> None:
        """The thread waits on `changed` and calls `take`."""
        self.changed = changed
        self.closing = False
        self._jobs: deque[Job] = deque()

    def __len__(self) -> int:
        return len(self._jobs)

    async def ask(self, work: Callable[[], T], deadline_s: float) -> T:
        """The outcome of the work in the thread. Raises `StoreUnavailable`, at the deadline too."""
        answer: Future[T] = Future()
        with self.changed:
            if self.closing:
                raise StoreUnavailable("the store is closed")
            if len(self._jobs) >= WAITING_JOBS:
                raise StoreUnavailable("too many lookups are waiting")
            self._jobs.append(Job(work, answer))
            self.changed.notify()
        try:
            # At the deadline the future is cancelled: an answer that comes later reaches nobody.
            return await within(deadline_s, asyncio.wrap_future(answer))
        except TimeoutError as exc:
            raise StoreUnavailable(f"no answer within {deadline_s * 1000:.0f} ms") from exc

    def take(self) -> deque[Job]:
        """All that waits. The caller holds `changed`."""
        jobs, self._jobs = self._jobs, deque()
        return jobs

    def close(self) -> None:
        """Take no more, and wake the thread."""
        with self.changed:
            self.closing = True
            self.changed.notify()


class DeskThread(Desk):
    """A desk with a thread that does nothing else."""

    def __init__(self, name: str, at_the_end: Callable[[], None]) -> None:
        """`at_the_end` runs in the thread, after the last job."""
        super().__init__(threading.Condition())
        self._at_the_end = at_the_end
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def join(self, timeout_s: float) -> None:
        """Wait for the thread to end after `close`."""
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join, timeout_s)

    def _run(self) -> None:
        while True:
            with self.changed:
                while not self._jobs and not self.closing:
                    self.changed.wait()
                jobs = self.take()
            for job in jobs:
                job.do()
            if self.closing and not self._jobs:
                break
        self._at_the_end()

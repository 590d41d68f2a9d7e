"""Every fire-and-forget task has an owner here: bounded in number, drained on stop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_log = structlog.get_logger("gateway.background")


class Background:
    """Runs coroutines that nobody waits for. At most `limit` at once: more are refused."""

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Background {len(self._tasks)} of {self._limit} running>"

    def spawn(
        self,
        work: Coroutine[Any, Any, None],
        name: str,
        started: Callable[[asyncio.Task[None]], None] | None = None,
    ) -> bool:
        """Start it; False (and the work is dropped) when there is no room or we are closed.

        `started` gets the task, for an owner that may have to cancel it.
        """
        if self._closed or len(self._tasks) >= self._limit:
            work.close()
            return False
        task = asyncio.get_running_loop().create_task(work, name=name)
        # The loop keeps only weak references to tasks.
        self._tasks.add(task)
        task.add_done_callback(self._done)
        if started is not None:
            started(task)
        return True

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("background task failed", task=task.get_name(), exc_info=error)

    async def idle(self) -> None:
        """Return when nothing runs."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def close(self, timeout_s: float) -> None:
        """Take nothing new, let what runs finish for `timeout_s` seconds, then cancel it."""
        self._closed = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.idle()
        left = tuple(self._tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=1.0)

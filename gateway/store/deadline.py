"""A deadline that is fair to the other side when our own loop is late.

After a stall of the event loop, the reply that came meanwhile and the deadline that passed
meanwhile are found in the same turn, and `asyncio.timeout` would let the deadline win: a busy
gateway would blame its store for its own slowness, lose hits by it, and be busier still.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")


async def within(seconds: float, work: Awaitable[T]) -> T:
    """The outcome of the work. Raises TimeoutError when it was not there after `seconds`; what
    had arrived by then counts, even if the loop had no time to look at it.
    """
    loop = asyncio.get_running_loop()
    timeout = asyncio.timeout(None)
    due: asyncio.Handle

    def late() -> None:
        # What is already there needs up to two turns of the loop to get to the waiting task: one
        # for a future that a thread set, one for the task. `reschedule` brings the second.
        nonlocal due
        due = loop.call_soon(timeout.reschedule, 0.0)

    async with timeout:
        due = loop.call_later(seconds, late)
        try:
            return await work
        finally:
            due.cancel()

"""How late the loop is, is seen by a timer that is late too."""

from __future__ import annotations

import asyncio
import time

from gateway.telemetry.loop_lag import LoopLag

DEADLINE_S = 10


async def test_what_holds_the_loop_is_told_and_then_no_more() -> None:
    told: asyncio.Queue[float] = asyncio.Queue()
    lag = LoopLag(told.put_nowait, every_s=0.01)
    try:
        # Somebody's long computation, begun before the timer is due.
        time.sleep(0.2)  # noqa: ASYNC251 - just that is what is to be seen
        async with asyncio.timeout(DEADLINE_S):
            assert await told.get() > 0.1
            later = [await told.get() for _ in range(5)]
        # Measured from each time it was due: one delay is not told twice.
        assert min(later) < 0.1
    finally:
        lag.close()


async def test_once_closed_it_tells_nothing() -> None:
    told: list[float] = []
    lag = LoopLag(told.append, every_s=0.001)
    lag.close()
    rung = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, rung.set)
    await asyncio.wait_for(rung.wait(), DEADLINE_S)
    assert told == []

"""Every fire-and-forget task has an owner: bounded, told of when it fails, drained on stop."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from gateway.background import Background


async def test_it_runs_what_it_takes_and_knows_when_nothing_runs() -> None:
    background = Background()
    done: list[int] = []

    async def work(number: int) -> None:
        await asyncio.sleep(0)
        done.append(number)

    assert all(background.spawn(work(n), "work") for n in range(3))
    assert repr(background) == "<Background 3 of 1000 running>"
    await background.idle()
    assert done == [0, 1, 2]
    assert repr(background) == "<Background 0 of 1000 running>"


async def test_what_has_no_room_is_refused_and_never_runs() -> None:
    background = Background(limit=1)
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    assert background.spawn(wait(), "first")
    # A coroutine that was never awaited would warn, and warnings are errors here.
    assert not background.spawn(wait(), "second")
    gate.set()
    await background.idle()
    assert background.spawn(wait(), "third")
    await background.close(1)


async def test_a_failure_is_told_and_harms_nobody() -> None:
    background = Background()

    async def fail() -> None:
        raise LookupError("lost")

    with capture_logs() as told:
        background.spawn(fail(), "store put")
        await background.idle()
        await asyncio.sleep(0)
    assert [(t["task"], repr(t["exc_info"])) for t in told] == [
        ("store put", "LookupError('lost')")
    ]


async def test_closing_lets_what_runs_finish_and_takes_nothing_new() -> None:
    background = Background()
    gate = asyncio.Event()
    done = asyncio.Event()

    async def work() -> None:
        await gate.wait()
        done.set()

    background.spawn(work(), "work")
    closing = asyncio.create_task(background.close(5))
    await asyncio.sleep(0)
    assert not background.spawn(work(), "late")
    gate.set()
    await asyncio.wait_for(closing, 1)
    assert done.is_set()


async def test_closing_cancels_what_does_not_end_in_time() -> None:
    background = Background()
    cancelled = asyncio.Event()

    async def stay() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    background.spawn(stay(), "stay")
    with capture_logs() as told:
        await asyncio.wait_for(background.close(0.01), 2)
    assert cancelled.is_set()
    assert told == []


async def test_a_task_that_will_not_be_cancelled_does_not_hold_up_the_end() -> None:
    background = Background()
    gate = asyncio.Event()

    async def stubborn() -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    background.spawn(stubborn(), "stubborn")
    await asyncio.wait_for(background.close(0.01), 3)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(background.idle(), 0.01)
    gate.set()
    await background.idle()

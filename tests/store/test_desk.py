"""Work for a thread: in order, within a deadline, bounded, and not for those who have gone."""

from __future__ import annotations

import asyncio
import threading

import pytest

from gateway.store.base import StoreUnavailable
from gateway.store.desk import DeskThread

PATIENT_S = 10.0


def nothing() -> None:
    pass


async def test_work_is_done_in_order_in_one_thread_that_ends() -> None:
    ended = threading.Event()
    desk = DeskThread("desk", ended.set)
    desk.start()
    done: list[int] = []
    threads: set[int] = set()

    def work(number: int) -> int:
        done.append(number)
        threads.add(threading.get_ident())
        return number * 2

    answers = [desk.ask(lambda n=n: work(n), PATIENT_S) for n in range(20)]  # type: ignore[misc]
    assert await asyncio.gather(*answers) == [n * 2 for n in range(20)]
    assert done == list(range(20))
    assert len(threads) == 1
    desk.close()
    await desk.join(PATIENT_S)
    assert ended.is_set()
    with pytest.raises(StoreUnavailable, match="closed"):
        await desk.ask(nothing, PATIENT_S)


async def test_what_goes_wrong_in_the_thread_is_told_and_the_thread_lives() -> None:
    desk = DeskThread("desk", nothing)
    desk.start()

    def fail(problem: Exception) -> None:
        raise problem

    with pytest.raises(StoreUnavailable, match="KeyError"):
        await desk.ask(lambda: fail(KeyError("x")), PATIENT_S)
    with pytest.raises(StoreUnavailable, match="as it is"):
        await desk.ask(lambda: fail(StoreUnavailable("as it is")), PATIENT_S)
    assert await desk.ask(lambda: 7, PATIENT_S) == 7
    desk.close()
    await desk.join(PATIENT_S)


async def test_nobody_waits_beyond_the_deadline_and_what_nobody_waits_for_is_not_done() -> None:
    desk = DeskThread("desk", nothing)
    desk.start()
    go_on = threading.Event()
    done: list[str] = []
    holding = asyncio.create_task(desk.ask(lambda: go_on.wait(PATIENT_S), PATIENT_S))
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="within 20 ms"):
        await desk.ask(lambda: done.append("late"), 0.02)
    go_on.set()
    await holding
    await desk.ask(nothing, PATIENT_S)
    assert done == []
    desk.close()
    await desk.join(PATIENT_S)


async def test_a_desk_that_never_began_closes() -> None:
    desk = DeskThread("desk", nothing)
    desk.close()
    await desk.join(PATIENT_S)

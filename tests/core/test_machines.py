from __future__ import annotations

import tracemalloc

from gateway.core.machines import KEY_BYTES, Machines


def test_a_prefix_goes_to_the_next_machine_when_a_minute_has_had_so_many() -> None:
    machines = Machines()
    assert [machines.asked(1, 3, float(n)) for n in range(7)] == [0, 0, 0, 1, 1, 1, 2]
    assert machines.asked(2, 3, 7.0) == 0
    # Those of the minute before count no more.
    assert machines.asked(1, 3, 64.0) == 0
    assert [machines.asked(1, 3, 64.0) for _ in range(40)][-1] == 14
    assert machines.asked(1, 0, 64.0) == 0


def test_whom_nobody_asked_for_a_minute_is_forgotten() -> None:
    machines = Machines()
    for number in range(20_000):
        machines.asked(number, 15, number / 100)
    assert 5_900 < len(machines) < 6_100
    for number in range(30_000):
        machines.asked(-number, 15, 1000.0)
    assert len(machines) == 10_000


def test_a_prefix_that_was_asked_for_once_takes_what_is_reckoned() -> None:
    machines = Machines()
    tracemalloc.start()
    try:
        for number in range(10_000):
            machines.asked(number << 40, 15, number / 1000)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.5 * KEY_BYTES < taken / 10_000 < KEY_BYTES

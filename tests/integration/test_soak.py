"""Mixed traffic leaves the process as it was: memory, tasks and descriptors don't grow.

`make soak` does the same for half an hour.
"""

from __future__ import annotations

import pytest

from tests.helpers.soak import Sample, Soaked, _rise, soak

SECONDS = 75


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_memory_tasks_and_descriptors_stay_flat() -> None:
    soaked = await soak(SECONDS)
    print(f"\n{soaked}")
    assert soaked.faults() == []
    assert sum(soaked.requests.values()) > 20 * SECONDS
    assert len(soaked.requests) == 8


def test_a_leak_would_be_seen_and_a_peak_is_none() -> None:
    flat = [
        Sample(t, 100_000_000 + t * 7 % 5 * 100_000, 90_000_000 + t * 3 % 5 * 100_000, 30, 40)
        for t in range(100)
    ]
    leak = [s._replace(held_bytes=s.held_bytes + 50_000 * int(s.at_s)) for s in flat]
    holes = [s._replace(memory_bytes=s.memory_bytes + 100_000 * int(s.at_s)) for s in flat]
    peak = [s._replace(memory_bytes=s.memory_bytes + 50_000_000 * (s.at_s == 60)) for s in flat]

    def faults(samples: list[Sample], left: int = 0) -> list[str]:
        rises = Sample(*(_rise(samples, place) for place in range(5)))  # type: ignore[arg-type]
        return Soaked(samples, rises, left, {}).faults()

    assert faults(flat) == faults(peak) == []
    assert ["held_bytes" in fault for fault in faults(leak)] == [True]
    assert ["memory_bytes" in fault for fault in faults(holes)] == [True]
    assert faults(flat, left=1) == ["1 tasks are left"]

"""What it takes that gateways tell each other what they place: bytes, CPU, and how late it is heard.

    python -m bench.sharing

One process tells, another hears, through a Redis (else Valkey) of their own on this machine. CPU is of a
whole process, without what it takes where nothing is told; the decision's own work on what is heard
is not in it.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from typing import Any

from gateway.core.route_records import RecordKind, RouteRecord, encode
from gateway.core.trail import Trail
from gateway.placements import Placements
from gateway.store.journals import open_journal
from gateway.store.redis import RedisStore
from tests.helpers.redis_servers import RedisServer, binary

SECONDS = 4.0
CASES = ((20, 1000), (20, 20_000), (400, 300), (400, 2000))
"""Steps of a prompt, records told each second."""

_DIFFERENT = 200
_TICK_S = 0.001
_SETTLE_S = 0.5


def record(gateway: int, number: int, steps: int) -> RouteRecord:
    """A prompt of so many steps that was placed."""
    dice = random.Random(number)
    prints = tuple(dice.getrandbits(64) for _ in range(steps))
    trail = Trail(prints, tuple(range(100, 100 * steps + 1, 100)))
    return RouteRecord(
        RecordKind.PLACED, gateway, number, "10.0.0.1:8000", time.time(), trail, 0, 1000
    )


async def gateway(url: str, steps: int, rate: float) -> dict[str, Any]:
    """Tell (`rate` above 0) or hear for `SECONDS`; what that took."""
    number = random.SystemRandom().getrandbits(64)
    store = RedisStore(url)
    placements = Placements(["pool"], lambda pool: open_journal(store, pool), number)
    records = [record(number, n, steps) for n in range(_DIFFERENT)]
    await placements.start()
    await asyncio.sleep(_SETTLE_S)
    before = placements.told()["pool"]["heard"]
    told, cpu_s, began = 0, time.process_time(), time.perf_counter()
    while (passed := time.perf_counter() - began) < SECONDS:
        while told < int(passed * rate):
            placements.tell("pool", records[told % _DIFFERENT])
            told += 1
        await asyncio.sleep(_TICK_S)
    cpu_s = time.process_time() - cpu_s
    heard = placements.told()["pool"]["heard"] - before
    await asyncio.sleep(_SETTLE_S)
    figures = placements.told()["pool"]
    await placements.close(1.0)
    await store.close()
    return {**figures, "cpu_s": cpu_s, "heard": heard}


def both(url: str, steps: int, rate: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figures of who tells and of who hears."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.sharing", url, str(steps), str(each)],
            stdout=subprocess.PIPE,
        )
        for each in (rate, 0.0)
    ]
    one, other = (json.loads(process.communicate()[0]) for process in started)
    return one, other


def main() -> None:
    """Print it."""
    executable = binary("redis") or binary("valkey")
    assert executable is not None
    server = RedisServer(executable)
    server.start()
    try:
        idle = both(server.url, 1, 0.0)
        print(
            "| steps | records/s | bytes | telling, us | hearing, us | lag p50, p99, ms | dropped |"
        )
        print("| ---: " * 7 + "|")
        for steps, rate in CASES:
            one, other = both(server.url, steps, rate)
            size = len(encode(record(1, 0, steps)))
            telling = (one["cpu_s"] - idle[0]["cpu_s"]) / one["told"] * 1e6
            hearing = (other["cpu_s"] - idle[1]["cpu_s"]) / other["heard"] * 1e6
            lags = f"{one['lag_p50_s'] * 1000:.0f}, {one['lag_p99_s'] * 1000:.0f}"
            cells = (steps, rate, size, f"{telling:.0f}", f"{hearing:.0f}", lags, one["dropped"])
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
    finally:
        server.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _, where, how_long, how_many = sys.argv
        print(json.dumps(asyncio.run(gateway(where, int(how_long), float(how_many)))))
    else:
        main()

"""How long a decision takes, and what mirrors weigh: `python -m bench.routing`.

A decision is `place` and `sent` of a prompt of 400 steps (256 KB) in front of replicas whose mirrors
are full; the answers come back in between, untimed. Half of the prompts go on from another.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
import tracemalloc
from typing import NamedTuple

from gateway.core.affinity import Affinity
from gateway.core.mirror import STEP_BYTES, Mirror
from gateway.core.route import Candidate, RouteSettings, Wish
from gateway.core.trail import Trail

STEPS = 400
STEP_TOKENS = 160
SHARED = 40
"""Steps that everybody's prompts begin with."""

GOALS_MS = {8: 0.5, 64: 1.0, 512: 3.0}
MIRROR_BYTES = 256 * 1024 * 1024


class Figures(NamedTuple):
    """Milliseconds for one decision."""

    backends: int
    median_ms: float
    p99_ms: float
    mirror_steps: int


def prompt(dice: random.Random, shared: tuple[int, ...], before: Trail | None) -> Trail:
    """400 steps: new behind the shared ones, or mostly those of an earlier prompt."""
    lead = before.prints[: STEPS - 4] if before is not None else shared
    prints = (*lead, *(dice.getrandbits(64) for _ in range(STEPS - len(lead))))
    return Trail(prints, tuple(range(STEP_TOKENS, STEP_TOKENS * (STEPS + 1), STEP_TOKENS)))


def decisions(backends: int, rounds: int) -> Figures:
    """Measure so many decisions."""
    dice = random.Random(1)
    shared = tuple(dice.getrandbits(64) for _ in range(SHARED))
    settings = RouteSettings(
        prefill_tokens_per_s=8000.0, cache_tokens=1_000_000, mirror_bytes=MIRROR_BYTES
    )
    affinity = Affinity(settings)
    affinity.shares = True
    candidates = [Candidate(f"10.0.{n // 256}.{n % 256}:8000") for n in range(backends)]
    now = 0.0
    # Each mirror is filled by name: what rule would fill it is not measured.
    most = MIRROR_BYTES // (STEP_BYTES * backends)
    for candidate in candidates:
        for _ in range(min(most, 1_000_000 // STEP_TOKENS) // (STEPS - SHARED) + 1):
            placement = affinity.place(
                Wish(prompt(dice, shared, None)), [candidate], now, dice.random()
            )
            ticket = affinity.sent(placement, candidate.name, now)
            affinity.begun(ticket, now)
            affinity.over(ticket, now)
            now += 1.0
    steps = sum(each["mirror_steps"] for each in affinity.told(now).values())
    taken: list[float] = []
    before: list[Trail] = []
    for number in range(rounds):
        now += 0.5
        goes_on = number % 2 == 1
        trail = prompt(dice, shared, before.pop() if goes_on else None)
        if not goes_on:
            before.append(trail)
        wish, luck = Wish(trail), dice.random()
        begin = time.perf_counter()
        placement = affinity.place(wish, candidates, now, luck)
        ticket = affinity.sent(placement, placement.order[0], now)
        taken.append((time.perf_counter() - begin) * 1e3)
        affinity.begun(ticket, now + 0.3)
        affinity.learn(ticket, trail.tokens, ticket.expected)
        affinity.over(ticket, now + 0.4)
    taken.sort()
    return Figures(backends, statistics.median(taken), taken[len(taken) * 99 // 100], steps)


def step_bytes() -> float:
    """What a step really takes in a full mirror, keys included."""
    dice = random.Random(2)
    most = 50_000
    tracemalloc.start()
    mirror = Mirror(0, most)
    before = tracemalloc.get_traced_memory()[0]
    for stamp in range(2 * most // STEPS):
        mirror.touch(prompt(dice, (), None), 0, stamp + 1)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return taken / len(mirror)


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=1000)
    rounds = arguments.parse_args().rounds
    print("| backends | median ms | p99 ms | goal ms | steps in mirrors |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for backends, goal in GOALS_MS.items():
        found = decisions(backends, rounds)
        print(
            f"| {backends} | {found.median_ms:.3f} | {found.p99_ms:.3f} | {goal} "
            f"| {found.mirror_steps} |"
        )
    print(f"\nA step takes {step_bytes():.0f} bytes; {STEP_BYTES} are reckoned.")


if __name__ == "__main__":
    main()

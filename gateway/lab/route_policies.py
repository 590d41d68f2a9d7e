"""How others choose a replica: what the gateway's own policy is measured beside.

Each is one router's: it knows what it sent itself, and forgets all when it begins anew. Where a rule
needs to know what replicas hold and how long their queues are, it is given the truth about its own
requests; so one router alone knows everything, and of several each knows its share.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, Protocol

import xxhash

from gateway.lab.engine_sim import BlockLru, EngineSim

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from gateway.lab.engine_sim import Prompt
    from gateway.lab.route_trace import Ask


@dataclass(frozen=True, slots=True)
class SimPool:
    """The replicas: all alike."""

    backends: int
    cache_tokens: int
    """Of each."""
    rate: float
    """Prompt tokens that each computes in a second."""

    def engines(self) -> list[EngineSim]:
        """That have computed nothing yet."""
        return [EngineSim(BlockLru(self.cache_tokens), self.rate) for _ in range(self.backends)]


class Asked(NamedTuple):
    """A request that is to be placed."""

    number: int
    """Counted over all gateways."""
    ask: Ask
    now: float


class Router(Protocol):
    """One gateway's choices."""

    def place(self, asked: Asked) -> int:
        """The replica that the request goes to, at once."""
        ...

    def begun(self, number: int, now: float) -> None:
        """Its first byte is there."""
        ...

    def over(self, number: int, cached: int, now: float) -> None:
        """Its last one is, and with it how many of its prompt's tokens had been cached."""
        ...


class _Untold:
    """A router that needs not be told how its requests go."""

    def begun(self, number: int, now: float) -> None:
        """Of no interest."""

    def over(self, number: int, cached: int, now: float) -> None:
        """Of no interest."""


class RoundRobin(_Untold):
    """One after the other."""

    def __init__(self, pool: SimPool, dice: random.Random) -> None:
        del dice
        self._backends = pool.backends
        self._turn = count()

    def place(self, asked: Asked) -> int:
        """Whose turn it is."""
        del asked
        return next(self._turn) % self._backends


class LeastPending(_Untold):
    """Where the fewest tokens wait to be computed."""

    def __init__(self, pool: SimPool, dice: random.Random) -> None:
        self._dice = dice
        self._sent = pool.engines()

    def place(self, asked: Asked) -> int:
        """The shortest queue; ties at random."""
        waits = [engine.wait(asked.now) for engine in self._sent]
        return _taken(self._sent, waits, asked, self._dice)


class Session(_Untold):
    """The rendezvous home of the conversation, whose name every request says."""

    def __init__(self, pool: SimPool, dice: random.Random) -> None:
        del dice
        self._backends = range(pool.backends)

    def place(self, asked: Asked) -> int:
        """Always the same."""
        name = f"{asked.ask.conversation}:"
        return max(self._backends, key=lambda b: xxhash.xxh3_64_intdigest(f"{name}{b}".encode()))


class SGLang:
    """SGLang's and SMG's `cache_aware`, of 2026: the deepest match in a tree of all that was ever
    sent, if it is long enough; else, or where requests in flight differ by too many, the fewest.
    """

    THRESHOLD = 0.3
    ABSOLUTE, RELATIVE = 32, 1.1
    """Of its structs; its command line's 64 and 1.5 change nothing in Mooncake's hour."""

    def __init__(self, pool: SimPool, dice: random.Random) -> None:
        self._dice = dice
        self._backends = range(pool.backends)
        self._in_flight = [0] * pool.backends
        self._at: dict[int, int] = {}
        self._tree: dict[int, dict[int, int]] = {}
        """By fingerprint: who was sent it, and by which request last."""

    def place(self, asked: Asked) -> int:
        """By the tree, or by load."""
        prompt = asked.ask.prompt
        chosen = self._chosen(prompt)
        for fingerprint in prompt.prints:
            self._tree.setdefault(fingerprint, {})[chosen] = asked.number
        self._in_flight[chosen] += 1
        self._at[asked.number] = chosen
        return chosen

    def _chosen(self, prompt: Prompt) -> int:
        most, fewest = max(self._in_flight), min(self._in_flight)
        if not (most - fewest > self.ABSOLUTE and most > self.RELATIVE * fewest):
            matched, holders = 0, {}
            for fingerprint, size in zip(prompt.prints, prompt.sizes, strict=True):
                found = self._tree.get(fingerprint)
                if found is None:
                    break
                matched, holders = matched + size, found
            if matched > self.THRESHOLD * prompt.tokens:
                # Of several, its tree gives the one that has not been asked for the longest time.
                return min(holders, key=holders.__getitem__)
        return min(self._backends, key=lambda b: (self._in_flight[b], self._dice.random()))

    def begun(self, number: int, now: float) -> None:
        """Still in flight."""

    def over(self, number: int, cached: int, now: float) -> None:
        """No longer."""
        del cached, now
        self._in_flight[self._at.pop(number)] -= 1


class LlmD(_Untold):
    """llm-d's "sticky until saturated", of August 2026: replicas that hold most of the prompt, unless
    all of them are too busy; among these the one that has the least to compute.
    """

    HELD = 0.8
    PENALTY_S = 18.0

    def __init__(self, pool: SimPool, dice: random.Random) -> None:
        self._dice = dice
        self._sent = pool.engines()

    def place(self, asked: Asked) -> int:
        """Filter, then the least cost; ties at random."""
        prompt = asked.ask.prompt
        waits = [engine.wait(asked.now) for engine in self._sent]
        held = [engine.cache.held(prompt) for engine in self._sent]
        costs = [
            wait + (prompt.tokens - there) / engine.rate
            for engine, wait, there in zip(self._sent, waits, held, strict=True)
        ]
        sticky = [b for b, there in enumerate(held) if there >= self.HELD * prompt.tokens]
        if sticky and min(waits[b] for b in sticky) - min(waits) <= self.PENALTY_S:
            costs = [cost if b in sticky else float("inf") for b, cost in enumerate(costs)]
        return _taken(self._sent, costs, asked, self._dice)


def _taken(
    sent: Sequence[EngineSim], costs: Sequence[float], asked: Asked, dice: random.Random
) -> int:
    chosen = min(range(len(sent)), key=lambda b: (costs[b], dice.random()))
    sent[chosen].take(asked.ask.prompt, asked.now)
    return chosen


BASELINES: dict[str, Callable[[SimPool, random.Random], Router]] = {
    "round_robin": RoundRobin,
    "least_pending": LeastPending,
    "session": Session,
    "sglang": SGLang,
    "llmd": LlmD,
}
"""By the names of the report."""

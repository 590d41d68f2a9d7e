"""A trace past a pool of simulated engines: how much of each prompt they held, and how long it took.

Every policy sees the same requests, each with engines of its own. Where a trace has no times, a fixed
number of conversations go on side by side, each of which thinks between an answer and its next
request; their thoughts are the same for every policy.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import count, groupby
from math import ceil
from statistics import median
from typing import TYPE_CHECKING, NamedTuple, assert_never

from gateway.lab.engine_sim import BlockLru, EngineSim
from gateway.lab.route_gateways import PrefixRouter, SimJournal, Store
from gateway.lab.route_policies import BASELINES, Asked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.lab.route_policies import Router, SimPool
    from gateway.lab.route_trace import Ask, RouteTrace

PREFIX = "prefix"
ROUTE_POLICIES = (PREFIX, *BASELINES)


@dataclass(frozen=True, slots=True)
class RouteOptions:
    """Of the gateways in front of the pool, and of the people in front of them."""

    gateways: int = 1
    """Each request goes to one of them at random."""
    restarts: int = 0
    """Evenly over the requests, one gateway after the other."""
    store: Store = Store.SQLITE
    """Where those of policy `prefix` keep what they placed; the others keep nothing."""
    seed: int = 1
    decode_s: float = 0.02
    """For each token of an answer."""
    concurrency: int = 64
    """Conversations at a time, where the trace has no times."""
    think_s: float = 15.0
    """Between an answer and the next request, on average, where it has none."""


class Routed(NamedTuple):
    """What one policy came to."""

    hit: float
    """Percent of the prompts' tokens that were cached."""
    imbalance: float
    """Of tokens computed: the most of one engine, over the mean."""
    ttft_p50_s: float
    ttft_p90_s: float
    moves: int
    """Requests that went elsewhere than the one before in their conversation."""


@dataclass(slots=True)
class RouteOutcome:
    """What came of one trace."""

    trace: str
    requests: int
    input_tokens: int
    ideal_hit: float
    """Percent, of one cache that never forgets."""
    shared_lru_hit: float
    """Percent, of one cache as large as all of them together."""
    policies: dict[str, Routed] = field(default_factory=dict)
    setting: str = ""
    """For people."""
    notes: Sequence[str] = ()


def replay_routes(
    trace: RouteTrace, pool: SimPool, policies: Sequence[str], options: RouteOptions
) -> RouteOutcome:
    """Run all requests of a trace past each policy. Raises KeyError for one not among
    ROUTE_POLICIES.
    """
    whole = BlockLru(pool.cache_tokens * pool.backends)
    one_cache = [EngineSim(whole, pool.rate) for _ in range(pool.backends)]
    alone = RouteOptions(
        seed=options.seed,
        decode_s=options.decode_s,
        concurrency=options.concurrency,
        think_s=options.think_s,
    )
    ideal = _Run(trace, one_cache, _Gateways("least_pending", pool, alone), alone).run()
    outcome = RouteOutcome(
        trace.name,
        len(trace.asks),
        sum(ask.prompt.tokens for ask in trace.asks),
        ideal_hit(trace.asks),
        ideal.hit,
        setting=_setting(pool, options, is_timed=trace.is_timed),
        notes=trace.notes,
    )
    for name in policies:
        gateways = _Gateways(name, pool, options)
        outcome.policies[name] = _Run(trace, pool.engines(), gateways, options).run()
    return outcome


def ideal_hit(asks: Sequence[Ask]) -> float:
    """Percent that one cache that never forgets would hold, whatever the order."""
    first: dict[int, int] = {}
    for ask in asks:
        first.update(zip(ask.prompt.prints, ask.prompt.sizes, strict=True))
    total = sum(ask.prompt.tokens for ask in asks)
    return 100 * (1 - sum(first.values()) / total) if total else 0.0


def _setting(pool: SimPool, options: RouteOptions, *, is_timed: bool) -> str:
    parts = [
        f"{pool.backends} engines with a cache of {pool.cache_tokens:,} tokens each",
        f"{pool.rate:,g} prompt tokens/s",
        f"{options.gateways} gateway{'s' if options.gateways > 1 else ''}",
    ]
    if options.gateways > 1 or options.restarts:
        parts.append(f"store {options.store}")
    if options.restarts:
        parts.append(f"{options.restarts} restarts")
    if not is_timed:
        parts.append(f"{options.concurrency} conversations at a time")
    return ", ".join(parts)


class _Gateways:
    """Those of one policy, and which of them has which request."""

    def __init__(self, policy: str, pool: SimPool, options: RouteOptions) -> None:
        self._choice = _dice(options.seed, "gateways")
        self._ties = _dice(options.seed, "ties")
        self._pool = pool
        self._baseline = None if policy == PREFIX else BASELINES[policy]
        self._journal = SimJournal(options.store)
        self._routers = [self._begun_anew(gateway, 0.0) for gateway in range(options.gateways)]
        self._has: dict[int, Router] = {}
        self._restarted = 0

    def place(self, asked: Asked) -> int:
        """The replica that the request goes to."""
        router = self._routers[0]
        if len(self._routers) > 1:
            router = self._choice.choice(self._routers)
        self._has[asked.number] = router
        return router.place(asked)

    def begun(self, number: int, now: float) -> None:
        """See `Router`."""
        self._has[number].begun(number, now)

    def over(self, number: int, cached: int, now: float) -> None:
        """See `Router`."""
        self._has.pop(number).over(number, cached, now)

    def restart(self, now: float) -> None:
        """The next of them: what it has under way, the old one sees to the end."""
        gateway = self._restarted % len(self._routers)
        self._restarted += 1
        self._routers[gateway] = self._begun_anew(gateway, now)

    def _begun_anew(self, gateway: int, now: float) -> Router:
        if self._baseline is not None:
            return self._baseline(self._pool, self._ties)
        return PrefixRouter(self._pool, self._ties, gateway, self._journal, now)


class _Kind(IntEnum):
    """Of what happens: what comes first at one time."""

    BEGUN = 0
    OVER = 1
    ASKED = 2


class _Due(NamedTuple):
    """What happens at a time."""

    when: float
    kind: _Kind
    order: int
    ask: Ask
    number: int = -1
    """Of the request, once it was asked."""
    cached: int = 0


class _Run:
    """One policy's traffic."""

    def __init__(
        self,
        trace: RouteTrace,
        engines: Sequence[EngineSim],
        gateways: _Gateways,
        options: RouteOptions,
    ) -> None:
        self._engines = engines
        self._gateways = gateways
        self._options = options
        self._people = None if trace.is_timed else _People(trace.asks, options)
        self._between_restarts = len(trace.asks) / (options.restarts + 1)
        self._restarts_left = options.restarts
        self._due: list[_Due] = []
        self._order = count()
        self._waits: list[float] = []
        self._cached = self._tokens = self._moves = 0
        self._went: dict[int, int] = {}
        """By conversation: where its last request went."""
        firsts = self._people.first() if self._people else ((ask.at, ask) for ask in trace.asks)
        for at, ask in firsts:
            self._at(at, _Kind.ASKED, ask)

    def _at(self, when: float, kind: _Kind, ask: Ask, number: int = -1, cached: int = 0) -> None:
        heapq.heappush(self._due, _Due(when, kind, next(self._order), ask, number, cached))

    def run(self) -> Routed:
        """From the first request to the last answer."""
        while self._due:
            due = heapq.heappop(self._due)
            match due.kind:
                case _Kind.ASKED:
                    self._ask(due.ask, due.when)
                case _Kind.BEGUN:
                    self._gateways.begun(due.number, due.when)
                case _Kind.OVER:
                    self._gateways.over(due.number, due.cached, due.when)
                    following = self._people and self._people.next(due.ask, due.when)
                    if following:
                        self._at(following[0], _Kind.ASKED, following[1])
                case _:
                    assert_never(due.kind)
        computed = [engine.computed for engine in self._engines]
        mean = sum(computed) / len(computed)
        waits = sorted(self._waits)
        return Routed(
            100 * self._cached / self._tokens if self._tokens else 0.0,
            max(computed) / mean if mean else 1.0,
            median(waits),
            # (The least that nine of ten don't exceed.)
            waits[ceil(0.9 * len(waits)) - 1],
            self._moves,
        )

    def _ask(self, ask: Ask, now: float) -> None:
        number = len(self._waits)
        restarts_due = number >= self._between_restarts * (
            self._options.restarts - self._restarts_left + 1
        )
        if self._restarts_left and restarts_due:
            self._restarts_left -= 1
            self._gateways.restart(now)
        chosen = self._gateways.place(Asked(number, ask, now))
        taken = self._engines[chosen].take(ask.prompt, now)
        self._cached += taken.cached
        self._tokens += ask.prompt.tokens
        self._waits.append(taken.begins_at - now)
        self._moves += self._went.get(ask.conversation, chosen) != chosen
        self._went[ask.conversation] = chosen
        over_at = taken.begins_at + ask.answer_tokens * self._options.decode_s
        self._at(taken.begins_at, _Kind.BEGUN, ask, number)
        self._at(over_at, _Kind.OVER, ask, number, taken.cached)


class _People:
    """Those who ask, where a trace says only what."""

    def __init__(self, asks: Sequence[Ask], options: RouteOptions) -> None:
        self._options = options
        # (Reversed, to be taken from the end.)
        talks = [list(talk)[::-1] for _, talk in groupby(asks, key=lambda ask: ask.conversation)]
        _dice(options.seed, "order").shuffle(talks)
        self._talks = {talk[-1].conversation: talk for talk in talks}
        self._waiting = deque(self._talks)
        self._thoughts = {name: _dice(options.seed, f"thoughts {name}") for name in self._talks}

    def first(self) -> list[tuple[float, Ask]]:
        """The first requests of as many conversations as go on at a time."""
        begun = [self._waiting.popleft() for _ in range(self._options.concurrency) if self._waiting]
        return [self._said(name, 0.0) for name in begun]

    def next(self, ask: Ask, now: float) -> tuple[float, Ask] | None:
        """What follows an answer: the conversation's next request, or another one's first."""
        if self._talks[ask.conversation]:
            return self._said(ask.conversation, now)
        return self._said(self._waiting.popleft(), now) if self._waiting else None

    def _said(self, name: int, now: float) -> tuple[float, Ask]:
        thought = self._thoughts[name].expovariate(1 / self._options.think_s)
        return now + thought, self._talks[name].pop()


def _dice(seed: int, purpose: str) -> random.Random:
    return random.Random(f"{seed}: {purpose}")  # noqa: S311 - to be repeated, not to hide

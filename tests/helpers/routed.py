"""A pool in miniature: prompts by their words, and an `Affinity` whose replicas answer at once."""

from __future__ import annotations

import xxhash

from gateway.core.affinity import Affinity
from gateway.core.route import Candidate, Placement, RoutePolicy, RouteSettings, RouteTicket, Wish
from gateway.core.trail import Trail

STEP = 1000
"""Tokens of a step, where nothing else is said."""
RATE = 1000.0
"""Tokens per second: a step is a second."""


def trail(words: str, *, size: int = STEP, is_open: bool = False) -> Trail:
    """A prompt that has a step for each word."""
    prints: list[int] = []
    for word in words.split():
        before = (prints[-1] if prints else 0).to_bytes(8, "little")
        prints.append(xxhash.xxh3_64_intdigest(before + word.encode()))
    ends = tuple(range(size, size * (len(prints) + 1), size))
    return Trail(tuple(prints), ends, is_open)


class Pool:
    """One gateway's view of replicas b0, b1, ...; `now` is its clock."""

    def __init__(
        self,
        replicas: int = 4,
        *,
        policy: RoutePolicy = RoutePolicy.PREFIX,
        shares: bool = True,
        cache_tokens: int = 1_000_000,
        break_s: float = 10.0,
        keep_factor: float = 7.0,
        mirror_bytes: int = 1 << 26,
    ) -> None:
        self.affinity = Affinity(
            RouteSettings(
                policy=policy,
                break_s=break_s,
                keep_factor=keep_factor,
                cache_tokens=cache_tokens,
                prefill_tokens_per_s=RATE,
                mirror_bytes=mirror_bytes,
            )
        )
        self.affinity.shares = shares
        self.names = [f"b{index}" for index in range(replicas)]
        for name in self.names:
            self.affinity.joined(name)
        self.now = 0.0

    def place(
        self,
        words: str | Trail,
        *,
        session: int = 0,
        among: list[str] | None = None,
        dice: float = 0.0,
        **in_flight: int,
    ) -> Placement:
        """Decide, and send nothing."""
        prompt = trail(words) if isinstance(words, str) else words
        names = self.names if among is None else among
        candidates = [Candidate(name, 1.0, in_flight.get(name, 0)) for name in names]
        return self.affinity.place(Wish(prompt, session), candidates, self.now, dice)

    def send(
        self,
        words: str | Trail,
        *,
        session: int = 0,
        among: list[str] | None = None,
        dice: float = 0.0,
    ) -> RouteTicket:
        """Decide, and send it there; it waits."""
        placement = self.place(words, session=session, among=among, dice=dice)
        return self.affinity.sent(placement, placement.order[0], self.now)

    def ask(
        self,
        words: str | Trail,
        *,
        session: int = 0,
        among: list[str] | None = None,
        dice: float = 0.0,
        then_s: float = 0.0,
    ) -> RouteTicket:
        """Decide, send it, and let it be answered as fast as the replica can."""
        ticket = self.send(words, session=session, among=among, dice=dice)
        self.answer(ticket)
        self.now += then_s
        return ticket

    def answer(self, ticket: RouteTicket, cached: int | None = None) -> None:
        """The answer comes, and tells what was cached: as thought, unless said otherwise."""
        self.now += ticket.uncached / RATE
        self.affinity.begun(ticket, self.now)
        told = ticket.expected if cached is None else cached
        self.affinity.learn(ticket, ticket.placement.wish.trail.tokens, told)
        self.affinity.over(ticket, self.now)

    def held(self, name: str) -> int:
        """Tokens that the replica is thought to hold."""
        tokens: int = self.affinity.told(self.now)[name]["mirror_tokens"]
        return tokens

"""The gateway's own choices: `core.affinity` as it runs in service, in one gateway or several, with
what they tell each other through a store, and what they know again after a restart.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.affinity import Affinity
from gateway.core.route import Candidate, RouteSettings, Wish
from gateway.core.route_records import RecordKind, RouteRecord, decode, encode
from gateway.core.trail import Trail

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from gateway.core.route import RouteTicket
    from gateway.lab.route_policies import Asked, SimPool


class Store(StrEnum):
    """Where gateways keep what they placed."""

    REDIS = "redis"
    """All gateways hear it, a little later; it survives."""
    SQLITE = "sqlite"
    """Each has a file of its own, which survives."""
    MEMORY = "memory"
    """Nobody hears it, and it is lost."""


LAG_S = 0.02
"""Until others have heard it through Redis."""
HISTORY_RECORDS = 20_000
HISTORY_S = 3600.0
"""What a gateway that begins anew reads of it, at most; of its own file, of any age."""


_NO_TRAIL = Trail()


class _Told(NamedTuple):
    """A record, when it was told, and by which gateway."""

    at: float
    gateway: int
    record: RouteRecord


class SimJournal:
    """What gateways tell, and who hears it when."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._told: deque[_Told] = deque(maxlen=HISTORY_RECORDS)
        self._on_the_way: deque[_Told] = deque()
        self._live: dict[int, PrefixRouter] = {}
        self._processes = count(1)

    @property
    def shares(self) -> bool:
        """Whether each gateway hears of all placements."""
        return self.store is Store.REDIS

    def joined(self, gateway: int, router: PrefixRouter) -> int:
        """It hears what is told from now on, in the place of its predecessor. Returns its number,
        which no other process has.
        """
        self._live[gateway] = router
        return next(self._processes)

    def tell(self, gateway: int, record: RouteRecord, now: float) -> None:
        """As bytes, the way it goes in service."""
        if self.store is Store.MEMORY:
            return
        read = decode(encode(record))
        assert read is not None
        told = _Told(now, gateway, read)
        self._told.append(told)
        if self.shares:
            self._on_the_way.append(told)

    def pass_time(self, now: float) -> None:
        """Let those hear what has arrived by now."""
        while self._on_the_way and self._on_the_way[0].at + LAG_S <= now:
            told = self._on_the_way.popleft()
            for router in self._live.values():
                if router.process != told.record.gateway and router.began_at <= told.at + LAG_S:
                    router.hear(told.record, told.at + LAG_S, LAG_S)

    def known(self, gateway: int, now: float) -> Iterator[_Told]:
        """What a gateway that begins anew reads."""
        for told in self._told:
            if self.shares:
                if now - HISTORY_S <= told.at < now - LAG_S:
                    yield told
            elif told.gateway == gateway:
                yield told


class PrefixRouter:
    """One gateway's policy `prefix`, with default settings, as an engine's own figures set it up."""

    def __init__(
        self,
        pool: SimPool,
        dice: random.Random,
        gateway: int,
        journal: SimJournal,
        now: float,
        *,
        settings: RouteSettings | None = None,
    ) -> None:
        self.affinity = Affinity(settings or RouteSettings())
        self._dice = dice
        self._gateway = gateway
        self._journal = journal
        self.process = journal.joined(gateway, self)
        self.began_at = now
        self._in_flight = {f"engine-{number}": 0 for number in range(pool.backends)}
        self._numbers = {name: number for number, name in enumerate(self._in_flight)}
        self._tickets: dict[int, tuple[RouteTicket, int]] = {}
        for name in self._in_flight:
            self.affinity.joined(name, cache_tokens=pool.cache_tokens)
        self.affinity.shares = journal.shares
        for told in journal.known(gateway, now):
            self.affinity.heard(told.record, now, now - told.at)

    def place(self, asked: Asked) -> int:
        """Where the serving code would send it."""
        number, ask, now = asked
        self._journal.pass_time(now)
        candidates = [
            Candidate(name, in_flight=in_flight) for name, in_flight in self._in_flight.items()
        ]
        placement = self.affinity.place(Wish(ask.trail), candidates, now, self._dice.random())
        name = placement.order[0]
        ticket = self.affinity.sent(placement, name, now)
        self._in_flight[name] += 1
        self._tickets[number] = ticket, ask.prompt.tokens
        self._tell(RecordKind.PLACED, number, ticket, now, ask.trail)
        return self._numbers[name]

    def begun(self, number: int, now: float) -> None:
        """Its first byte is there."""
        ticket, _ = self._tickets[number]
        self.affinity.begun(ticket, now)
        self._tell(RecordKind.BEGUN, number, ticket, now)

    def over(self, number: int, cached: int, now: float) -> None:
        """Its last byte is there, and with it the engine's own count."""
        ticket, tokens = self._tickets.pop(number)
        self._in_flight[ticket.backend] -= 1
        self.affinity.learn(ticket, tokens, cached)
        self.affinity.over(ticket, now)
        self._tell(RecordKind.OVER, number, ticket, now)

    def hear(self, record: RouteRecord, now: float, age_s: float) -> None:
        """What another gateway placed, so long ago."""
        self.affinity.heard(record, now, age_s)

    def _tell(
        self,
        kind: RecordKind,
        number: int,
        ticket: RouteTicket,
        now: float,
        trail: Trail = _NO_TRAIL,
    ) -> None:
        record = RouteRecord(
            kind, self.process, number, ticket.backend, now, trail, uncached=ticket.uncached
        )
        self._journal.tell(self._gateway, record, now)

"""The replicas of one pool as one gateway sees them: `Fleet`. Bounded in number and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.backlog import Patience
from gateway.core.mirror import STEP_BYTES
from gateway.core.route_replica import Replica, Scale

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.core.route import RouteSettings, RouteTicket
    from gateway.core.trail import Trail

USUAL_RATE = 4000.0
"""Tokens per second of a replica of weight 1, while nothing is known."""

MOST_REPLICAS = 4096
_FEWEST_STEPS = 64
"""Of a mirror, however many replicas share the budget."""
_LEAST_WEIGHT = 1e-6
AWAY_S = 5.0
"""Who could not be asked for so long, while others were, was away."""


class Fleet:
    """Replicas by name. `clock` rises with every request that any of them is sent."""

    def __init__(self, settings: RouteSettings) -> None:
        self._settings = settings
        self._replicas: dict[str, Replica] = {}
        self._rate = 0.0
        """Of a replica of weight 1, from those that were observed; 0: none was."""
        self._met_at = float("-inf")
        self.patience = Patience()
        self.scale = Scale()
        self.clock = 0

    def __len__(self) -> int:
        """How many there are."""
        return len(self._replicas)

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._replicas.values())

    def changed(self, settings: RouteSettings) -> None:
        """Other settings hold. How much a replica's cache holds, its engine mostly tells; where it
        doesn't, that of who is there already stays what it was.
        """
        self._settings = settings
        self._share_out()

    def get(self, name: str) -> Replica | None:
        """The replica of this name."""
        return self._replicas.get(name)

    def needed(self, name: str) -> Replica:
        """The replica of this name, added where there is none."""
        replica = self._replicas.get(name)
        if replica is not None:
            return replica
        if len(self._replicas) >= MOST_REPLICAS:
            self.remove(next(iter(self._replicas)))
        replica = Replica(name, self._settings.cache_tokens, 0, _FEWEST_STEPS)
        replica.born = self.clock
        replica.rescaled(self.scale.ratio)
        self._replicas[name] = replica
        self._share_out()
        return replica

    def meet(self, replicas: Sequence[Replica], now: float) -> None:
        """These may be asked now. Who is new, or could not be asked for a while, counts as sent as much
        as the others: it would be sent all that is new, until it has caught up.
        """
        since = self._met_at - AWAY_S
        away = [replica for replica in replicas if replica.met_at < since]
        if away and len(away) < len(replicas):
            there = [replica for replica in replicas if replica.met_at >= since]
            weight = sum(max(each.weight, _LEAST_WEIGHT) for each in there)
            turns = sum(each.turns_lately(now) for each in there) / weight
            work = sum(each.work_lately(now) for each in there) / weight
            for each in away:
                each.level(turns * each.weight, work * each.weight, now)
        for replica in replicas:
            replica.met_at = now
        self._met_at = now

    def size(self, name: str, cache_tokens: int, slots: int) -> None:
        """The replica is there, with a cache of so many tokens (the engine's), or so many slots."""
        self.needed(name).sized(cache_tokens, slots, self.scale.ratio)

    def empty(self, name: str) -> None:
        """The replica began anew."""
        replica = self._replicas.get(name)
        if replica is not None:
            replica.emptied(self.clock)

    def remove(self, name: str) -> None:
        """The replica is gone."""
        replica = self._replicas.pop(name, None)
        if replica is not None:
            replica.emptied(self.clock)
            replica.gone = True
            self._share_out()

    def _share_out(self) -> None:
        """Each mirror has the same share of the budget."""
        share = self._settings.mirror_bytes // (STEP_BYTES * max(1, len(self._replicas)))
        for replica in self._replicas.values():
            replica.mirror.most_steps = max(_FEWEST_STEPS, share)
            replica.mirror.fit()

    # How fast they are

    @property
    def prior(self) -> float:
        """Tokens per second that are expected of a replica of weight 1."""
        return self._rate or self._settings.prefill_tokens_per_s or USUAL_RATE

    def rate_of(self, replica: Replica) -> float:
        """Tokens per second: observed, or by its weight."""
        return replica.pace.among(self.prior * max(replica.weight, _LEAST_WEIGHT))

    def prefill_s(self, name: str, tokens: int) -> float | None:
        """How long the replica would compute so many of the engine's tokens, unless that would be a
        guess.
        """
        replica = self._replicas.get(name)
        if replica is None or not (self._rate or self._settings.prefill_tokens_per_s):
            return None
        return tokens / self.scale.ratio / self.rate_of(replica)

    def timed(self, replica: Replica, ticket: RouteTicket) -> None:
        """A request is over that found nothing in front of it: how long it took is known."""
        if ticket.began_at is None:
            return
        weight = max(replica.weight, _LEAST_WEIGHT)
        took = ticket.began_at - ticket.sent_at
        replica.pace.saw(ticket.uncached, took, self.prior * weight, is_sure=replica.reports)
        if replica.pace.rate:
            rate = replica.pace.rate / weight
            self._rate += 0.1 * (rate - self._rate) if self._rate else rate

    # What they are sent

    def begins(self, replica: Replica, trail: Trail, depth: int, slot: int | None) -> int:
        """It is sent a prompt of which it holds `depth` steps. Returns the request's stamp."""
        self.clock += 1
        replica.takes(trail, depth, self.clock, slot)
        return self.clock

    def told(self, now: float) -> dict[str, dict[str, Any]]:
        """What is known of each, by name."""
        return {
            name: {
                "mirror_tokens": replica.mirror.tokens,
                "mirror_steps": len(replica.mirror),
                "capacity_tokens": replica.capacity,
                "pending_s": replica.backlog.wait(now, self.patience.seconds),
                "rate": replica.pace.rate,
                "expected_tokens": replica.expected,
                "reported_tokens": replica.reported,
            }
            for name, replica in self._replicas.items()
        }

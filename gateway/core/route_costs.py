"""What a request would cost at each replica, in seconds: `Costs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.core.route_policies import weight_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.route import Candidate
    from gateway.core.route_fleet import Fleet
    from gateway.core.route_replica import Replica
    from gateway.core.trail import Trail

TIE_S = 0.01
"""Costs that differ by less are the same."""
TIE_SHARE = 0.1
"""So are those that differ by less than this part of the time that the cheapest would compute: so far
rates differ by noise. Else whoever was timed best would get all that is new while nobody is busy."""
TURNS = 0.4
"""What a conversation that is going on will still want, as a part of what it wanted lately: who has many
of them has a load that no queue shows yet. (Of recorded traffic: none leaves conversations unevenly
spread, all of it the tokens that are computed.)"""
CROWD = 1.5
"""Who has so many times the mean number of requests in flight, and two more, comes last among those that
cost the same: answers that are being written take time, too, which costs don't know."""
COPY = 2.0
"""What everybody shares is copied to a replica that lacks it once that evens out twice as much work:
who is the first to ask for it there waits for it, and what it takes the place of is lost."""


class Costs(NamedTuple):
    """Of the candidates, in their order; never empty."""

    candidates: Sequence[Candidate]
    replicas: list[Replica]
    depths: list[int]
    """Steps that each holds."""
    waits: list[float]
    """Seconds until it would be taken up."""
    lacks: list[float]
    """Seconds to compute what isn't held there. What everybody shares counts as held."""
    costs: list[float]
    """Both together."""

    def index_of(self, replica: Replica) -> int | None:
        """Which candidate this replica is, if it is one."""
        return next((i for i, each in enumerate(self.replicas) if each is replica), None)

    def holder(self, head: int) -> int | None:
        """Who holds most steps, if that is more than everybody shares; of several the cheapest."""
        deepest = max(self.depths)
        if deepest <= head:
            return None
        holders = [index for index, depth in enumerate(self.depths) if depth == deepest]
        return min(holders, key=self.costs.__getitem__)

    def roomiest(self, trail: Trail) -> list[int]:
        """Those that can take the prompt without losing another one; if none can, those that lose what
        was unused for longest, as far as that is known.
        """
        loses = [
            replica.mirror.loses(trail, depth)
            for replica, depth in zip(self.replicas, self.depths, strict=True)
        ]
        least = min(loses)
        return [index for index, lost in enumerate(loses) if lost == least]

    def order(self, first: int) -> tuple[str, ...]:
        """Names of all candidates: that one, then the cheapest first."""
        rest = sorted(range(len(self.costs)), key=self.costs.__getitem__)
        rest.remove(first)
        candidates = self.candidates
        return (candidates[first].name, *[candidates[each].name for each in rest])

    def cheapest(self, trail: Trail, head: int, now: float, dice: float) -> int:
        """Where the request costs least; of those that cost the same, who was given least to compute
        lately for its weight, with what it really lacks of the shared steps, and with what its
        conversations are likely to want; but who has a crowd in flight comes last. Then the least
        in flight, then at random. Without weight
        is chosen who is alone so.
        """
        candidates, costs = self.candidates, self.costs
        count = len(costs)
        able = [i for i in range(count) if candidates[i].weight > 0.0] or list(range(count))
        least = min(able, key=costs.__getitem__)
        most = costs[least] + TIE_S + TIE_SHARE * self.lacks[least]
        tied = [index for index in able if costs[index] <= most]
        # (Nobody, where costs are beyond what numbers can say.)
        if len(tied) <= 1:
            return least
        shift = int(dice * count)
        shared = trail.until(head)
        turns = [replica.turns_lately(now) for replica in self.replicas]
        work = [replica.work_lately(now) for replica in self.replicas]
        each = sum(work) / max(sum(turns), 1.0)
        flying = [candidate.in_flight / weight_of(candidate) for candidate in candidates]
        crowd = 2.0 + CROWD * sum(flying) / count

        def key(index: int) -> tuple[bool, float, float, int]:
            lacks = shared - trail.until(min(head, self.depths[index]))
            weight = weight_of(candidates[index])
            return (
                flying[index] > crowd,
                (work[index] + TURNS * each * turns[index] + COPY * lacks) / weight,
                flying[index],
                (index - shift) % count,
            )

        return min(tied, key=key)


def reckon(
    trail: Trail, head: int, candidates: Sequence[Candidate], fleet: Fleet, now: float
) -> Costs:
    """What this prompt costs at each, its first `head` steps counting as held everywhere."""
    prints = trail.prints
    until = (0, *trail.ends)
    total = until[-1]
    prior, patience = fleet.prior, fleet.patience.seconds
    replicas: list[Replica] = []
    depths: list[int] = []
    waits: list[float] = []
    lacks: list[float] = []
    costs: list[float] = []
    depth = 0
    for candidate in candidates:
        replica = fleet.needed(candidate.name)
        replica.weight = candidate.weight
        depth = replica.mirror.look(prints, depth)
        rate = replica.pace.among(prior * weight_of(candidate))
        lack = (total - until[max(head, depth)]) / rate
        wait = replica.backlog.wait(now, patience)
        replicas.append(replica)
        depths.append(depth)
        waits.append(wait)
        lacks.append(lack)
        costs.append(wait + lack)
    fleet.meet(replicas, now)
    return Costs(candidates, replicas, depths, waits, lacks, costs)

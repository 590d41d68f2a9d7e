"""Which replica a request should go to: `Affinity`, for one pool in one gateway.

Rule 1, home: where the conversation lives that the request names; else where the one lives that its
prompt goes on from; else who holds most of it beyond what everybody shares; else none.
Rule 2, cost: seconds that the request would wait there, and seconds to compute what isn't held
there. What everybody shares counts as held everywhere.
Rule 3: who has a home leaves it only where that saves more seconds than `break_s`, or than
`keep_factor` times the seconds of computing that the move costs; then it lives where it went.
Rule 4: who has none goes where it is cheapest, as long as nobody places what we don't hear of; else
to its rendezvous home, unless that costs `new_break_s` more than the cheapest.
Rule 5: nothing here can fail a request, and nothing grows without bound.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never

from gateway.core.homes import RETURN_S, Home, Homes
from gateway.core.mirror import STEP_BYTES
from gateway.core.rendezvous import home_of
from gateway.core.route import Branch, Placement, RoutePolicy, RouteTicket
from gateway.core.route_policies import by_turn, least_pending, weight_of
from gateway.core.route_records import RecordKind
from gateway.core.route_replica import Replica, Scale, slack
from gateway.core.shared_head import SharedHead
from gateway.core.slot_mirror import SlotMirror
from gateway.core.strangers import Strangers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.route import Candidate, RouteSettings, Wish
    from gateway.core.route_records import RouteRecord
    from gateway.core.shared_head import Hot
    from gateway.core.trail import Trail

TIE_S = 0.01
"""Costs that differ by less are the same."""

USUAL_RATE = 4000.0
"""Tokens per second of a replica of weight 1, while nothing is known."""

FOREIGN_S = 120.0
"""What another gateway placed counts as waiting for so long at most."""
MOST_FOREIGN = 1 << 15
MOST_REPLICAS = 4096

_FEWEST_STEPS = 64
"""Of a mirror, however many replicas share the budget."""


class _Foreign(NamedTuple):
    """A request that another gateway sent."""

    replica: Replica
    stamp: int
    at: float
    trail: Trail


class _Costs(NamedTuple):
    """What the candidates would cost, in their order."""

    replicas: list[Replica]
    depths: list[int]
    """Steps that each holds."""
    lacks: list[float]
    """Seconds to compute what it doesn't hold."""
    costs: list[float]
    """And to wait."""


class Affinity:
    """Places one pool's requests. Times (`now`) are seconds of any one clock that never goes
    back; `dice` is uniform in 0..1."""

    def __init__(self, settings: RouteSettings) -> None:
        self.settings = settings
        self.shares = False
        """Other gateways' placements are heard, or there are none."""
        self._replicas: dict[str, Replica] = {}
        self._homes: Homes[Replica] = Homes()
        self._head = SharedHead()
        self._strangers = Strangers()
        self._scale = Scale()
        self._clock = 0
        self._now = 0.0
        self._rate = 0.0
        """Of a replica of weight 1, from those that were observed; 0: none was."""
        self._foreign: OrderedDict[tuple[int, int], _Foreign] = OrderedDict()

    # Who is there

    def joined(self, name: str, *, cache_tokens: int = 0, slots: int = 0) -> None:
        """The replica is there, or its size became known: tokens of its prefix cache, as the engine
        counts; or slots that hold one prompt each."""
        replica = self._replicas.get(name)
        if replica is None:
            replica = self._add(name)
        replica.sized(cache_tokens, slots, self._scale.ratio)

    def emptied(self, name: str) -> None:
        """It began anew: its cache is empty, and what it was sent is lost."""
        replica = self._replicas.get(name)
        if replica is not None:
            replica.emptied(self._clock)

    def left(self, name: str) -> None:
        """It is gone for good: nothing of it stays."""
        replica = self._replicas.pop(name, None)
        if replica is not None:
            replica.emptied(self._clock)
            replica.gone = True
            self._share_out()

    def _add(self, name: str) -> Replica:
        if len(self._replicas) >= MOST_REPLICAS:
            self.left(next(iter(self._replicas)))
        replica = Replica(name, self.settings.cache_tokens, 0, _FEWEST_STEPS)
        replica.born = self._clock
        replica.rescaled(self._scale.ratio)
        self._replicas[name] = replica
        self._share_out()
        return replica

    def _share_out(self) -> None:
        """Each mirror has the same share of the budget."""
        share = self.settings.mirror_bytes // (STEP_BYTES * max(1, len(self._replicas)))
        for replica in self._replicas.values():
            replica.mirror.most_steps = max(_FEWEST_STEPS, share)
            replica.mirror.fit()

    def _rate_of(self, replica: Replica) -> float:
        return replica.pace.rate or self._prior() * max(replica.weight, 1e-6)

    def _prior(self) -> float:
        return self._rate or self.settings.prefill_tokens_per_s or USUAL_RATE

    # Deciding

    def place(
        self, wish: Wish, candidates: Sequence[Candidate], now: float, dice: float
    ) -> Placement:
        """Where the request should go: all candidates, the best first. Changes nothing but the
        counts of what is shared, and whose turn it is."""
        self._now = now
        trail = wish.trail
        self._head.note(trail, is_known=self._homes.named(wish.session) is not None)
        head = self._head.depth(trail.prints, len(self._replicas) or len(candidates))
        if not candidates:
            return Placement((), Branch.SPREAD, wish, head)
        found = self._costs(trail, head, candidates, now)
        match self.settings.policy:
            case RoutePolicy.PREFIX:
                index, branch = self._by_prefix(wish, head, candidates, found, now, dice)
            case RoutePolicy.SESSION:
                index, branch = self._by_session(wish, head, candidates, found)
            case RoutePolicy.ROUND_ROBIN:
                index, branch = by_turn(candidates, found.replicas), Branch.SPREAD
            case RoutePolicy.LEAST_PENDING:
                index = least_pending(candidates, found.replicas, now, dice)
                branch = Branch.SPREAD
            case RoutePolicy.DELEGATE:
                names = tuple([each.name for each in candidates])
                return Placement(names, Branch.SPREAD, wish, head, found.depths[0])
            case _:
                assert_never(self.settings.policy)
        return self._placement(wish, head, index, branch, candidates, found)

    def _placement(
        self,
        wish: Wish,
        head: int,
        index: int,
        branch: Branch,
        candidates: Sequence[Candidate],
        found: _Costs,
    ) -> Placement:
        costs = found.costs
        order = sorted(range(len(costs)), key=costs.__getitem__)
        order.remove(index)
        names = (candidates[index].name, *[candidates[each].name for each in order])
        slot = found.replicas[index].mirror.slot_for(wish.trail.prints)
        return Placement(names, branch, wish, head, found.depths[index], slot)

    def _costs(
        self, trail: Trail, head: int, candidates: Sequence[Candidate], now: float
    ) -> _Costs:
        prints = trail.prints
        until = (0, *trail.ends)
        total = until[-1]
        prior = self._prior()
        known = self._replicas
        replicas: list[Replica] = []
        depths: list[int] = []
        lacks: list[float] = []
        costs: list[float] = []
        depth = 0
        for candidate in candidates:
            replica = known.get(candidate.name)
            if replica is None:
                replica = self._add(candidate.name)
            replica.weight = candidate.weight
            depth = replica.mirror.look(prints, depth)
            rate = replica.pace.rate or prior * max(candidate.weight, 1e-6)
            lack = (total - until[depth if depth > head else head]) / rate
            replicas.append(replica)
            depths.append(depth)
            lacks.append(lack)
            costs.append(replica.backlog.wait(now) + candidate.extra_s + lack)
        return _Costs(replicas, depths, lacks, costs)

    def _by_prefix(
        self,
        wish: Wish,
        head: int,
        candidates: Sequence[Candidate],
        found: _Costs,
        now: float,
        dice: float,
    ) -> tuple[int, Branch]:
        costs, lacks = found.costs, found.lacks
        best = self._cheapest(wish.trail, head, candidates, found, now, dice)
        home, branch = self._home(wish, head, found, now)
        if home is not None:
            lost = max(0.0, lacks[best] - lacks[home])
            limit = min(self.settings.break_s, self.settings.keep_factor * lost)
            if costs[home] - costs[best] <= max(limit, TIE_S):
                return home, branch
            return best, Branch.MOVED_LOAD
        if branch is not Branch.NEW:
            return best, branch
        if self.shares or self._strangers.unlikely:
            return best, branch
        index = home_of(_key_of(wish, head), candidates)
        if costs[index] - costs[best] <= self.settings.new_break_s:
            return index, branch
        return best, branch

    def _home(
        self, wish: Wish, head: int, found: _Costs, now: float
    ) -> tuple[int | None, Branch]:
        """The candidate where its conversation lives, and why; without one, why it has none."""
        trail = wish.trail
        branch = Branch.HOME
        home = self._homes.named(wish.session)
        if home is None:
            branch = Branch.EXTENDED
            home = self._homes.extended(trail, head)
        if home is not None:
            index = _index_of(found.replicas, home.replica)
            if index is None:
                return None, Branch.MOVED_HEALTH
            if home.former is not None and now - home.left_at <= RETURN_S:
                former = _index_of(found.replicas, home.former)
                if former is not None and found.costs[former] <= found.costs[index] + TIE_S:
                    return former, branch
            return index, branch
        deepest = max(found.depths)
        if deepest > head:
            holders = [i for i, depth in enumerate(found.depths) if depth == deepest]
            return min(holders, key=found.costs.__getitem__), Branch.EXTENDED
        if wish.session or head < len(trail.prints):
            return None, Branch.NEW
        return None, Branch.SPREAD

    def _by_session(
        self, wish: Wish, head: int, candidates: Sequence[Candidate], found: _Costs
    ) -> tuple[int, Branch]:
        branch = Branch.HOME
        home = self._homes.named(wish.session)
        if home is None and not wish.session:
            branch = Branch.EXTENDED
            home = self._homes.extended(wish.trail, head)
        if home is not None:
            index = _index_of(found.replicas, home.replica)
            if index is not None:
                return index, branch
            branch = Branch.MOVED_HEALTH
        else:
            branch = Branch.NEW
        return home_of(_key_of(wish, head), candidates), branch

    def _cheapest(
        self,
        trail: Trail,
        head: int,
        candidates: Sequence[Candidate],
        found: _Costs,
        now: float,
        dice: float,
    ) -> int:
        """Where the request costs least; of those that cost the same, who was given least to compute
        lately, the shared steps that it really lacks counting `keep_factor` times: so these are
        copied to another replica once that is worth it, and not before."""
        costs = found.costs
        most = min(costs) + TIE_S
        tied = [index for index, cost in enumerate(costs) if cost <= most]
        if len(tied) == 1:
            return tied[0]
        count = len(candidates)
        shift = int(dice * count)
        shared = trail.until(head)
        keep = self.settings.keep_factor

        def key(index: int) -> tuple[float, float, int]:
            candidate = candidates[index]
            replica = found.replicas[index]
            lacks = shared - trail.until(min(head, found.depths[index]))
            weight = weight_of(candidate)
            return (
                (replica.work(now) + keep * lacks) / weight,
                candidate.in_flight / weight,
                (index - shift) % count,
            )

        return min(tied, key=key)

    # What comes of it

    def sent(
        self, placement: Placement, backend: str, now: float, *, streamed: bool = True
    ) -> RouteTicket:
        """It goes out now, to this one: the first of the placement's, or a later one on a retry.
        `streamed`: the first byte will come when the prompt is computed, not with the whole answer.
        """
        replica = self._replicas.get(backend)
        if replica is None:
            replica = self._add(backend)
        wish, head = placement.wish, placement.head
        trail = wish.trail
        was_idle = streamed and not len(replica.backlog) and replica.backlog.wait(now) <= 0.0
        self._clock += 1
        depth = replica.mirror.look(trail.prints, placement.held)
        expected = trail.until(depth)
        uncached = trail.tokens - expected
        slot = replica.mirror.slot_for(trail.prints)
        stamps = replica.takes(trail, depth, self._clock, slot)
        ticket = RouteTicket(
            placement,
            backend,
            now,
            expected,
            uncached,
            stamps,
            slot,
            stamp=self._clock,
            streamed=streamed,
            was_idle=was_idle,
        )
        replica.backlog.sent(ticket.stamp, uncached, now, self._rate_of(replica), watched=streamed)
        replica.worked(uncached, now)
        self._settle(placement, replica, now)
        self._head.asked(trail, head)
        return ticket

    def _settle(self, placement: Placement, replica: Replica, now: float) -> None:
        wish, head = placement.wish, placement.head
        old = self._homes.named(wish.session) or self._homes.extended(wish.trail, head)
        former: Replica | None = None
        left_at = 0.0
        if placement.order and placement.order[0] != replica.name:
            former, left_at = self._replicas.get(placement.order[0]), now
        elif old is not None and old.replica is replica:
            former, left_at = old.former, old.left_at
        elif old is not None and placement.branch is Branch.MOVED_HEALTH:
            former, left_at = old.replica, now
        if former is not None and (former.gone or former is replica or now - left_at > RETURN_S):
            former = None
        self._homes.settle(wish.trail, wish.session, head, Home(replica, former, left_at))

    def begun(self, ticket: RouteTicket, now: float) -> None:
        """The first byte of an answer (of status 200) is here. Safe to call twice."""
        if ticket.began_at is not None or ticket.is_over:
            return
        ticket.began_at = now
        replica = self._replicas.get(ticket.backend)
        if replica is not None:
            replica.unbegun.discard(ticket.stamp)
            replica.backlog.begun(ticket.stamp, now, self._rate_of(replica))

    def learn(
        self, ticket: RouteTicket, prompt_tokens: int | None, cached_tokens: int | None
    ) -> None:
        """What the engine says of the prompt, in its own tokens; None where it doesn't."""
        trail = ticket.placement.wish.trail
        if prompt_tokens is not None and prompt_tokens > 0:
            self._scale.saw(prompt_tokens, trail.tokens)
        replica = self._replicas.get(ticket.backend)
        if replica is None or cached_tokens is None or not trail.tokens:
            return
        ratio = self._scale.ratio
        own = prompt_tokens / trail.tokens if prompt_tokens else ratio
        cached = min(max(cached_tokens, 0) / own, float(trail.tokens))
        ticket.uncached = int(trail.tokens - cached)
        shared = trail.until(ticket.placement.head)
        if trail.tokens > shared:
            surprise = cached - max(ticket.expected, shared) > slack(trail.tokens)
            self._strangers.told(is_surprising=surprise)
        replica.learn(ticket, cached, ratio)
        replica.rescaled(ratio)

    def over(self, ticket: RouteTicket, now: float, *, failed: bool = False) -> None:
        """The last byte is here; or it failed, or was withdrawn. Safe to call twice."""
        if ticket.is_over:
            return
        ticket.is_over = True
        trail = ticket.placement.wish.trail
        self._head.answered(trail)
        replica = self._replicas.get(ticket.backend)
        if replica is None or ticket.stamp <= replica.born:
            return
        replica.unbegun.discard(ticket.stamp)
        replica.backlog.gone(ticket.stamp, now, self._rate_of(replica))
        if ticket.began_at is None:
            if failed:
                replica.mirror.undo(trail.prints, len(ticket.stamps), ticket.stamp)
        elif ticket.was_idle and not failed:
            took = ticket.began_at - ticket.sent_at
            replica.pace.saw(ticket.uncached, took, self._rate_of(replica))
            rate = replica.pace.rate / max(replica.weight, 1e-6)
            self._rate += 0.1 * (rate - self._rate) if self._rate else rate
        replica.mirror.done(ticket.stamp)

    # What others do

    def heard(self, record: RouteRecord, now: float, age_s: float = 0.0) -> None:
        """What another gateway did (or we, before a restart), so many seconds ago. Of a replica
        that isn't known it is not heard."""
        self._expire(now)
        key = (record.gateway, record.number)
        if record.kind is not RecordKind.PLACED:
            foreign = self._foreign.get(key)
            if foreign is None:
                return
            replica = foreign.replica
            rate = self._rate_of(replica)
            replica.unbegun.discard(foreign.stamp)
            if record.kind is RecordKind.BEGUN:
                replica.backlog.begun(foreign.stamp, now, rate)
            else:
                self._forget(key, now)
            return
        heard_of = self._replicas.get(record.backend)
        if heard_of is None or key in self._foreign:
            return
        self._hear(record, heard_of, now, max(0.0, age_s))

    def _hear(self, record: RouteRecord, replica: Replica, now: float, age_s: float) -> None:
        trail = record.trail
        known = self._homes.named(record.session) is not None
        self._head.note(trail, is_known=known)
        head = self._head.depth(trail.prints, len(self._replicas))
        self._clock += 1
        stamp = self._clock
        mirror = replica.mirror
        replica.takes(trail, mirror.look(trail.prints), stamp, None)
        self._homes.settle(trail, record.session, head, Home(replica))
        self._head.asked(trail, head)
        if age_s >= FOREIGN_S:
            replica.unbegun.discard(stamp)
            mirror.done(stamp)
            self._head.answered(trail)
            return
        replica.worked(record.uncached, now)
        rate = self._rate_of(replica)
        replica.backlog.sent(stamp, record.uncached, now - age_s, rate, watched=False)
        foreign = _Foreign(replica, stamp, now - age_s, trail)
        self._foreign[record.gateway, record.number] = foreign
        if len(self._foreign) > MOST_FOREIGN:
            self._forget(next(iter(self._foreign)), now)

    def _expire(self, now: float) -> None:
        while self._foreign:
            key, oldest = next(iter(self._foreign.items()))
            if now - oldest.at < FOREIGN_S:
                return
            self._forget(key, now)

    def _forget(self, key: tuple[int, int], now: float) -> None:
        foreign = self._foreign.pop(key)
        replica = foreign.replica
        self._head.answered(foreign.trail)
        replica.unbegun.discard(foreign.stamp)
        replica.backlog.gone(foreign.stamp, now, self._rate_of(replica))
        replica.mirror.done(foreign.stamp)

    # What is known

    def told(self, now: float | None = None) -> dict[str, dict[str, Any]]:
        """Of each replica: what its mirror holds, what waits there (seconds), its rate (tokens per
        second; 0: not observed), and cached tokens as thought and as its answers reported. Without
        `now`: as of when the last request was placed."""
        now = self._now if now is None else now
        return {
            name: {
                "mirror_tokens": replica.mirror.tokens,
                "mirror_steps": len(replica.mirror),
                "capacity_tokens": replica.capacity,
                "pending_s": replica.backlog.wait(now),
                "rate": replica.pace.rate,
                "expected_tokens": replica.expected,
                "reported_tokens": replica.reported,
            }
            for name, replica in self._replicas.items()
        }

    def hottest(self, budget_tokens: int) -> tuple[Hot, ...]:
        """The beginnings that most of the recent conversations share, in so many tokens together:
        what a replica should compute before it takes traffic."""
        return self._head.hottest(budget_tokens)


def _index_of(replicas: Sequence[Replica], wanted: Replica) -> int | None:
    return next((i for i, replica in enumerate(replicas) if replica is wanted), None)


def _key_of(wish: Wish, head: int) -> int:
    """By which it finds its rendezvous home: its name, else its first step that isn't shared."""
    prints = wish.trail.prints
    if wish.session or not prints:
        return wish.session
    return prints[min(head, len(prints) - 1)]

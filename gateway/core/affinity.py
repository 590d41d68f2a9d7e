"""Which replica a request should go to: `Affinity`, for one pool in one gateway.

Rule 1, home: where the conversation lives that the request names; else where the one lives that its
prompt goes on from; else who holds most of it beyond what everybody shares; else none.
Rule 2, cost: seconds that the request would wait there, and seconds to compute what isn't held
there. What everybody shares counts as held everywhere.
Rule 3: who has a home leaves it only where that saves more seconds than `break_s`, or than
`keep_factor` times the seconds of computing that the move costs; then it lives where it went.
Rule 4: who has none goes where it is cheapest, as long as nobody places what we don't hear of; else
to its rendezvous home, unless that costs `new_break_s` more than the cheapest. Where others place
what we do hear of: to its rendezvous home among those that cost less than `NEAR_S` more.
Rule 5: where others do, a home isn't left for less than that either, and only for one request.
Rule 6: nothing here can fail a request, and nothing grows without bound.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any, assert_never

from gateway.core.elsewhere import FOREIGN_S, Elsewhere
from gateway.core.homes import RETURN_S, Home, Homes
from gateway.core.rendezvous import home_of
from gateway.core.route import Branch, Placement, RoutePolicy, RouteTicket
from gateway.core.route_costs import TIE_S, Costs, reckon
from gateway.core.route_fleet import Fleet
from gateway.core.route_policies import by_turn, least_pending
from gateway.core.route_records import RecordKind
from gateway.core.route_replica import Replica, slack
from gateway.core.shared_head import SharedHead
from gateway.core.strangers import Strangers
from gateway.core.top_prefixes import TopPrefix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.route import Candidate, RouteSettings, Wish
    from gateway.core.route_records import RouteRecord

NEAR_S = 1.0
"""Costs that differ by less may be the same to other gateways, who know other things."""


class Affinity:
    """Places one pool's requests. Times (`now`) are seconds of any one clock that never goes
    back; `dice` is uniform in 0..1.
    """

    def __init__(self, settings: RouteSettings) -> None:
        self.settings = settings
        self.shares = False
        """Other gateways' placements are heard, or there are none."""
        self._fleet = Fleet(settings)
        self._homes: Homes[Replica] = Homes()
        self._shared = SharedHead()
        self._strangers = Strangers()
        self._elsewhere = Elsewhere(self._fleet, self._shared)
        self._now = 0.0

    def changed(self, settings: RouteSettings) -> None:
        """Other settings hold from now on. What is known stays."""
        self.settings = settings
        self._fleet.changed(settings)

    def joined(self, name: str, *, cache_tokens: int = 0, slots: int = 0) -> None:
        """The replica is there, or its size became known: tokens of its prefix cache, as the engine
        counts; or slots that hold one prompt each.
        """
        self._fleet.size(name, cache_tokens, slots)

    def emptied(self, name: str) -> None:
        """It began anew: its cache is empty, and what it was sent is lost."""
        self._fleet.empty(name)

    def left(self, name: str) -> None:
        """It is gone for good: nothing of it stays."""
        self._fleet.remove(name)

    # Deciding

    def place(
        self,
        wish: Wish,
        candidates: Sequence[Candidate],
        now: float,
        dice: float,
        *,
        rehearsed: bool = False,
    ) -> Placement:
        """Where the request should go: all candidates, the best first. Changes nothing but the
        counts of what is shared, and whose turn it is; `rehearsed`: not even those.
        """
        self._now = now
        self._elsewhere.expire(now)
        trail = wish.trail
        if not rehearsed:
            self._shared.note(trail, is_known=self._homes.named(wish.session) is not None)
        head = self._shared.depth(trail.prints, len(self._fleet) or len(candidates))
        if not candidates:
            return Placement((), Branch.SPREAD, wish, head)
        found = reckon(trail, head, candidates, self._fleet, now)
        stays: Replica | None = None
        match self.settings.policy:
            case RoutePolicy.PREFIX:
                index, branch, stays = self._by_prefix(wish, head, found, now, dice)
            case RoutePolicy.SESSION:
                index, branch = self._by_session(wish, head, found)
            case RoutePolicy.ROUND_ROBIN:
                index = by_turn(candidates, found.replicas, rehearsed=rehearsed)
                branch = Branch.SPREAD
            case RoutePolicy.LEAST_PENDING:
                index, branch = least_pending(candidates, found.waits, dice), Branch.SPREAD
            case RoutePolicy.DELEGATE:
                index, branch = 0, Branch.SPREAD
            case _:
                assert_never(self.settings.policy)
        return Placement(
            found.order(index),
            branch,
            wish,
            head,
            found.depths[index],
            found.replicas[index].mirror.slot_for(trail.prints),
            stays.name if stays is not None else "",
            found.waits[index],
        )

    def _by_prefix(
        self, wish: Wish, head: int, found: Costs, now: float, dice: float
    ) -> tuple[int, Branch, Replica | None]:
        """Rules 1 to 5: the candidate, why, and where the conversation stays living."""
        costs, settings = found.costs, self.settings
        best = found.cheapest(wish.trail, head, now, dice)
        # What others place without our hearing of it makes a move cost more than we can see: they
        # send the next request to the old home, and we do, next time, to the new one.
        unheard = not self.shares and self._strangers.likely
        home, branch = self._home(wish, head, found, now)
        if home is not None:
            lost = max(0.0, found.lacks[best] - found.lacks[home])
            limit = min(settings.break_s, settings.keep_factor * lost)
            if unheard:
                limit = max(limit, settings.new_break_s)
            if costs[home] - costs[best] <= max(limit, TIE_S):
                return home, branch, None
            return best, Branch.MOVED_LOAD, found.replicas[home] if unheard else None
        if branch is Branch.NEW and self.shares and len(self._elsewhere):
            return self._among_near(wish, head, found, best), branch, None
        if branch is Branch.SPREAD or self.shares or self._strangers.unlikely:
            return best, branch, None
        if branch is Branch.MOVED_HEALTH and found.holder(head) is not None:
            return best, branch, None
        # (Who is known to place beside us would not find what we know of room.)
        able = range(len(costs)) if unheard else found.roomiest(wish.trail)
        index = able[home_of(_key_of(wish, head), [found.candidates[each] for each in able])]
        if costs[index] - costs[best] <= settings.new_break_s:
            return index, branch, None
        return best, branch, found.replicas[index] if unheard else None

    def _among_near(self, wish: Wish, head: int, found: Costs, best: int) -> int:
        """The rendezvous home among those that cost hardly more than the cheapest: what others place
        is heard a little later, and in a burst all would choose the same one.
        """
        most = found.costs[best] + NEAR_S
        near = [index for index, cost in enumerate(found.costs) if cost <= most]
        return near[home_of(_key_of(wish, head), [found.candidates[index] for index in near])]

    def _home(self, wish: Wish, head: int, found: Costs, now: float) -> tuple[int | None, Branch]:
        """The candidate where its conversation lives, and why; without one, why it has none."""
        branch = Branch.HOME
        home = self._homes.named(wish.session)
        if home is None:
            branch = Branch.EXTENDED
            home = self._homes.extended(wish.trail, head)
        if home is not None:
            index = found.index_of(home.replica)
            if index is None:
                return None, Branch.MOVED_HEALTH
            if home.former is not None and now - home.left_at <= RETURN_S:
                former = found.index_of(home.former)
                if former is not None and found.costs[former] <= found.costs[index] + TIE_S:
                    return former, branch
            return index, branch
        holder = found.holder(head)
        if holder is not None:
            return holder, Branch.EXTENDED
        if wish.session or head < len(wish.trail.prints):
            return None, Branch.NEW
        return None, Branch.SPREAD

    def _by_session(self, wish: Wish, head: int, found: Costs) -> tuple[int, Branch]:
        """By name, or by what it goes on from; else the rendezvous home, however loaded."""
        branch = Branch.HOME
        home = self._homes.named(wish.session)
        if home is None and not wish.session:
            branch = Branch.EXTENDED
            home = self._homes.extended(wish.trail, head)
        if home is not None:
            index = found.index_of(home.replica)
            if index is not None:
                return index, branch
        branch = Branch.NEW if home is None else Branch.MOVED_HEALTH
        return home_of(_key_of(wish, head), found.candidates), branch

    # What comes of it

    def sent(
        self, placement: Placement, backend: str, now: float, *, streamed: bool = True
    ) -> RouteTicket:
        """It goes out now, to this one: the first of the placement's, or a later one on a retry.
        `streamed`: the first byte will come when the prompt is computed, not with the whole answer.
        """
        fleet = self._fleet
        replica = fleet.needed(backend)
        trail = placement.wish.trail
        was_idle = streamed and not len(replica.backlog) and replica.backlog.wait(now) <= 0.0
        depth = replica.mirror.look(trail.prints, placement.held)
        expected = trail.until(depth)
        uncached = trail.tokens - expected
        slot = replica.mirror.slot_for(trail.prints)
        fleet.clock += 1
        stamp = fleet.clock
        stamps = replica.takes(trail, depth, stamp, slot)
        replica.backlog.sent(stamp, uncached, now, fleet.rate_of(replica), tells=streamed)
        replica.asked(uncached, now)
        self._settle(placement, replica, now)
        self._shared.asked(trail, placement.head)
        return RouteTicket(
            placement,
            backend,
            now,
            expected,
            uncached,
            stamps,
            slot,
            stamp=stamp,
            streamed=streamed,
            was_idle=was_idle,
        )

    def _settle(self, placement: Placement, replica: Replica, now: float) -> None:
        wish, head = placement.wish, placement.head
        stays = self._fleet.get(placement.stays) if placement.stays else None
        if stays is not None:
            self._homes.settle(wish.trail, wish.session, head, Home(stays))
            return
        old = self._homes.named(wish.session) or self._homes.extended(wish.trail, head)
        former: Replica | None = None
        left_at = 0.0
        if placement.order and placement.order[0] != replica.name:
            former, left_at = self._fleet.get(placement.order[0]), now
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
        replica = self._fleet.get(ticket.backend)
        if replica is not None and ticket.stamp > replica.born:
            replica.unbegun.discard(ticket.stamp)
            rate = self._fleet.rate_of(replica)
            self._fleet.patience.saw(replica.backlog.begun(ticket.stamp, now, rate))

    def learn(
        self, ticket: RouteTicket, prompt_tokens: int | None, cached_tokens: int | None
    ) -> None:
        """What the engine says of the prompt, in its own tokens; None where it doesn't."""
        trail = ticket.placement.wish.trail
        scale = self._fleet.scale
        if prompt_tokens is not None:
            scale.saw(prompt_tokens, trail.tokens)
        replica = self._fleet.get(ticket.backend)
        if replica is None or cached_tokens is None or not trail.tokens:
            return
        own = prompt_tokens / trail.tokens if prompt_tokens else scale.ratio
        cached = min(max(cached_tokens, 0) / own, float(trail.tokens))
        ticket.uncached = int(trail.tokens - cached)
        shared = trail.until(ticket.placement.head)
        if trail.tokens > shared:
            # The step behind what it was sent is its own answer to that, which it holds as well.
            held = bisect_right(trail.ends, ticket.expected)
            answer = trail.until(min(held + 1, len(trail.ends)))
            surplus = cached - max(answer, shared)
            self._strangers.told(is_surprising=surplus > slack(trail.tokens))
        replica.learn(ticket, cached, scale.ratio)
        replica.rescaled(scale.ratio)

    def over(self, ticket: RouteTicket, now: float, *, failed: bool = False) -> None:
        """The last byte is here; or it failed, or was withdrawn. Safe to call twice."""
        if ticket.is_over:
            return
        ticket.is_over = True
        trail = ticket.placement.wish.trail
        self._shared.answered(trail)
        replica = self._fleet.get(ticket.backend)
        if replica is None or ticket.stamp <= replica.born:
            return
        replica.unbegun.discard(ticket.stamp)
        replica.backlog.gone(ticket.stamp, now, self._fleet.rate_of(replica))
        if ticket.began_at is None:
            if failed:
                replica.mirror.undo(trail.prints, len(ticket.stamps), ticket.stamp)
        elif ticket.was_idle and not failed:
            self._fleet.timed(replica, ticket)
        replica.mirror.done(ticket.stamp)

    def heard(self, record: RouteRecord, now: float, age_s: float = 0.0) -> None:
        """What another gateway did (or we, before a restart), so many seconds ago. Of a replica
        that isn't known it is not heard.
        """
        self._elsewhere.expire(now)
        if record.kind is not RecordKind.PLACED:
            self._elsewhere.changed(record, now)
            return
        replica = self._fleet.get(record.backend)
        if replica is None or self._elsewhere.knows(record):
            return
        trail = record.trail
        self._shared.note(trail, is_known=self._homes.named(record.session) is not None)
        head = self._shared.depth(trail.prints, len(self._fleet))
        stamp = self._fleet.begins(replica, trail, replica.mirror.look(trail.prints), None)
        self._homes.settle(trail, record.session, head, Home(replica))
        self._shared.asked(trail, head)
        if age_s < FOREIGN_S:
            self._elsewhere.placed(record, replica, stamp, now - max(0.0, age_s))
            return
        replica.unbegun.discard(stamp)
        replica.mirror.done(stamp)
        self._shared.answered(trail)

    # What is known

    def prefixes(self, pool: str, most: int) -> list[TopPrefix]:
        """What many conversations begin with, and who is thought to hold it."""
        of = self._shared.conversations
        return [
            TopPrefix(
                each, pool, "", count, of, tokens,
                warm=tuple(replica.name for replica in self._fleet if each in replica.mirror),
            )
            for each, count, tokens in self._shared.prefixes(most)
        ]  # fmt: skip

    def prefill_s(self, name: str, tokens: int) -> float | None:
        """About how long the replica would compute so many tokens, as the engine counts; None: it was
        never timed, and nothing is configured.
        """
        return self._fleet.prefill_s(name, tokens)

    def told(self, now: float | None = None) -> dict[str, dict[str, Any]]:
        """Of each replica: what its mirror holds, what waits there (seconds), its rate (tokens per
        second; 0: not observed), and cached tokens as thought and as its answers reported. Without
        `now`: as of when the last request was placed.
        """
        return self._fleet.told(self._now if now is None else now)


def _key_of(wish: Wish, head: int) -> int:
    """By which it finds its rendezvous home: its name, else its first step that isn't shared."""
    prints = wish.trail.prints
    if wish.session or not prints:
        return wish.session
    return prints[min(head, len(prints) - 1)]

"""What waits to be computed at a replica, in seconds: `Backlog`; and how fast it computes: `Pace`.

A virtual queue, first in, first out: what was sent is thought to be computed one after the other.
Each first byte puts it right: what was sent before that one is done, what was sent behind it isn't.
Where the next first byte is late, the replica costs at least as much as it is late by, whatever the
queue says: so one that hangs gets dearer with every second.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable

GRACE_S = 0.5
"""A first byte may come so much later than computed before it counts as late."""
MOST_GRACE_S = 15.0


class Patience:
    """How late first bytes usually are in a pool, for reasons that we don't see.

    Gateways that don't hear of each other see a part of the load each: were they to take the rest
    for trouble at the replicas where they wait themselves, they would flee to where they don't, all
    of them, and lose what is held there.
    """

    __slots__ = ("_late_s",)

    def __init__(self) -> None:
        self._late_s = 0.0

    def saw(self, late_s: float | None) -> None:
        """The first byte that was awaited came so much later than computed."""
        if late_s is not None:
            self._late_s += 0.05 * (min(max(late_s, 0.0), MOST_GRACE_S) - self._late_s)

    @property
    def seconds(self) -> float:
        """What is later than this is late."""
        return min(GRACE_S + 2.0 * self._late_s, MOST_GRACE_S)


MOST_PENDING = 4096
"""Requests that one replica is thought to have before it; more are taken to be lost track of."""

_NEVER = float("inf")


class _Pending(NamedTuple):
    number: int
    tokens: int
    tells: bool
    is_watched: bool
    done_at: float
    """When it was thought to be computed."""


class Backlog:
    """Of one replica. Times in seconds, `rate` in tokens (as trails count) per second."""

    __slots__ = ("_awaited", "_number", "_pending", "due_at", "free_at")

    def __init__(self) -> None:
        self._pending: dict[Hashable, _Pending] = {}
        self._number = 0
        self._awaited = 0
        self.free_at = 0.0
        """When all that was sent is thought to be computed."""
        self.due_at = _NEVER
        """When the next first byte is thought to come."""

    def __len__(self) -> int:
        """Requests that have not begun to answer."""
        return len(self._pending)

    def wait(self, now: float, patience_s: float = GRACE_S) -> float:
        """Seconds until something sent now would be taken up. `patience_s`: so late a first byte
        may be without meaning anything.
        """
        queued = self.free_at - now
        late = now - self.due_at - patience_s
        return max(queued, late, 0.0)

    def sent(
        self,
        key: Hashable,
        tokens: int,
        now: float,
        rate: float,
        *,
        tells: bool = True,
        watched: bool = True,
    ) -> None:
        """So many tokens more to compute. `tells`: its first byte will tell when that is done.
        `watched`: and we shall know when it is late.
        """
        watched = watched and tells
        self.free_at = max(self.free_at, now) + tokens / rate
        self._number += 1
        if len(self._pending) >= MOST_PENDING:
            del self._pending[next(iter(self._pending))]
        self._pending[key] = _Pending(self._number, tokens, tells, watched, self.free_at)
        if watched and not self._awaited:
            self.due_at = self.free_at
            self._awaited = self._number

    def begun(self, key: Hashable, now: float, rate: float) -> float | None:
        """Its first byte is there. Returns how late, in seconds, where it was the next one awaited.
        Calls for what isn't pending change nothing.
        """
        one = self._pending.pop(key, None)
        if one is None:
            return None
        late = now - self.due_at if one.is_watched and one.number == self._awaited else None
        behind = self._behind(one.number)
        left = self._left(now)
        if one.tells:
            self.free_at = now + left / rate
        else:
            self.free_at = min(self.free_at, now + left / rate)
        self._await(behind, now, rate)
        return late

    def gone(self, key: Hashable, now: float, rate: float) -> None:
        """It failed, or was withdrawn: it doesn't wait any more."""
        one = self._pending.pop(key, None)
        if one is None:
            return
        left = self._left(now)
        self.free_at = min(self.free_at, now + left / rate)
        if one.number == self._awaited:
            self._await(self._behind(one.number), now, rate)

    def clear(self) -> None:
        """Nothing waits."""
        self._pending.clear()
        self.free_at = 0.0
        self.due_at = _NEVER
        self._awaited = 0

    def _left(self, now: float) -> int:
        """Tokens that are still to be computed. Of what won't tell, until it was thought to be."""
        return sum(
            each.tokens for each in self._pending.values() if each.tells or each.done_at > now
        )

    def _behind(self, number: int) -> list[_Pending]:
        """What was sent behind that one, in order. What nobody watches and was sent before it is
        computed, too, and forgotten; what is watched and has been overtaken is computed beside.
        """
        done: list[Hashable] = []
        behind: list[_Pending] = []
        for key, each in self._pending.items():
            if each.number > number:
                behind.append(each)
            elif not each.is_watched:
                done.append(key)
        for key in done:
            del self._pending[key]
        return behind

    def _await(self, behind: list[_Pending], now: float, rate: float) -> None:
        before = 0
        for each in behind:
            before += each.tokens
            if each.is_watched:
                self.due_at = now + before / rate
                self._awaited = each.number
                return
        self.due_at = _NEVER
        self._awaited = 0


WINDOW = 64
"""Samples that a rate is taken from: the latest."""
FEWEST_TOKENS = 64
"""Of a sample: less is over before its time can be told from that of a round trip."""
_HALF_TRUST = 4.0
"""Samples that weigh as much as what was thought before."""


class Pace:
    """How many tokens a replica computes per second, from requests that found nothing in front.

    Noise has one sign: a request that waits for others, whom we don't see, seems to be computed
    slowly. So the rate is not the mean, but a high quantile, by tokens; and the middle one where the
    engine doesn't report what it had cached, which would look like a miracle of speed.
    """

    __slots__ = ("_observed", "_samples", "_seen", "rate")

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._seen = 0.0
        self._observed = 0.0
        self.rate = 0.0
        """Tokens per second; 0 until something was seen."""

    def saw(self, tokens: int, seconds: float, prior: float, *, is_sure: bool) -> None:
        """So many tokens took so long to the first byte. `prior`: the rate thought before any was
        seen. `is_sure`: the engine reported what it had cached.
        """
        if tokens < FEWEST_TOKENS or seconds < 0.0:
            return
        self._samples.append((tokens / max(seconds, 1e-4), tokens))
        wanted = (0.8 if is_sure else 0.5) * sum(each[1] for each in self._samples)
        rate = prior
        for speed, weight in sorted(self._samples):
            rate = speed
            wanted -= weight
            if wanted <= 0.0:
                break
        seen = len(self._samples) / _HALF_TRUST
        self._seen, self._observed = seen, rate
        self.rate = self.among(prior)

    def among(self, prior: float) -> float:
        """Tokens per second, where `prior` is what is expected of its like by now: who was timed once,
        when nothing was known of any, must not be thought to be slow for ever.
        """
        return (prior + self._seen * self._observed) / (1.0 + self._seen)

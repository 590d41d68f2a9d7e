"""What waits to be computed at a replica, in seconds: `Backlog`; and how fast it computes: `Pace`.

A virtual queue, first in, first out: what was sent is thought to be computed one after the other.
Each first byte puts it right: what was sent before that one is done, what was sent behind it isn't.
Where the next first byte is late, the replica costs at least as much as it is late by, whatever the
queue says: so one that hangs gets dearer with every second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable

GRACE_S = 0.5
"""A first byte may come so much later than computed before it counts as late."""

MOST_PENDING = 4096
"""Requests that one replica is thought to have before it; more are taken to be lost track of."""

_NEVER = float("inf")


class _Pending(NamedTuple):
    number: int
    tokens: int
    is_watched: bool


class Backlog:
    """Of one replica. Times in seconds, `rate` in tokens (as trails count) per second."""

    __slots__ = ("_number", "_pending", "due_at", "free_at")

    def __init__(self) -> None:
        self._pending: dict[Hashable, _Pending] = {}
        self._number = 0
        self.free_at = 0.0
        """When all that was sent is thought to be computed."""
        self.due_at = _NEVER
        """When the next first byte is thought to come."""

    def __len__(self) -> int:
        """Requests that have not begun to answer."""
        return len(self._pending)

    def wait(self, now: float) -> float:
        """Seconds until something sent now would be taken up."""
        queued = self.free_at - now
        late = now - self.due_at - GRACE_S
        return max(queued, late, 0.0)

    def sent(
        self, key: Hashable, tokens: int, now: float, rate: float, *, watched: bool = True
    ) -> None:
        """So many tokens more to compute. `watched`: its first byte will tell when that is done."""
        self.free_at = max(self.free_at, now) + tokens / rate
        self._number += 1
        if len(self._pending) >= MOST_PENDING:
            del self._pending[next(iter(self._pending))]
        self._pending[key] = _Pending(self._number, tokens, watched)
        if watched and self.due_at == _NEVER:
            self.due_at = self.free_at

    def begun(self, key: Hashable, now: float, rate: float) -> None:
        """Its first byte is there. Calls for what isn't pending change nothing."""
        one = self._pending.pop(key, None)
        if one is None:
            return
        behind = self._behind(one.number)
        left = sum(each.tokens for each in self._pending.values())
        if one.is_watched:
            self.free_at = now + left / rate
        else:
            self.free_at = min(self.free_at, now + left / rate)
        self._await(behind, now, rate)

    def gone(self, key: Hashable, now: float, rate: float) -> None:
        """It failed, or was withdrawn: it doesn't wait any more."""
        one = self._pending.pop(key, None)
        if one is None:
            return
        left = sum(each.tokens for each in self._pending.values())
        self.free_at = min(self.free_at, now + left / rate)
        if one.is_watched:
            first = next((each for each in self._pending.values() if each.is_watched), None)
            if first is None:
                self.due_at = _NEVER
            elif first.number > one.number:  # it was the one that was awaited
                self._await([first], now, rate)

    def clear(self) -> None:
        """Nothing waits."""
        self._pending.clear()
        self.free_at = 0.0
        self.due_at = _NEVER

    def _behind(self, number: int) -> list[_Pending]:
        """What was sent behind that one, in order. What nobody watches and was sent before it is
        computed, too, and forgotten; what is watched and has been overtaken is computed beside."""
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
                return
        self.due_at = _NEVER


_FORGET = 0.97
"""What each sample leaves of the weight of those before it."""
_PRIOR_TOKENS = 2048.0
_TRUSTED = 4
"""Samples from which on an outlier is cut."""
_OUTLIER = 4.0


class Pace:
    """Seconds to the first byte = `base_s` + tokens / `rate`, fitted to what was seen."""

    __slots__ = ("_n", "_seen", "_t", "_u", "_ut", "_uu", "base_s", "rate")

    def __init__(self) -> None:
        self._seen = 0
        self._n = self._u = self._t = self._uu = self._ut = 0.0
        self.rate = 0.0
        """Tokens per second; 0 until something was seen."""
        self.base_s = 0.0

    def saw(self, tokens: int, seconds: float, prior: float) -> None:
        """So many tokens took so long to the first byte. `prior`: the rate thought until now."""
        if tokens <= 0 or seconds < 0.0:
            return
        if self._seen >= _TRUSTED:
            thought = self.base_s + tokens / self.rate
            seconds = min(seconds, _OUTLIER * thought + 0.05)
        self._seen += 1
        for name, value in (
            ("_n", 1.0),
            ("_u", float(tokens)),
            ("_t", seconds),
            ("_uu", float(tokens) * tokens),
            ("_ut", tokens * seconds),
        ):
            setattr(self, name, getattr(self, name) * _FORGET + value)
        self._fit(prior)

    def _fit(self, prior: float) -> None:
        # Two points of the prior rate, through zero, fade as samples come in: they decide where
        # all samples are of one size.
        weight = 1.0 / (1.0 + self._seen)
        far = _PRIOR_TOKENS
        n = self._n + 2.0 * weight
        u = self._u + weight * far
        t = self._t + weight * far / prior
        uu = self._uu + weight * far * far
        ut = self._ut + weight * far * far / prior
        spread = uu - u * u / n
        slope = (ut - u * t / n) / spread if spread > 0.0 else 0.0
        # No replica computes for nothing, nor was it ready before it was asked.
        if slope <= 0.0 or (t - slope * u) < 0.0:
            slope = ut / uu
        slope = max(slope, 1e-8)
        self.rate = 1.0 / slope
        self.base_s = max(0.0, (t - slope * u) / n)

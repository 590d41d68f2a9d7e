"""What all caches of a planner have shown together: `Experience`.

A new cache, say that of a client with a credential of its own, has proved nothing. Were each of a
thousand of them tried out by itself, one-shot traffic would pay a thousand times for the lesson.
"""

from __future__ import annotations

from gateway.core.recurrence import Odds, Recurrence

RISK_FLOOR = 4000.0
"""Tokens, at the price of uncached input, that may be out unproven at any time."""

_RISK_SHARE = 0.003
_PRIOR_WEIGHT = 6.0
_TELLS = 8
"""So many requests of a kind speak for their cache: a busy one has no more say than others."""


class Told:
    """What one cache has told of a kind, so that it doesn't hear it again as others' experience."""

    __slots__ = ("count", "own")

    def __init__(self) -> None:
        self.count = 0
        self.own = Recurrence()


class Experience:
    """Shared by the caches of one planner. Holds counts of a few kinds and two sums."""

    def __init__(self) -> None:
        self._kinds: dict[str, Recurrence] = {}
        self._risked = 0.0
        self._asked_tokens = 0.0

    def tellers(self, name: str, told: Told) -> tuple[Recurrence, ...]:
        """Who of these is to hear how one of a kind goes on; nobody once a cache has told enough."""
        if told.count >= _TELLS:
            return ()
        told.count += 1
        return told.own, self._kinds.setdefault(name, Recurrence())

    def of_others(self, name: str, told: Told) -> Recurrence:
        """What all but this one have seen of a kind."""
        known = self._kinds.get(name)
        return known.without(told.own) if known else told.own.without(told.own)

    def expected(self, name: str, told: Told, prior: Odds) -> Odds:
        """The odds of a kind by what others have seen; the prior where they haven't."""
        known = self._kinds.get(name)
        if known is None or known.weight <= told.own.weight:
            return prior
        return known.without(told.own).odds(prior, _PRIOR_WEIGHT)

    def may_risk(self, premium: float) -> bool:
        """May so much be spent on what has proved nothing yet? One at a time; what is out unproven
        beyond that never exceeds a small sum and a third of a percent of all that was asked.
        """
        allowed = RISK_FLOOR + _RISK_SHARE * self._asked_tokens
        return not self._risked or self._risked + premium <= allowed

    def risk(self, premium: float) -> None:
        """So much (or, negative, so much less) is out unproven."""
        self._risked = max(0.0, self._risked + premium)

    def asked(self, tokens: int) -> None:
        """One more request of so many tokens."""
        self._asked_tokens += tokens

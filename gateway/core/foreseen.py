"""What is foreseen of one request's prompt cache, until it has been judged: `Foreseen`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.core.miss import CacheOutcome, Miss, MissCause

if TYPE_CHECKING:
    from gateway.core.foresight import Sent
    from gateway.core.kept import Entries, Entry
    from gateway.core.lineup import Lineup
    from gateway.core.lookups import Lookups
    from gateway.core.neighbours import Difference


@dataclass(slots=True)
class Foreseen:
    """One request on its way. For `core.foresight` alone, but for what is documented."""

    sent: Sent
    request_id: str
    owner: tuple[int, str, bytes]
    line: Lineup
    at: float
    """When it was sent."""
    prefixes: list[int] = field(default_factory=list)
    """Fingerprint of what is sent, up to each block's end, in this cache."""
    tokens: list[int] = field(default_factory=list)
    """Estimated, cumulative, at each block's end."""
    marks: tuple[tuple[int, int], ...] = ()
    lookups: Lookups | None = None
    machine: str = ""
    available: int = -1
    """The deepest block at whose end an entry was ever written; -1 for none."""
    at_available: Entries = ()
    alive_on: frozenset[str] = frozenset()
    """Machines on which that had not expired when it was sent."""
    renewed: list[tuple[Entry, float]] = field(default_factory=list)
    """What lives on because this reads it, and since when it lived before."""
    expected: int = -1
    """The deepest block up to whose end it should be read."""
    expected_tokens: int = 0
    compared: bool = False
    difference: Difference | None = None
    """Where it parts from the likest earlier prompt, if that costs anything. Whoever has looked at
    the text there may say its kind (`_replace`)."""
    is_short: bool = False
    """What it shares with earlier prompts is below the minimum."""
    begun_at: float | None = None
    written: dict[int, Entry] = field(default_factory=dict)
    outcome: CacheOutcome = field(default_factory=CacheOutcome)
    """What is known: foreseen, and when it has been judged, come true."""

    def foreseen(self) -> Miss | None:
        """What will be missed, by what is known before the answer."""
        rules = self.sent.rules
        if self.expected < self.available:
            return Miss(self.why(), self._missed())
        if self.difference is not None:
            return self.changed()
        if self.expected >= 0:
            return None
        short = self.tokens[-1] < rules.minimum_tokens or self.is_short
        return Miss(MissCause.BELOW_MINIMUM if short else MissCause.COLD, 0)

    def _missed(self) -> int:
        before = self.expected_tokens if self.expected >= 0 else 0
        return max(1, self.tokens[self.available] - before)

    def why(self) -> MissCause:
        """Of what is kept and not read."""
        if not self.alive_on:
            return MissCause.TTL_EXPIRED
        if self.lookups is not None and not self.lookups.reach(self.available):
            return MissCause.LOOKBACK_EXCEEDED
        # (Before it is known which replica is asked, it may be any.)
        is_open = self.sent.pool and not self.machine
        here = is_open or self.machine in self.alive_on
        return MissCause.EVICTED if here else MissCause.OTHER_BACKEND

    def changed(self) -> Miss:
        """Of a difference."""
        found = self.difference
        assert found is not None
        return Miss(
            MissCause.PREFIX_CHANGED,
            found.recurring_tokens,
            found.path,
            found.kind,
            found.block,
            found.neighbour,
            found.was_size,
            found.is_size,
        )

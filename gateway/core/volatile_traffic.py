"""What traffic shows of volatile text: how often it changes, how much stands behind it, and whether
a suspicion is confirmed. Bounded; no clock of its own.

Rule 1: a place is a kind of value between the same words of the same path, route and cache domain:
the words before it and a little behind it, other volatile values left out.
Rule 2: only what changes costs: a value that is the same as in the request before loses nothing.
Rule 3: a suspicion (LIKELY) that traffic confirms never changes a conversation that is under way:
what its first turn was decided by is remembered. Where it is forgotten (a restart, another
replica, the bound) the conversation goes on without: that costs one reading, and nothing else,
because nothing that is bound to its text is ever rewritten.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import xxhash

from gateway.core.volatile import Confidence, Kind, Sighting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DAY_S = 86_400.0

_MOST_PLACES = 4096
_MOST_CONVERSATIONS = 16_384
# Text behind a value that tells its place from others with the same words before them.
_BEHIND = 64
# So many requests must have shown so many other values than the one before.
_CONFIRMED_REQUESTS = 4
_CONFIRMED_CHANGES = 3
# The rate of what was seen for less than this is told as if nothing came in the rest of it.
_LEAST_SEEN_S = 3_600.0
# A first turn that nobody went on with for so long begins another conversation.
_SETTLED_S = 600.0


class Place(NamedTuple):
    """Where requests have volatile text."""

    domain: bytes
    """Of the provider's cache: endpoint and credential."""
    upstream: str
    route: str
    path: str
    """JSON path of the text: `$.system[0].text`."""
    kind: Kind
    words: int
    """Fingerprint of the words around it."""


class Seen(NamedTuple):
    """One sighting of one request."""

    place: Place
    sighting: Sighting
    value: str
    tokens_behind: int
    """Estimated tokens behind it that are the same in other requests, or in earlier turns."""


@dataclass(slots=True)
class Tally:
    """What was counted at one place. Rates fade with a time constant of a day."""

    first_at: float
    last_at: float
    requests: int = 0
    changes: int = 0
    value: int = 0
    """Fingerprint of the value in the latest request."""
    _requests: float = 0.0
    _lost: float = 0.0

    def count(self, value: str, tokens_behind: int, now: float) -> None:
        """One more request, at `now` seconds."""
        fading = math.exp(-max(0.0, now - self.last_at) / DAY_S)
        fingerprint = _fingerprint(value)
        changed = self.requests > 0 and fingerprint != self.value
        self._requests = self._requests * fading + 1.0
        self._lost = self._lost * fading + (tokens_behind if changed else 0)
        self.requests += 1
        self.changes += changed
        self.value, self.last_at = fingerprint, now

    def requests_per_day(self, now: float) -> float:
        """Requests with this place, a day."""
        return self._rate(self._requests, now)

    def tokens_lost_per_day(self, now: float) -> float:
        """Tokens behind the value in requests that came with another one than the request before,
        a day: each could have been read from the provider's cache and had to be read anew.
        """
        return self._rate(self._lost, now)

    @property
    def is_confirmed(self) -> bool:
        """Has the value been seen to change, again and again?"""
        return self.requests >= _CONFIRMED_REQUESTS and self.changes >= _CONFIRMED_CHANGES

    def _rate(self, faded: float, now: float) -> float:
        # A sum that fades by e in a day comes to rate * (1 - e^-t) after t days.
        seen_s = max(now - self.first_at, _LEAST_SEEN_S)
        left = faded * math.exp(-max(0.0, now - self.last_at) / DAY_S)
        return left / -math.expm1(-seen_s / DAY_S)


class VolatileTraffic:
    """Counts for the places that were seen last, and what conversations were begun with."""

    def __init__(
        self, most_places: int = _MOST_PLACES, most_conversations: int = _MOST_CONVERSATIONS
    ) -> None:
        self._most_places = most_places
        self._most_conversations = most_conversations
        self._tallies: OrderedDict[Place, Tally] = OrderedDict()
        self._begun: OrderedDict[int, tuple[frozenset[int], float]] = OrderedDict()

    def count(self, seen: Sequence[Seen], now: float) -> None:
        """Count what one request showed. `now` is seconds of any monotonic origin."""
        for each in seen:
            tally = self._tallies.get(each.place)
            if tally is None:
                tally = self._tallies[each.place] = Tally(now, now)
                if len(self._tallies) > self._most_places:
                    self._tallies.popitem(last=False)
            else:
                self._tallies.move_to_end(each.place)
            tally.count(each.value, each.tokens_behind, now)

    def tally(self, place: Place) -> Tally | None:
        """What was counted there."""
        return self._tallies.get(place)

    def everywhere(self, place: Place) -> list[Tally]:
        """What was counted at this place in any cache domain."""
        # (Of a copy: whoever explains a request does so in a thread.)
        tallies = list(self._tallies.items())
        return [tally for known, tally in tallies if known[1:] == place[1:]]

    def confirmed(
        self, conversation: int, seen: Sequence[Seen], *, first_turn: bool, now: float
    ) -> frozenset[int]:
        """The places (`Place.words`) whose suspicion may be acted upon in this conversation.

        `conversation` is a fingerprint that its turns share (`conversation_of`). A first turn
        decides by what is confirmed now, unless the same first turn was decided a while ago and
        went on since; any later turn gets what its first one got, or nothing.
        """
        begun = self._begun.get(conversation)
        if begun is not None:
            chosen, last_at = begun
            if not first_turn:
                self._begun[conversation] = chosen, now
                self._begun.move_to_end(conversation)
            if not first_turn or now - last_at < _SETTLED_S:
                return chosen
        if not first_turn:
            return frozenset()
        found = set()
        for each in seen:
            if each.sighting.confidence is not Confidence.LIKELY:
                continue
            tally = self._tallies.get(each.place)
            if tally is not None and tally.is_confirmed:
                found.add(each.place.words)
        chosen = frozenset(found)
        self._begun[conversation] = chosen, now
        self._begun.move_to_end(conversation)
        if len(self._begun) > self._most_conversations:
            self._begun.popitem(last=False)
        return chosen


def words_around(text: str, sightings: Sequence[Sighting], index: int) -> int:
    """A fingerprint of the words around one of a text's sightings, the others left out."""
    return next(islice(all_words_around(text, sightings), index, None))


def all_words_around(text: str, sightings: Sequence[Sighting]) -> Iterator[int]:
    """`words_around` each of them, one after the other: the words before are read once."""
    before = xxhash.xxh3_64()
    at = 0
    for index, here in enumerate(sightings):
        kind = f"\0{here.kind.value}\0".encode()
        before.update(_utf8(text[at : here.start]) + kind)
        at = here.end
        until = sightings[index + 1].start if index + 1 < len(sightings) else len(text)
        around = before.copy()
        around.update(_utf8(text[at : min(until, at + _BEHIND)]))
        yield around.intdigest()


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def conversation_of(domain: bytes, texts: Sequence[str], opening: str) -> int:
    """A fingerprint that the turns of one conversation share: its domain, its system texts with
    the volatile values left out (the caller does that), and its first user message.
    """
    hasher = xxhash.xxh3_64(domain)
    for text in (*texts, opening):
        encoded = text.encode("utf-8", "surrogatepass")
        hasher.update(len(encoded).to_bytes(8, "little"))
        hasher.update(encoded)
    return hasher.intdigest()


def blanked(text: str, sightings: Sequence[Sighting]) -> str:
    """The text with each sighting replaced by its kind."""
    parts: list[str] = []
    at = 0
    for each in sightings:
        parts += (text[at : each.start], each.kind.value)
        at = each.end
    return "".join((*parts, text[at:]))


def _fingerprint(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))

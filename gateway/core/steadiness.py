"""Whether what we send of a conversation stays the same from turn to turn: `Steadiness`.

A provider's cache gives back what begins as an earlier prompt did. Where a client's own prompt only
grew from one turn to the next, what we have made of it must only have grown, too: else the cache
was lost through us.

Rule 1: prompts are compared as the provider reads them: by the chained fingerprints of their blocks
(`core.prefix.chain`), a text that is split being two of them, markers being in none.
Rule 2: only turns of one conversation are compared: the client's earlier prompt, whole, is a
beginning of the new one and ends a message there.
Rule 3: what is kept are fingerprints and counts, bounded in bytes. What is forgotten is not compared,
and said to be new.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BUDGET_BYTES = 4 * 1024 * 1024

_FINGERPRINT_BYTES = 8
_TIP_BYTES = 360
"""What a remembered turn takes beside its conversation's fingerprints."""
_CONVERSATION_BYTES = 400
_MOST_TIPS = 32
"""Turns of one conversation at which it may be taken up."""
_MOST_ALIKE = 4
"""Forms in which one and the same prompt was sent, that are remembered."""


class Change(StrEnum):
    """What was done to a prompt before it was sent; of several, what reaches deepest."""

    REWRITE = "rewrite"
    SPLIT = "split"
    STRIP = "strip"
    MARK = "mark"
    NONE = "none"
    """Nothing: it went as it came."""


_DEPTH = {change: depth for depth, change in enumerate(reversed(Change))}


class Compared(StrEnum):
    """What came of one comparison. For the metric."""

    NEW = "new"
    """No earlier turn of it is known."""
    STEADY = "steady"
    DRIFTED = "drifted"
    SKIPPED = "skipped"
    """Not looked at: there was no time for it, or it can't be read."""


class Shown(NamedTuple):
    """One turn's prompt, as the client sent it and as it was sent on."""

    client: Sequence[int]
    """Fingerprint at the end of each block of the client's prompt."""
    ends: Sequence[bool]
    """Does that block end a message?"""
    sent: Sequence[int]
    """The same of the prompt that was sent, up to what the next turn is sent without."""
    change: Change


class Drift(NamedTuple):
    """A prompt that the client only added to was not sent as it had been before."""

    block: int
    """Index of the first block that was sent otherwise; as many as were sent, if they are too few."""
    change: Change
    """The deeper one of what was done then and now."""


_Tip: TypeAlias = tuple[bytes, int]


class _Conversation:
    """What was sent of one conversation, and after which of its turns how much of it."""

    __slots__ = ("sent", "tips")

    def __init__(self, sent: Sequence[int]) -> None:
        self.sent = array("Q", sent)
        self.tips: OrderedDict[_Tip, None] = OrderedDict()

    @property
    def size(self) -> int:
        taken = _FINGERPRINT_BYTES * len(self.sent) + _TIP_BYTES * len(self.tips)
        return _CONVERSATION_BYTES + taken


class _Turn(NamedTuple):
    """How one prompt was sent."""

    of: _Conversation
    length: int
    """Blocks of the conversation that were sent with it."""
    change: Change

    def is_in(self, sent: Sequence[int]) -> bool:
        """Does that prompt begin with this one?"""
        length = self.length
        if length > len(sent):
            return False
        # (A fingerprint stands for all before it.)
        return not length or self.of.sent[length - 1] == sent[length - 1]

    def parts_at(self, sent: Sequence[int]) -> int:
        """The first block that isn't the same."""
        low, high = 0, min(self.length, len(sent))
        before = self.of.sent
        while low < high:
            middle = (low + high) // 2
            if before[middle] == sent[middle]:
                low = middle + 1
            else:
                high = middle
        return low


class Steadiness:
    """Remembers how conversations were sent, those of the latest turns."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        """Of what is remembered, about so many bytes are kept."""
        self._budget = budget_bytes
        self._turns: dict[_Tip, list[_Turn]] = {}
        self._latest: OrderedDict[_Conversation, None] = OrderedDict()
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<Steadiness of {len(self._latest)} conversations, {self._bytes} B>"

    @property
    def size_bytes(self) -> int:
        """About what is remembered takes."""
        return self._bytes

    def compare(self, owner: bytes, shown: Shown) -> tuple[Compared, Drift | None]:
        """Compare a turn with the latest one before it, and remember it. `owner` tells apart what
        is no conversation of the same client with the same upstream.
        """
        if not shown.client or not shown.sent:
            return Compared.NEW, None
        found = self._compare(owner, shown)
        while self._bytes > self._budget and self._latest:
            self._drop(next(iter(self._latest)))
        return found

    def _compare(self, owner: bytes, shown: Shown) -> tuple[Compared, Drift | None]:
        client, _, sent, change = shown
        tip = (owner, client[-1])
        nearest: list[_Turn] = []
        for turns in self._before(owner, shown):
            steady = next((turn for turn in turns if turn.is_in(sent)), None)
            if steady is not None:
                self._goes_on(steady, tip, sent, change)
                return Compared.STEADY, None
            if turns is not self._turns.get(tip):
                nearest = turns
                break
            # The same prompt once more: of another conversation that begins alike, perhaps.
        self._begins(tip, sent, change)
        if not nearest:
            return Compared.NEW, None
        closest = max(nearest, key=lambda turn: turn.parts_at(sent))
        deeper = max(closest.change, change, key=_DEPTH.__getitem__)
        return Compared.DRIFTED, Drift(closest.parts_at(sent), deeper)

    def _before(self, owner: bytes, shown: Shown) -> Iterator[list[_Turn]]:
        """The turns that this one goes on from, the latest first, each in all forms in which it was
        sent.
        """
        turns = self._turns
        for fingerprint, ends in zip(reversed(shown.client), reversed(shown.ends), strict=True):
            if ends and (found := turns.get((owner, fingerprint))):
                yield found

    def _goes_on(self, turn: _Turn, tip: _Tip, sent: Sequence[int], change: Change) -> None:
        known = turn.of
        both = min(len(known.sent), len(sent)) - 1
        if known.sent[both] != sent[both]:
            # From an earlier turn of it, in another way.
            self._begins(tip, sent, change)
            return
        self._latest.move_to_end(known)
        self._bytes -= known.size
        known.sent.extend(sent[len(known.sent) :])
        self._add(known, tip, _Turn(known, len(sent), change))
        self._bytes += known.size

    def _begins(self, tip: _Tip, sent: Sequence[int], change: Change) -> None:
        known = _Conversation(sent)
        self._latest[known] = None
        self._add(known, tip, _Turn(known, len(sent), change))
        self._bytes += known.size

    def _add(self, known: _Conversation, tip: _Tip, turn: _Turn) -> None:
        alike = self._turns.setdefault(tip, [])
        if any(each.of is known for each in alike):
            return
        alike.append(turn)
        known.tips[tip] = None
        if len(alike) > _MOST_ALIKE:
            self._unlearn(alike[0].of, tip)
        if len(known.tips) > _MOST_TIPS:
            self._forget(known, next(iter(known.tips)))

    def _unlearn(self, known: _Conversation, tip: _Tip) -> None:
        if len(known.tips) == 1:
            self._drop(known)
            return
        self._bytes -= known.size
        self._forget(known, tip)
        self._bytes += known.size

    def _drop(self, known: _Conversation) -> None:
        self._bytes -= known.size
        del self._latest[known]
        for tip in list(known.tips):
            self._forget(known, tip)

    def _forget(self, known: _Conversation, tip: _Tip) -> None:
        """A turn of a conversation."""
        del known.tips[tip]
        left = [turn for turn in self._turns[tip] if turn.of is not known]
        if left:
            self._turns[tip] = left
        else:
            del self._turns[tip]

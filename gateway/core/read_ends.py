"""Up to which boundary a prompt was read, from the tokens that an answer says: `ReadEnds`.

Where a request has ended before, or an entry was written last, the tokens are known; elsewhere they
are estimated from the nearest boundaries of which they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.providers.prompt_cache import MarkerForm

if TYPE_CHECKING:
    from gateway.core.foreseen import Foreseen
    from gateway.core.kept import Kept
    from gateway.core.model import Usage

GRAIN = 128
"""Automatic caches read in steps of at most so many tokens."""
_NEAR_TOKENS, _NEAR_PART = 64, 20
"""Where a boundary's tokens are estimated: what differs by less is the same."""


def near(tokens: int) -> int:
    """By how much an estimate of so many may be wrong."""
    return max(_NEAR_TOKENS, tokens // _NEAR_PART)


class ReadEnds:
    """Of one request. What of its blocks is known is looked up once, whatever is asked."""

    def __init__(self, kept: Kept, found: Foreseen, usage: Usage) -> None:
        self._kept = kept
        self._found = found
        self._usage = usage
        self._known: list[tuple[int, int]] = []
        """Of each block the nearest one before it of which tokens are known, and how many."""

    def hit(self) -> tuple[int, bool]:
        """The block up to whose end it was read, among those of which an entry is known; and whether
        that is sure.
        """
        found, read = self._found, self._usage.cache_read
        if not read:
            return -1, True
        automatic = found.sent.rules.form is MarkerForm.NONE
        likely = -1
        for block in range(max(found.available, found.expected), -1, -1):
            entries = self._kept.find(found.prefixes[block])
            if not entries or all(each.ready_at > found.at for each in entries):
                continue
            exact = max(each.tokens for each in entries)
            tokens = exact or self._estimated(block)
            if exact and tokens == read:
                return block, not automatic
            slack = 0 if exact else near(tokens)
            if likely < 0 and tokens - slack - (GRAIN - 1 if automatic else 0) <= read:
                likely = block
            if exact and tokens < read:
                break
        return likely, False

    def available(self) -> tuple[int, int]:
        """Tokens that could have been read, and by how much less is the same."""
        found = self._found
        exact = max((each.tokens for each in found.at_available), default=0)
        automatic = found.sent.rules.form is MarkerForm.NONE
        if exact:
            return min(exact, self._usage.input), GRAIN - 1 if automatic else 0
        tokens = self._estimated(found.available)
        return tokens, near(tokens) + (GRAIN if automatic else 0)

    def expected(self) -> int:
        """Tokens that were expected to be read, by what the prompt came to; never more than it."""
        if not self._found.expected_tokens:
            return 0
        block = self._found.expected
        return min(self._exact(block) or self._estimated(block), self._usage.input)

    def is_as_foreseen(self, tokens: int) -> bool:
        """Less than is available was expected, and what was read is nearer to that."""
        found, read = self._found, self._usage.cache_read
        if not 0 <= found.expected < found.available:
            return False
        less = self._exact(found.expected) or self._estimated(found.expected)
        grain = GRAIN if found.sent.rules.form is MarkerForm.NONE else 1
        less, more = less // grain * grain, tokens // grain * grain
        return less < more and abs(read - less) < abs(read - more)

    def _exact(self, block: int) -> int:
        """Tokens up to a block's end, as an answer has told them; else 0."""
        entries = self._kept.find(self._found.prefixes[block])
        return max((each.tokens for each in entries), default=0)

    def _estimated(self, block: int) -> int:
        """Tokens up to a block's end, from the nearest boundaries of which they are known."""
        if not self._known:
            self._look()
        low, low_tokens = self._known[block]
        sizes, total = self._found.tokens, self._usage.input
        start = sizes[low] if low >= 0 else 0
        whole = sizes[-1] - start
        if whole <= 0:
            return min(total, low_tokens)
        part = (sizes[block] - start) / whole
        return int(low_tokens + part * (total - low_tokens) + 0.5)

    def _look(self) -> None:
        known = -1, 0
        for block in range(max(self._found.available, self._found.expected) + 1):
            self._known.append(known)
            exact = self._exact(block)
            if exact:
                known = block, exact

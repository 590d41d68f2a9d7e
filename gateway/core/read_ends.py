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
    """Of all requests."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def hit(self, found: Foreseen, usage: Usage) -> tuple[int, bool]:
        """The block up to whose end it was read, among those of which an entry is known; and whether
        that is sure.
        """
        read = usage.cache_read
        if not read:
            return -1, True
        automatic = found.sent.rules.form is MarkerForm.NONE
        likely = -1
        for block in range(max(found.available, found.expected), -1, -1):
            entries = self._kept.find(found.prefixes[block])
            if not entries or all(each.ready_at > found.at for each in entries):
                continue
            exact = max(each.tokens for each in entries)
            tokens = exact or self._between(found, block, usage.input)
            if exact and tokens == read:
                return block, not automatic
            slack = 0 if exact else near(tokens)
            if likely < 0 and tokens - slack - (GRAIN - 1 if automatic else 0) <= read:
                likely = block
            if exact and tokens < read:
                break
        return likely, False

    def available(self, found: Foreseen, usage: Usage) -> tuple[int, int]:
        """Tokens that could have been read, and by how much less is the same."""
        exact = max((each.tokens for each in found.at_available), default=0)
        automatic = found.sent.rules.form is MarkerForm.NONE
        if exact:
            return min(exact, usage.input), GRAIN - 1 if automatic else 0
        tokens = self._between(found, found.available, usage.input)
        return tokens, near(tokens) + (GRAIN if automatic else 0)

    def is_as_foreseen(self, found: Foreseen, usage: Usage, tokens: int) -> bool:
        """Less than is available was expected, and what was read is nearer to that."""
        if not 0 <= found.expected < found.available:
            return False
        entries = self._kept.find(found.prefixes[found.expected])
        known = max((each.tokens for each in entries), default=0)
        less = known or self._between(found, found.expected, usage.input)
        grain = GRAIN if found.sent.rules.form is MarkerForm.NONE else 1
        less, more = less // grain * grain, tokens // grain * grain
        return less < more and abs(usage.cache_read - less) < abs(usage.cache_read - more)

    def _between(self, found: Foreseen, block: int, total: int) -> int:
        """Estimated tokens up to a block's end, from the nearest boundaries of which they are known."""
        low, low_tokens = -1, 0
        for at in range(block - 1, -1, -1):
            entries = self._kept.find(found.prefixes[at])
            known = max((each.tokens for each in entries), default=0)
            if known:
                low, low_tokens = at, known
                break
        sizes = found.tokens
        start = sizes[low] if low >= 0 else 0
        whole = sizes[-1] - start
        if whole <= 0:
            return min(total, low_tokens)
        part = (sizes[block] - start) / whole
        return int(low_tokens + part * (total - low_tokens) + 0.5)

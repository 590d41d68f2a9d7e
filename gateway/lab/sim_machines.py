"""Which of a simulated provider's machines a request is sent to: a prefix has one until it gets too
many requests.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from gateway.core.prefix import PrefixBlock

_MINUTE_S = 60.0
_ROUTED_BY = 256 * 4
"""Bytes of a prompt that choose its machine."""
_MOST_KEYS = 10_000


class Machines:
    """Counts who was asked lately. The clock is an argument and never goes back."""

    def __init__(self) -> None:
        self._lately: dict[Hashable, deque[float]] = {}

    def asked(
        self,
        now: float,
        whose: tuple[Hashable, str],
        blocks: Sequence[PrefixBlock],
        chain: Sequence[int],
        most_a_minute: int,
    ) -> Hashable:
        """The machine of one more request. `whose`: the credential and the `prompt_cache_key`."""
        if not most_a_minute:
            return 0
        size, head = 0, 0
        for block, fingerprint in zip(blocks, chain, strict=True):
            size, head = size + block.size, fingerprint
            if size >= _ROUTED_BY:
                break
        if len(self._lately) > _MOST_KEYS:
            self._lately.clear()
        # "About 15 requests a minute in total across all prefixes using a key": without one each
        # prefix is counted by itself.
        lately = self._lately.setdefault((whose[0], whose[1] or head), deque())
        while lately and lately[0] <= now - _MINUTE_S:
            lately.popleft()
        lately.append(now)
        return head, (len(lately) - 1) // most_a_minute

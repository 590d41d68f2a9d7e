"""Which credentials an upstream has accepted or refused lately.

In `tenant` and `shared` scope an entry may have been paid for by somebody else, so a hit is
served only to a credential that the upstream itself has accepted within `cache.auth_ttl_s`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachetools import TTLCache

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSALS = frozenset({401, 403})
"""The statuses that say that a credential was not accepted."""

_ENTRIES = 50_000


class Acceptance:
    """A bounded memory, in this process only, of keyed hashes of credentials."""

    def __init__(self, ttl_s: float, timer: Callable[[], float], entries: int = _ENTRIES) -> None:
        self._seen: TTLCache[bytes, bool] = TTLCache(entries, ttl_s, timer)

    def learn(self, who: bytes, status: int) -> None:
        """An upstream answered a request of `who` (hash of upstream and credential)."""
        if status in REFUSALS:
            self._seen[who] = False
        elif 200 <= status < 300:
            self._seen[who] = True
        # Anything else (429, 5xx, 400) says nothing about the credential.

    def learn_refusal(self, who: bytes) -> None:
        """An upstream refused `who` (`REFUSALS`) where a success would prove nothing: model lists,
        CORS preflights and health pages are answered without a look at the credential.
        """
        self._seen[who] = False

    def proven(self, who: bytes) -> bool:
        """Has the upstream accepted it, and not refused it since?"""
        return self._seen.get(who) is True

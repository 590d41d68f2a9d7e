"""Which credentials an upstream has accepted or refused lately.

In `tenant` and `shared` scope an entry may have been paid for by somebody else, so a hit is
served only to a credential that the upstream itself has accepted within `cache.auth_ttl_s`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from gateway.core import identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.upstream.choice import Endpoint

REFUSALS = frozenset({401, 403})
"""The statuses that say that a credential was not accepted."""

_ENTRIES = 50_000
_NEVER = (False, 0.0)


def accepted_as(who: bytes, endpoint: Endpoint) -> bytes:
    """What acceptance is remembered by: who asked, and the configured key that was sent in place of a
    credential, if any. Whom one key let in is not let in without it, or by the next one.
    """
    if endpoint.api_key is None:
        return who
    return identity.digest((who, endpoint.api_key.encode()))


class Acceptance:
    """A bounded memory, in this process only, of keyed hashes of credentials."""

    def __init__(self, ttl_s: float, timer: Callable[[], float], entries: int = _ENTRIES) -> None:
        self.ttl_s = ttl_s
        """How long an acceptance is believed."""
        self._timer = timer
        self._entries = entries
        # Whether it was accepted, and when; the latest last. (Not cachetools' TTLCache: every call of
        # a model learns, and that is twice as dear there as all the rest of it.)
        self._seen: OrderedDict[bytes, tuple[bool, float]] = OrderedDict()

    def learn(self, who: bytes, status: int) -> None:
        """An upstream answered a request of `who` (hash of upstream and credential)."""
        if status in REFUSALS:
            self._note(who, accepted=False)
        elif 200 <= status < 300:
            self._note(who, accepted=True)
        # Anything else (429, 5xx, 400) says nothing about the credential.

    def learn_refusal(self, who: bytes) -> None:
        """An upstream refused `who` (`REFUSALS`) where a success would prove nothing: model lists,
        CORS preflights and health pages are answered without a look at the credential.
        """
        self._note(who, accepted=False)

    def proven(self, who: bytes) -> bool:
        """Has the upstream accepted it, and not refused it since?"""
        accepted, at = self._seen.get(who, _NEVER)
        return accepted and self._timer() - at < self.ttl_s

    def _note(self, who: bytes, *, accepted: bool) -> None:
        self._seen[who] = (accepted, self._timer())
        self._seen.move_to_end(who)
        if len(self._seen) > self._entries:
            self._seen.popitem(last=False)

"""One understood request on its way: what the steps hand on to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.policy import is_error
from gateway.errors import UpstreamFailed

if TYPE_CHECKING:
    from aiohttp import web

    from gateway.budget import Share
    from gateway.core.directives import Directives
    from gateway.core.policy import CachePolicy, Hit, Lookup
    from gateway.door import Known
    from gateway.exchange import Exchange
    from gateway.providers.base import ApiRules
    from gateway.upstream.choice import Asked
    from gateway.wire.base import WireApi


@dataclass(slots=True)
class Turn:
    """A request that a wire API understood or passed, with everything decided about it so far."""

    request: web.BaseRequest
    asked: Asked
    api: WireApi
    body: bytes
    """As the client sent it."""
    known: Known
    rules: ApiRules
    policy: CachePolicy
    directives: Directives
    exchange: Exchange
    share: Share
    """Of the bytes that all requests may hold."""
    proven: bool
    """Its credential may be served what somebody else paid for."""
    samples: int = 1
    """How many answers to this question are kept, and drawn from."""
    lookup: Lookup | None = None
    """Set when the cache has a say: whether to read and to write."""
    slot: int = 0
    """Where its answer goes, among the samples."""
    spare: Hit | None = None
    """A stale answer, to be served where the upstream fails."""
    empty_slots: tuple[int, ...] = ()
    """Of several samples, those that a lookup found missing."""

    def refuse_failure(self, status: int) -> None:
        """Raises `UpstreamFailed` for a status that a stale answer is to stand for."""
        if self.spare is not None and is_error(status):
            raise UpstreamFailed(
                f"the upstream answered with status {status}, and the stale answer that was to "
                "stand for it can't be read",
                answered=status,
            )

"""Where requests were placed, told between gateways and across restarts. No request waits for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gateway.store.journal_feed import Feed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.core.route_records import RouteRecord
    from gateway.store.journal import Journal

START_S = 1.0
"""A gateway that boots waits at most so long for what is known already."""


class Placements:
    """What this gateway tells of its pools, and hears of them. For one event loop."""

    def __init__(
        self,
        pools: Iterable[str],
        journal: Callable[[str], Journal],
        gateway: int,
    ) -> None:
        """`journal` gives the journal of a pool; `gateway` is 64 random bits of this process."""
        self.gateway = gateway
        self._heed: dict[str, Callable[[RouteRecord], None]] = {}
        self._feeds = {name: Feed(name, journal(name), gateway, self._of(name)) for name in pools}

    def __repr__(self) -> str:
        return f"<Placements {list(self._feeds.values())}>"

    def on_heard(self, pool: str, callback: Callable[[RouteRecord], None]) -> None:
        """Give it what other gateways tell of the pool from now on, and, if set before `start`, what
        they and our predecessor told before.
        """
        self._heed[pool] = callback

    def on_shares(self, pool: str, callback: Callable[[bool], None]) -> None:
        """Tell it when `shares(pool)` has changed."""
        self._feeds[pool].on_shares = callback

    def shares(self, pool: str) -> bool:
        """Whether what other gateways place in the pool is known here, and what we place is known
        to them, both at most about two seconds late. False where nobody could know: then a gateway
        has to find out by itself whether it is alone.
        """
        feed = self._feeds.get(pool)
        return feed is not None and feed.shares

    def tell(self, pool: str, record: RouteRecord) -> None:
        """Let the others know. Costs an append; what can't be told in time is dropped."""
        feed = self._feeds.get(pool)
        if feed is not None:
            feed.tell(record)

    async def start(self, patience_s: float = START_S) -> None:
        """Begin, and wait for what is known already, at most `patience_s`; later it still comes."""
        await asyncio.gather(*(feed.start(patience_s) for feed in self._feeds.values()))

    async def close(self, timeout_s: float) -> None:
        """Tell what is still to be told, for `timeout_s`, and end."""
        await asyncio.gather(*(feed.close(timeout_s) for feed in self._feeds.values()))

    def told(self) -> dict[str, dict[str, Any]]:
        """By pool, what `Feed.figures` tells. Any thread may ask."""
        return {name: feed.figures() for name, feed in self._feeds.items()}

    def _of(self, pool: str) -> Callable[[RouteRecord], None]:
        def hear(record: RouteRecord) -> None:
            heed = self._heed.get(pool)
            if heed is not None:
                heed(record)

        return hear

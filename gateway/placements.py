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
        self._journal = journal
        self._heed: dict[str, Callable[[RouteRecord], None]] = {}
        self._gateways = dict.fromkeys(pools, gateway)
        self._feeds = {name: self._feed(name) for name in self._gateways}

    def __repr__(self) -> str:
        return f"<Placements {list(self._feeds.values())}>"

    def teller(self, pool: str) -> int:
        """Who tells of the pool: 64 random bits. Other ones for a pool that another config brought."""
        return self._gateways[pool]

    def turn(self, pools: Iterable[str], gateway: int) -> tuple[list[Feed], list[Feed]]:
        """Another config has these pools: the feeds to be started, once somebody hears them, and those
        to be closed. `gateway` is another number than any before: a feed that begins anew counts from
        one, which others would take for old news under the number that they know.
        """
        wanted = list(pools)
        over = [self._feeds.pop(name) for name in self._feeds.keys() - set(wanted)]
        for name in self._gateways.keys() - set(wanted):
            del self._gateways[name]
            self._heed.pop(name, None)
        new = [name for name in wanted if name not in self._feeds]
        for name in new:
            self._gateways[name] = gateway
            self._feeds[name] = self._feed(name)
        return [self._feeds[name] for name in new], over

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

    def _feed(self, name: str) -> Feed:
        return Feed(name, self._journal(name), self._gateways[name], self._of(name))

    def _of(self, pool: str) -> Callable[[RouteRecord], None]:
        def hear(record: RouteRecord) -> None:
            heed = self._heed.get(pool)
            if heed is not None:
                heed(record)

        return hear

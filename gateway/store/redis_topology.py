"""Which Redis server a key is asked of: one server, a primary that Sentinels know, or a Cluster.

Rule 1: asking where the servers are is never on a request's path, but for the very first time: a
task asks, at intervals and when a server gives cause, and requests use what it found last.
Rule 2: while there is cause for doubt it asks every `RETRY_S`, so that a new primary serves hits
soon after it was elected; a server that keeps its place keeps its connections.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, Protocol

from redis.crc import key_slot

from gateway.store.base import StoreUnavailable
from gateway.store.redis_replies import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gateway.store.redis_address import Place
    from gateway.store.redis_node import Node

logger = logging.getLogger(__name__)

RETRY_S = 0.25
"""Between two looks while there is."""

LOOK_S = 1.0
"""A look that takes longer is given up."""


class Shard(NamedTuple):
    """Who has the keys of the slots `first` to `last`."""

    first: int
    last: int
    primary: Place
    replicas: tuple[Place, ...] = ()


class Finder(Protocol):
    """Knows whom to ask where the servers are."""

    refresh_s: float
    """Between two looks when there is no cause."""

    async def find(self) -> Sequence[Shard]:
        """All shards by their slots, at least one. May raise anything, may hang."""

    async def close(self) -> None:
        """Close what it opened."""


class NodeMaker(Protocol):
    """Makes a `Node`."""

    def __call__(
        self, place: Place, on_trouble: Callable[[], None], *, of_replica: bool = False
    ) -> Node:
        """For the server there; it tells its trouble to `on_trouble`."""


class Topology(Protocol):
    """Where the servers are."""

    async def start(self, patience_s: float) -> None:
        """Look for the first time; does nothing once it is known. Raises `StoreUnavailable` when
        nothing was found in time; at once, when the last look failed.
        """

    def primary(self, name: bytes) -> Node:
        """The server that takes writes for the key. Raises `StoreUnavailable`."""

    def reader(self, name: bytes) -> Node:
        """The server that is asked for the key. Raises `StoreUnavailable`."""

    def at(self, place: Place) -> Node:
        """The server that another one pointed to."""

    def primaries(self) -> Iterable[Node]:
        """Every server that takes writes."""

    async def close(self) -> None:
        """Close all connections."""


class OneServer:
    """What the URL names, and nothing else."""

    def __init__(self, place: Place, make_node: NodeMaker) -> None:
        """The server at `place`."""
        # In doubt there is nothing to ask: new connections look its name up anew by themselves.
        self._node = make_node(place, lambda: None)

    def __repr__(self) -> str:
        return repr(self._node)

    async def start(self, _patience_s: float) -> None:
        """Nothing to look for."""

    def primary(self, _name: bytes) -> Node:
        """The one."""
        return self._node

    reader = primary

    def at(self, _place: Place) -> Node:
        """The one. A node of a Cluster that is used as a single server points to others; what it
        does not have is a miss.
        """
        raise StoreUnavailable(
            "Redis is a Cluster: write redis+cluster:// in place of redis://", "moving"
        )

    def primaries(self) -> Iterable[Node]:
        """The one."""
        return (self._node,)

    async def close(self) -> None:
        """Close its connections."""
        await self._node.close()


class Discovered:
    """Shards that a `Finder` finds. For one event loop."""

    def __init__(self, finder: Finder, make_node: NodeMaker, *, reads_replicas: bool) -> None:
        """Lookups go to replicas in turn where `reads_replicas`, and there are healthy ones."""
        self._finder = finder
        self._make_node = make_node
        self._reads_replicas = reads_replicas
        self._shards: Sequence[Shard] = ()
        self._firsts: list[int] = []
        self._nodes: dict[tuple[Place, bool], Node] = {}
        self._turn = count()
        self._watching: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()
        self._doubt = asyncio.Event()
        self._problem: str | None = None

    def __repr__(self) -> str:
        return f"<Discovered {len(self._shards)} shards, {list(self._nodes.values())}>"

    async def start(self, patience_s: float) -> None:
        """See `Topology`."""
        if self._shards:
            return
        if self._watching is None:
            # Owned here: `close` cancels it.
            self._watching = asyncio.create_task(self._watch())  # noqa: TID251
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._looked.wait()
        if not self._shards:
            raise StoreUnavailable(
                f"it is not known where Redis is ({self._problem or 'nobody said yet'})",
                "unreachable",
            )

    def primary(self, name: bytes) -> Node:
        """See `Topology`."""
        return self._node(self._shard(name).primary)

    def reader(self, name: bytes) -> Node:
        """See `Topology`."""
        shard = self._shard(name)
        if self._reads_replicas and shard.replicas:
            place = shard.replicas[next(self._turn) % len(shard.replicas)]
            replica = self._node(place, of_replica=True)
            if replica.breaker.would_enter:
                return replica
        return self._node(shard.primary)

    def at(self, place: Place) -> Node:
        """See `Topology`."""
        return self._node(place)

    def primaries(self) -> Iterable[Node]:
        """See `Topology`."""
        return [self._node(place) for place in dict.fromkeys(s.primary for s in self._shards)]

    async def close(self) -> None:
        """Stop looking, close all connections."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        await self._finder.close()
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            await node.close()

    def _shard(self, name: bytes) -> Shard:
        if len(self._shards) == 1:
            shard = self._shards[0]
            if shard.first == 0 and shard.last >= 16_383:
                return shard
        slot = key_slot(name)
        place = bisect_right(self._firsts, slot) - 1
        if place < 0 or self._shards[place].last < slot:
            self._doubt.set()
            raise StoreUnavailable(f"no server has slot {slot} of the Cluster", "cluster_down")
        return self._shards[place]

    def _node(self, place: Place, *, of_replica: bool = False) -> Node:
        node = self._nodes.get((place, of_replica))
        if node is None:
            node = self._make_node(place, self._doubt.set, of_replica=of_replica)
            self._nodes[place, of_replica] = node
        return node

    async def _watch(self) -> None:
        while True:
            self._doubt.clear()
            await self._look()
            self._looked.set()
            if self._in_doubt():
                await asyncio.sleep(RETRY_S)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(self._finder.refresh_s):
                    await self._doubt.wait()
                    # A server that says no to everybody says it often.
                    await asyncio.sleep(RETRY_S)

    def _in_doubt(self) -> bool:
        return self._problem is not None or any(n.breaker.is_open for n in self.primaries())

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                shards = await self._finder.find()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the last answer serves on
            if self._problem is None and self._shards:
                logger.warning("Nobody says where Redis is (%s)", in_words(exc))
            self._problem = in_words(exc)
            return
        if self._problem is not None and self._shards:
            logger.warning("It is known again where Redis is")
        self._problem = None
        former = {shard.primary for shard in self._shards}
        self._shards = sorted(shards)
        self._firsts = [shard.first for shard in self._shards]
        current = {shard.primary for shard in self._shards}
        if former and former != current:
            logger.warning(
                "Redis has its primaries at %s now", ", ".join(map(str, sorted(current)))
            )
        await self._forget(current)

    async def _forget(self, primaries: set[Place]) -> None:
        """Close the connections to servers that have no part any more."""
        replicas = {place for shard in self._shards for place in shard.replicas}
        for place, of_replica in tuple(self._nodes):
            if place not in (replicas if of_replica else primaries):
                await self._nodes.pop((place, of_replica)).close()

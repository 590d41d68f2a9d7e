"""Who knows where Redis is: Sentinels, or the nodes of a Cluster."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from gateway.store.redis_address import Place
from gateway.store.redis_topology import LOOK_S, Shard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.store.redis_address import Address

EACH_S = LOOK_S / 4
"""Patience with each of those that are asked: one that is stopped must not use up the look."""

LAST_SLOT = 16_383


class ServiceFinder:
    """One shard, by redis-py's Sentinel client."""

    # A primary that was replaced in its lifetime says nothing, and takes writes that will be lost,
    # for up to ten seconds.
    refresh_s = 2.0

    def __init__(self, address: Address) -> None:
        """Asks the Sentinels at `address.places` for `address.service`."""
        self._service = address.service
        self._reads_replicas = address.reads_replicas
        self._sentinel = Sentinel(  # type: ignore[no-untyped-call] # redis-py
            address.places,
            sentinel_kwargs={
                **address.sentinel_settings,
                "socket_timeout": EACH_S,
                "socket_connect_timeout": EACH_S,
                "retry": Retry(NoBackoff(), 0),
                "driver_info": None,
                "protocol": 2,
            },
        )

    async def find(self) -> Sequence[Shard]:
        """The primary that a Sentinel knows and holds for alive."""
        host, port = await self._sentinel.discover_master(self._service)
        replicas: list[Any] = []
        if self._reads_replicas:
            replicas = list(await self._sentinel.discover_replicas(self._service))
        places = tuple(Place(str(host), int(port)) for host, port in replicas)
        return (Shard(0, LAST_SLOT, Place(str(host), int(port)), places),)

    async def close(self) -> None:
        """Close the connections to Sentinels."""
        await self._sentinel.aclose()


class ClusterFinder:
    """CLUSTER SLOTS, of whichever node answers.

    Not redis-py's: its `NodesManager` opens every connection anew after each look, builds a table
    of all slots in Python (milliseconds of the loop), and sets no bound to a node that hangs.
    """

    # Who asks the wrong node is told: MOVED.
    refresh_s = 15.0

    def __init__(self, address: Address) -> None:
        """Asks the nodes at `address.places`, and those that were found since."""
        self._address = address
        self._known: list[Place] = []

    async def find(self) -> Sequence[Shard]:
        """The slots as one node knows them. In random order: the next look asks another."""
        places = list(dict.fromkeys([*self._known, *self._address.places]))
        random.shuffle(places)
        problem: Exception = ConnectionError("no node of the Cluster knows its slots")
        for place in places:
            try:
                async with asyncio.timeout(EACH_S):
                    shards = await self._asked(place)
            except Exception as exc:  # noqa: BLE001 - the next one may do better
                problem = exc
                continue
            if shards:
                self._known = [
                    place for shard in shards for place in (shard.primary, *shard.replicas)
                ]
                return shards
        raise problem

    async def close(self) -> None:
        """Nothing is open between looks."""

    async def _asked(self, place: Place) -> list[Shard]:
        connection = self._address.maker(place)()
        try:
            await connection.connect()  # type: ignore[no-untyped-call] # redis-py
            await connection.send_command("CLUSTER", "SLOTS", check_health=False)
            ranges = await connection.read_response()
        finally:
            connection.abort()
        shards = []
        for first, last, primary, *replicas in ranges:
            shards.append(
                Shard(
                    first,
                    last,
                    _place(primary, place),
                    tuple(_place(replica, place) for replica in replicas),
                )
            )
        return shards


def _place(node: Sequence[Any], asked: Place) -> Place:
    """Host (unknown: the one that was asked) and port of a node in the reply."""
    host = (node[0] or b"").decode()
    return Place(host if host not in {"", "?"} else asked.host, int(node[1]))

"""All pools of one config, and what is done for them behind the requests: DNS, probes, outliers.

Rule 1: a pool that another config has too stays what it is, with all that is known of its replicas.
Rule 2: who is taken out of the config ends what it has (`Replicas.remove`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.upstream.replicas import Replicas
from gateway.upstream.tended import Tended

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from gateway.config import Upstream
    from gateway.upstream.backend import Backend
    from gateway.upstream.choice import Endpoint
    from gateway.upstream.client import Call


class Pools(Mapping[str, Replicas]):
    """The replicas of each upstream that has some, by its name. For one event loop."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        endpoints: Mapping[str, Endpoint],
        ask: Callable[[Endpoint, str], Call],
        monotonic: Callable[[], float],
        *,
        lookup: Callable[[str], Awaitable[Iterable[str]]] | None = None,
        forget: Callable[[Endpoint], None] | None = None,
    ) -> None:
        """`ask` GETs a URL of an endpoint; `monotonic` gives seconds; `lookup` the addresses of a host
        name (the system's resolver, unless given); `forget` closes connections that are kept to one
        that is gone.
        """
        self._ask = ask
        self._monotonic = monotonic
        self._lookup = lookup
        self._forget = forget
        self._upstreams = dict(upstreams)
        self._pools = {
            name: self._tended(name, upstreams[name], endpoint)
            for name, endpoint in endpoints.items()
            if endpoint.pool
        }

    def __repr__(self) -> str:
        return f"<Pools {', '.join(repr(each.pool) for each in self._pools.values())}>"

    def __getitem__(self, name: str) -> Replicas:
        return self._pools[name].pool

    def __iter__(self) -> Iterator[str]:
        return iter(self._pools)

    def __len__(self) -> int:
        return len(self._pools)

    async def start(self) -> None:
        """Ask DNS once, for at most some seconds, and go on with everything behind the requests. Hooks
        of the pools are set before.
        """
        await asyncio.gather(*(each.resolve() for each in self._pools.values()))
        for each in self._pools.values():
            each.start()

    async def close(self, timeout_s: float) -> None:
        """Begin nothing new; what is being asked has so long to end."""
        await asyncio.gather(*(each.close(timeout_s) for each in self._pools.values()))

    # --- another config -----------------------------------------------------------------------------

    async def joining(
        self, upstreams: Mapping[str, Upstream], endpoints: Mapping[str, Endpoint]
    ) -> dict[str, Tended]:
        """The pools that are not there yet, or not so, of another config: whom DNS names is known, and
        nobody hears of them before `turn`. Nothing is changed here.
        """
        joining = {
            name: self._tended(name, upstreams[name], endpoint)
            for name, endpoint in endpoints.items()
            if endpoint.pool and not self._stays(name, upstreams[name], endpoint)
        }
        try:
            await asyncio.gather(*(each.resolve() for each in joining.values()))
        except BaseException:
            for each in joining.values():
                await each.close(0.0)
            raise
        return joining

    def after(
        self, joining: Mapping[str, Tended], endpoints: Mapping[str, Endpoint]
    ) -> list[Replicas]:
        """The pools that there are after `turn`."""
        return [
            (joining.get(name) or self._pools[name]).pool
            for name, endpoint in endpoints.items()
            if endpoint.pool
        ]

    def turn(
        self,
        joining: Mapping[str, Tended],
        upstreams: Mapping[str, Upstream],
        endpoints: Mapping[str, Endpoint],
    ) -> list[Tended]:
        """The other config holds. Returns what is not tended any more, to be closed. Hooks of those
        that join are set before.
        """
        before, now = self._pools, dict[str, Tended]()
        for name, endpoint in endpoints.items():
            if endpoint.pool:
                now[name] = joining.get(name) or self._kept(name, upstreams[name], endpoint)
        self._pools, self._upstreams = now, dict(upstreams)
        for name, each in now.items():
            if before.get(name) is not each:
                each.start()
        over = [each for name, each in before.items() if now.get(name) is not each]
        there = {id(each.pool) for each in now.values()}
        for gone in (each.pool for each in over if id(each.pool) not in there):
            for backend in gone:
                gone.on_forgotten(backend.endpoint)
        return over

    def _kept(self, name: str, upstream: Upstream, endpoint: Endpoint) -> Tended:
        there, before = self._pools[name], self._upstreams[name]
        if upstream == before and endpoint == there.pool.endpoint:
            return there
        there.pool.changed(before, upstream, endpoint)
        # By new intervals, perhaps.
        return Tended(there.pool, self._ask, self._monotonic, self._lookup)

    def _stays(self, name: str, upstream: Upstream, endpoint: Endpoint) -> bool:
        """Is it the one that is there, though other settings may hold for it? Of other engines, or of
        another name in DNS, nothing that is known would be true.
        """
        there = self._pools.get(name)
        if there is None:
            return False
        pool = there.pool
        return (
            (pool.engine, pool.endpoint.provider.name) == (endpoint.engine, endpoint.provider.name)
            and pool.endpoint.caches_as == endpoint.caches_as
            and pool.dns == upstream.dns
        )

    def _tended(self, name: str, upstream: Upstream, endpoint: Endpoint) -> Tended:
        pool = Replicas(name, upstream, endpoint, self._monotonic)
        if self._forget is not None:
            pool.on_forgotten = self._forget
        return Tended(pool, self._ask, self._monotonic, self._lookup)

    # --- at run time; each raises KeyError for a pool or backend that isn't there -------------------

    def add(self, pool: str, name: str | None, url: str, weight: float = 1.0) -> Backend:
        """As `Replicas.add`. Raises Unfit."""
        return self[pool].add(name, url, weight)

    def remove(self, pool: str, name: str, *, at_once: bool = False) -> Backend:
        """As `Replicas.remove`."""
        return self[pool].remove(name, at_once=at_once)

    def drain(self, pool: str, name: str) -> Backend:
        """As `Replicas.drain`."""
        return self[pool].drain(name)

    def undrain(self, pool: str, name: str) -> Backend:
        """As `Replicas.undrain`."""
        return self[pool].undrain(name)

    def told(self) -> dict[str, dict[str, Any]]:
        """What is known of each pool, as plain JSON values."""
        return {name: each.pool.told() for name, each in self._pools.items()}

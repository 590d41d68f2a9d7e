"""All pools of one config, and what is done for them behind the requests: DNS, probes, outliers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.background import Background
from gateway.upstream.discovery import Discovery
from gateway.upstream.health import Probes
from gateway.upstream.outliers import outliers
from gateway.upstream.replicas import Replicas

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from gateway.config import Upstream
    from gateway.upstream.backend import Backend
    from gateway.upstream.choice import Endpoint
    from gateway.upstream.client import Call

_SWEEP_S = 1.0
# A replica whose last probe spoke against what it is taken for is asked again after that long: who
# hangs is found in half the time, and who is back as well.
_DOUBT_S = 1.0


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
    ) -> None:
        """`ask` GETs a URL of an endpoint; `monotonic` gives seconds; `lookup` the addresses of a host
        name (the system's resolver, unless given).
        """
        self._pools = {
            name: Replicas(name, upstreams[name], endpoint, monotonic)
            for name, endpoint in endpoints.items()
            if endpoint.pool
        }
        self._monotonic = monotonic
        self._probes = {name: Probes(pool, ask) for name, pool in self._pools.items()}
        self._discoveries = {
            name: Discovery(pool, lookup)
            for name, pool in self._pools.items()
            if pool.dns is not None
        }
        self._tasks = Background(3 * len(self._pools))
        self._stopping = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Pools {', '.join(map(repr, self._pools.values()))}>"

    def __getitem__(self, name: str) -> Replicas:
        return self._pools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pools)

    def __len__(self) -> int:
        return len(self._pools)

    async def start(self) -> None:
        """Ask DNS once, for at most some seconds, and go on with everything behind the requests. Hooks
        of the pools are set before.
        """
        await asyncio.gather(*(each.ask() for each in self._discoveries.values()))
        for name, pool in self._pools.items():
            self._tasks.spawn(self._tend(pool), f"tending pool {name}")
            if pool.health.interval_s:
                self._tasks.spawn(self._probe(pool, self._probes[name]), f"probes of {name}")
            if name in self._discoveries:
                found = self._discoveries[name]
                self._tasks.spawn(self._resolve(pool, found), f"DNS of {name}")

    async def close(self, timeout_s: float) -> None:
        """Begin nothing new; what is being asked has so long to end."""
        self._stopping.set()
        await asyncio.gather(*(each.close() for each in self._discoveries.values()))
        for pool in self._pools.values():
            pool.nudge.set()
        await self._tasks.close(timeout_s)

    # --- at run time; each raises KeyError for a pool or backend that isn't there -------------------

    def add(self, pool: str, name: str | None, url: str, weight: float = 1.0) -> Backend:
        """As `Replicas.add`. Raises Unfit."""
        return self._pools[pool].add(name, url, weight)

    def remove(self, pool: str, name: str, *, at_once: bool = False) -> Backend:
        """As `Replicas.remove`."""
        return self._pools[pool].remove(name, at_once=at_once)

    def drain(self, pool: str, name: str) -> Backend:
        """As `Replicas.drain`."""
        return self._pools[pool].drain(name)

    def undrain(self, pool: str, name: str) -> Backend:
        """As `Replicas.undrain`."""
        return self._pools[pool].undrain(name)

    def told(self) -> dict[str, dict[str, Any]]:
        """What is known of each pool, as plain JSON values."""
        return {name: pool.told() for name, pool in self._pools.items()}

    # --- behind the requests ----------------------------------------------------------------------

    async def _tend(self, pool: Replicas) -> None:
        while not await self._stopped(_SWEEP_S):
            pool.sweep()
            if pool.health.outliers:
                now = self._monotonic()
                for backend, why in outliers(tuple(pool), now, pool.patience_s):
                    pool.eject(backend, why)

    async def _probe(self, pool: Replicas, probes: Probes) -> None:
        clock = asyncio.get_running_loop().time
        while not self._stopping.is_set():
            pool.nudge.clear()
            await probes.ask_all()
            until = clock() + pool.health.interval_s
            while (left := until - clock()) > 0:
                doubt = any(each.in_doubt for each in pool)
                # Whoever joins meanwhile waits for the next round, which then comes at once.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, _DOUBT_S) if doubt else left):
                        await pool.nudge.wait()
                        break
                if doubt:
                    await probes.ask_doubtful()

    async def _resolve(self, pool: Replicas, discovery: Discovery) -> None:
        while not await self._stopped(pool.dns_interval_s):
            await discovery.ask()

    async def _stopped(self, within_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._stopping.wait()
        return self._stopping.is_set()

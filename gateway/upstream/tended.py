"""One pool and what is done for it behind the requests: DNS, probes, outliers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from gateway.background import Background
from gateway.upstream.discovery import Discovery
from gateway.upstream.health import Probes
from gateway.upstream.outliers import outliers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from gateway.upstream.choice import Endpoint
    from gateway.upstream.client import Call
    from gateway.upstream.replicas import Replicas

_SWEEP_S = 1.0
# A replica whose last probe spoke against what it is taken for is asked again after that long: who
# hangs is found in half the time, and who is back as well.
_DOUBT_S = 1.0
_JOBS = 3


class Tended:
    """Owns the tasks of one pool. For one event loop."""

    def __init__(
        self,
        pool: Replicas,
        ask: Callable[[Endpoint, str], Call],
        monotonic: Callable[[], float],
        lookup: Callable[[str], Awaitable[Iterable[str]]] | None = None,
    ) -> None:
        """As `Pools` takes them."""
        self.pool = pool
        self._monotonic = monotonic
        self._probes = Probes(pool, ask)
        self._discovery = Discovery(pool, lookup) if pool.dns is not None else None
        self._tasks = Background(_JOBS)
        self._stopping = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Tended {self.pool!r}>"

    async def resolve(self) -> None:
        """Ask DNS once, if there is a name, for at most some seconds."""
        if self._discovery is not None:
            await self._discovery.ask()

    def start(self) -> None:
        """Go on with everything behind the requests."""
        name = self.pool.name
        self._tasks.spawn(self._tend(), f"tending pool {name}")
        if self.pool.health.interval_s:
            self._tasks.spawn(self._probe(), f"probes of {name}")
        if self._discovery is not None:
            self._tasks.spawn(self._resolve(self._discovery), f"DNS of {name}")

    async def close(self, timeout_s: float) -> None:
        """Begin nothing new; what is being asked has so long to end."""
        self._stopping.set()
        if self._discovery is not None:
            await self._discovery.close()
        self.pool.nudge.set()
        await self._tasks.close(timeout_s)

    async def _tend(self) -> None:
        pool = self.pool
        while not await self._stopped(_SWEEP_S):
            pool.sweep()
            if pool.health.outliers:
                now = self._monotonic()
                for backend, why in outliers(tuple(pool), now, pool.patience_s):
                    pool.eject(backend, why)

    async def _probe(self) -> None:
        pool, clock = self.pool, asyncio.get_running_loop().time
        while not self._stopping.is_set():
            pool.nudge.clear()
            await self._probes.ask_all()
            until = clock() + pool.health.interval_s
            while (left := until - clock()) > 0:
                doubt = any(each.in_doubt for each in pool)
                # Whoever joins meanwhile waits for the next round, which then comes at once.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, _DOUBT_S) if doubt else left):
                        await pool.nudge.wait()
                        break
                if doubt:
                    await self._probes.ask_doubtful()

    async def _resolve(self, discovery: Discovery) -> None:
        while not await self._stopped(self.pool.dns_interval_s):
            await discovery.ask()

    async def _stopped(self, within_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._stopping.wait()
        return self._stopping.is_set()

"""What self-hosted engines tell of their load and their prefix cache, read again and again: an upstream's
one engine, or each replica of a pool, for as long as it is one.

Rule 1: no request waits for it, and none fails because of it.
Rule 2: an engine that can't be read keeps its last state, with its age, and is said to fail since when.
Rule 3: counters that went down mean that the engine began anew, with an empty cache: what was known of
it is dropped, and whoever keeps a picture of its cache is told. So is who sleeps.
Rule 4: however many engines there are, few pages a second are read.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import structlog

from gateway.background import Background
from gateway.errors import GatewayError
from gateway.providers.engine_metrics import ENGINE_METRICS
from gateway.upstream.engine import Engine
from gateway.upstream.engine_pages import EnginePages, Unusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from gateway.core.engine_metrics import EngineState
    from gateway.upstream.choice import Endpoint
    from gateway.upstream.client import Call
    from gateway.upstream.replicas import Replicas

_log = structlog.get_logger("warmgate.engines")

DEADLINE_S = 5.0
"""For one page, connecting and reading included."""
SPACING_S = 0.05
"""Between two pages, of whatever engines: where there are so many that their interval is too short for
that, it is longer."""
_LOOK_S = 1.0
"""How often it is looked who has joined or left a pool."""
_MOST = 4096
"""Engines that are watched."""


class Engines:
    """Owns one task for each engine whose metrics the config wants read. For one event loop."""

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        ask: Callable[[Endpoint, str], Call],
        monotonic: Callable[[], float],
        *,
        pools: Mapping[str, Replicas] | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """`ask` GETs a URL of an endpoint; `monotonic` gives seconds; `pools` by upstream's name."""
        wanted = _wanted(endpoints)
        self._engines = {
            each.name: Engine(each, each.metrics_interval_s) for each in wanted if not each.pool
        }
        self._pools = [pools[each.name] for each in wanted if each.pool] if pools else []
        self._pages = EnginePages(ask)
        self._monotonic = monotonic
        self._deadline_s = deadline_s
        self._tasks = Background(2 * _MOST)
        self._stopping = asyncio.Event()
        self.on_restart: Callable[[Engine], None] = _nobody
        """Called when an engine began anew, or was put to sleep: its prefix cache is empty."""
        self.on_sized: Callable[[Engine], None] = _nobody
        """Called when its `size` became known, or another one."""
        for pool in self._pools:
            self._look(pool)

    def __repr__(self) -> str:
        failing = sum(each.failing_since is not None for each in self)
        return f"<Engines {len(self._engines)} watched, {failing} failing>"

    def __bool__(self) -> bool:
        """Is anybody watched, or will be?"""
        return bool(self._engines or self._pools)

    def __iter__(self) -> Iterator[Engine]:
        return iter(tuple(self._engines.values()))

    def __getitem__(self, name: str) -> Engine:
        return self._engines[name]

    def start(self) -> None:
        """Begin to read."""
        for number, engine in enumerate(self):
            self._begin(engine, number * SPACING_S)
        for pool in self._pools:
            self._tasks.spawn(self._follow(pool), f"engines of {pool.name}")

    def turn(self, endpoints: Iterable[Endpoint], pools: Mapping[str, Replicas]) -> None:
        """Another config holds: watch whom it names, and nobody else. Who stays is known as before."""
        wanted = {each.name: each for each in _wanted(endpoints)}
        followed, self._pools = self._pools, [pools[n] for n, each in wanted.items() if each.pool]
        new = [pool for pool in self._pools if not any(pool is each for each in followed)]
        stay = {pool.name: pool for pool in self._pools if pool not in new}
        alone = {name: each for name, each in wanted.items() if not each.pool}
        for engine in self:
            if not engine.backend:
                now = alone.get(engine.name)
            elif (pool := stay.get(engine.endpoint.name)) is not None and engine.backend in pool:
                now = pool[engine.backend].endpoint
            else:
                now = None
            if now is None or not _same_place(now, engine.endpoint):
                self._forget(engine)
            else:
                engine.held_to(now, now.metrics_interval_s)
        for name, each in alone.items():
            if name not in self._engines:
                engine = self._engines[name] = Engine(each, each.metrics_interval_s)
                self._begin(engine, 0.0)
        for pool in new:
            for number, engine in enumerate(self._look(pool)):
                self._begin(engine, number * SPACING_S)
            self._tasks.spawn(self._follow(pool), f"engines of {pool.name}")

    async def close(self, timeout_s: float) -> None:
        """Begin nothing new; what is being read has so long to end."""
        self._stopping.set()
        await self._tasks.close(timeout_s)

    def told(self) -> dict[str, dict[str, Any]]:
        """What is known of each, by its name (`UPSTREAM`, or `UPSTREAM/REPLICA`), as plain JSON values."""
        now = self._monotonic()
        return {name: engine.told(now) for name, engine in self._engines.items()}

    # --- who is watched ---------------------------------------------------------------------------

    def _begin(self, engine: Engine, delay_s: float) -> None:
        def started(task: asyncio.Task[None]) -> None:
            engine.task = task

        self._tasks.spawn(self._watch(engine, delay_s), f"metrics of {engine.name}", started)

    async def _follow(self, pool: Replicas) -> None:
        """Watch who joins, and nobody who has left."""
        while not await self._stops(_LOOK_S):
            if not any(pool is each for each in self._pools):
                return
            for number, engine in enumerate(self._look(pool)):
                self._begin(engine, number * SPACING_S)

    def _look(self, pool: Replicas) -> list[Engine]:
        """Who is new."""
        there = {f"{pool.name}/{each.name}": each for each in pool}
        for engine in self:
            if engine.backend and engine.endpoint.name == pool.name:
                backend = there.get(engine.name)
                # Of the same name, but somewhere else: another one.
                if backend is None or backend.endpoint is not engine.endpoint:
                    self._forget(engine)
        room = max(0, _MOST - len(self._engines))
        new = [
            Engine(backend.endpoint, pool.endpoint.metrics_interval_s, backend.name)
            for name, backend in there.items()
            if name not in self._engines
        ][:room]
        self._engines |= {engine.name: engine for engine in new}
        return new

    def _forget(self, engine: Engine) -> None:
        del self._engines[engine.name]
        if engine.task is not None:
            engine.task.cancel()

    # --- reading ----------------------------------------------------------------------------------

    async def read(self, engine: Engine) -> None:
        """Read one page now. Raises nothing but CancelledError."""
        began = self._monotonic()
        failed_before = engine.failing_since is not None
        facts = _facts(engine)
        try:
            async with asyncio.timeout(self._deadline_s):
                state = await self._pages.state(engine)
        except TimeoutError:
            why = "timeout"
        except Unusable as problem:
            why = str(problem)
        except GatewayError as problem:
            why = problem.code
        except Exception:  # noqa: BLE001 - nobody's request
            _log.exception("an engine's metrics can't be read", **facts)
            why = "failed"
        else:
            self._saw(engine, state)
            if failed_before:
                _log.info("an engine's metrics can be read again", **facts)
            return
        engine.failed(why, began)
        if not failed_before:
            _log.warning("an engine's metrics can't be read", why=why, **facts)

    def _saw(self, engine: Engine, state: EngineState) -> None:
        size = engine.size
        if engine.saw(state, self._monotonic()):
            words = "was put to sleep" if state.awake is False else "began anew"
            _log.info(f"an engine {words}, with an empty cache", **_facts(engine))
            self._hear(self.on_restart, engine)
        if engine.size not in {size, (0, 0)}:
            self._hear(self.on_sized, engine)

    def _hear(self, hook: Callable[[Engine], None], engine: Engine) -> None:
        # What somebody makes of it is no reason to stop reading.
        try:
            hook(engine)
        except Exception:  # noqa: BLE001
            _log.exception("hearing of an engine failed", **_facts(engine))

    async def _watch(self, engine: Engine, delay_s: float) -> None:
        wait_s = delay_s
        while not (wait_s and await self._stops(wait_s)):
            await self.read(engine)
            wait_s = max(engine.interval_s, SPACING_S * len(self._engines))

    async def _stops(self, within_s: float) -> bool:
        """Wait so long; whether it is to end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._stopping.wait()
        return self._stopping.is_set()


def _wanted(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    return [
        each
        for each in endpoints
        if each.metrics_interval_s and each.provider.name in ENGINE_METRICS
    ]


def _same_place(one: Endpoint, other: Endpoint) -> bool:
    return (one.base_url, one.authority, one.provider.name) == (
        other.base_url,
        other.authority,
        other.provider.name,
    )


def _facts(engine: Engine) -> dict[str, str]:
    facts = {"upstream": engine.endpoint.name}
    return facts | {"backend": engine.backend} if engine.backend else facts


def _nobody(_: Engine) -> None:
    """Hears it, and does nothing."""

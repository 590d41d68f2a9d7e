"""What self-hosted engines tell of their load and their prefix cache, read again and again.

Rule 1: no request waits for it, and none fails because of it.
Rule 2: an engine that can't be read keeps its last state, with its age, and is said to fail since when.
Rule 3: counters that went down mean that the engine began anew, with an empty cache: what was known of
it is dropped, and whoever keeps a picture of its cache is told.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import structlog

from gateway.background import Background
from gateway.core.engine_metrics import EngineState, engine_state, hit_share, restarted
from gateway.errors import GatewayError
from gateway.providers.engine_metrics import ENGINE_METRICS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gateway.upstream.choice import Endpoint
    from gateway.upstream.client import Call

_log = structlog.get_logger("warmgate.engines")

DEADLINE_S = 5.0
"""For one page, connecting and reading included."""
PAGE_BYTES = 4 * 1024 * 1024
# Whatever the config says: reading a page costs an engine some milliseconds of its own.
_SHORTEST_S = 0.1


class Engine:
    """One watched engine. Times are those of the clock that it was given."""

    __slots__ = (
        *("_earlier", "endpoint", "failing_since", "failure", "interval_s", "read_at"),
        *("restarts", "state", "url"),
    )

    def __init__(self, endpoint: Endpoint, interval_s: float) -> None:
        self.endpoint = endpoint
        self.url = metrics_url(endpoint.base_url)
        self.interval_s = max(_SHORTEST_S, interval_s)
        self.state: EngineState | None = None
        """As it was at `read_at`; None before it was ever read."""
        self.read_at = 0.0
        self.failing_since: float | None = None
        """When the first of the failures in a row began; None where the last page was read."""
        self.failure = ""
        """A short word: `timeout`, `status 404`, `too_long`, `no_metrics`, or an error's code."""
        self.restarts = 0
        self._earlier: EngineState | None = None

    def __repr__(self) -> str:
        said = "failing" if self.failing_since is not None else "read" if self.state else "new"
        return f"<Engine {self.endpoint.name} {said}>"

    @property
    def recent_share(self) -> float | None:
        """Which part of the prompt tokens of the last interval was in the prefix cache, from 0 to 1;
        None where the engine doesn't tell, nothing was asked, or it was read but once.
        """
        if self.state is None:
            return None
        if self.state.queried_tokens is None or self.state.hit_tokens is None:
            return self.state.hit_share
        return None if self._earlier is None else hit_share(self.state, self._earlier)

    @property
    def total_share(self) -> float | None:
        """The same since the engine started."""
        return None if self.state is None else hit_share(self.state)

    def saw(self, state: EngineState, at: float) -> bool:
        """A page was read; whether it shows that the engine began anew."""
        anew = self.state is not None and restarted(self.state, state)
        self.restarts += anew
        # What an engine that began anew has counted, it has counted since the last page.
        self._earlier = EngineState(queried_tokens=0.0, hit_tokens=0.0) if anew else self.state
        self.state, self.read_at = state, at
        self.failing_since, self.failure = None, ""
        return anew

    def failed(self, why: str, at: float) -> None:
        """It could not be read."""
        if self.failing_since is None:
            self.failing_since = at
        self.failure = why

    def told(self, now: float) -> dict[str, Any]:
        """All that is known, as plain JSON values; null where it isn't."""
        state, failing = self.state or EngineState(), self.failing_since
        return {
            "engine": self.endpoint.provider.name,
            "running": state.running,
            "waiting": state.waiting,
            "kv_usage": _rounded(state.kv_usage, 4),
            "prefix_hit_share": {
                "interval": _rounded(self.recent_share, 4),
                "total": _rounded(self.total_share, 4),
            },
            "restarts": self.restarts,
            "age_s": None if self.state is None else round(now - self.read_at, 3),
            "failing_s": None if failing is None else round(now - failing, 3),
            "failure": self.failure or None,
        }


class Engines:
    """Owns one task for each engine whose metrics the config wants read. For one event loop."""

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        ask: Callable[[Endpoint, str], Call],
        monotonic: Callable[[], float],
        *,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """`ask` GETs a URL of an endpoint; `monotonic` gives seconds."""
        self._engines = {
            endpoint.name: Engine(endpoint, endpoint.metrics_interval_s)
            for endpoint in endpoints
            if endpoint.metrics_interval_s and endpoint.provider.name in ENGINE_METRICS
        }
        self._ask = ask
        self._monotonic = monotonic
        self._deadline_s = deadline_s
        self._tasks = Background(len(self._engines))
        self._stopping = asyncio.Event()
        self.on_restart: Callable[[Engine], None] = _nobody
        """Called when an engine began anew: its prefix cache is empty."""

    def __repr__(self) -> str:
        failing = sum(each.failing_since is not None for each in self)
        return f"<Engines {len(self._engines)} watched, {failing} failing>"

    def __iter__(self) -> Iterator[Engine]:
        return iter(self._engines.values())

    def __getitem__(self, name: str) -> Engine:
        return self._engines[name]

    def start(self) -> None:
        """Begin to read."""
        for engine in self:
            self._tasks.spawn(self._watch(engine), f"metrics of {engine.endpoint.name}")

    async def close(self, timeout_s: float) -> None:
        """Begin nothing new; what is being read has so long to end."""
        self._stopping.set()
        await self._tasks.close(timeout_s)

    def told(self) -> dict[str, dict[str, Any]]:
        """What is known of each, by the upstream's name, as plain JSON values."""
        now = self._monotonic()
        return {name: engine.told(now) for name, engine in self._engines.items()}

    async def read(self, engine: Engine) -> None:
        """Read one page now. Raises nothing but CancelledError."""
        began = self._monotonic()
        failed_before = engine.failing_since is not None
        name = engine.endpoint.name
        try:
            async with asyncio.timeout(self._deadline_s):
                state = await self._page(engine)
        except TimeoutError:
            why = "timeout"
        except _Unusable as problem:
            why = str(problem)
        except GatewayError as problem:
            why = problem.code
        except Exception:  # noqa: BLE001 - nobody's request
            _log.exception("an engine's metrics can't be read", upstream=name)
            why = "failed"
        else:
            if engine.saw(state, self._monotonic()):
                _log.info("an engine began anew, with an empty cache", upstream=name)
                self.on_restart(engine)
            if failed_before:
                _log.info("an engine's metrics can be read again", upstream=name)
            return
        engine.failed(why, began)
        if not failed_before:
            _log.warning("an engine's metrics can't be read", upstream=name, why=why)

    async def _watch(self, engine: Engine) -> None:
        while not self._stopping.is_set():
            await self.read(engine)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(engine.interval_s):
                    await self._stopping.wait()

    async def _page(self, engine: Engine) -> EngineState:
        async with self._ask(engine.endpoint, engine.url) as response:
            if response.status != 200:
                raise _Unusable(f"status {response.status}")
            page = bytearray()
            while part := await response.content.readany():
                page += part
                if len(page) > PAGE_BYTES:
                    raise _Unusable("too_long")
        names = ENGINE_METRICS[engine.endpoint.provider.name]
        # A large page takes milliseconds in which nobody else would be served.
        state = await asyncio.to_thread(engine_state, page.decode("utf-8", "replace"), names)
        if state.silent:
            raise _Unusable("no_metrics")
        return state


class _Unusable(Exception):
    """A page that says nothing; its text is the short word for why."""


def metrics_url(base_url: str) -> str:
    """`/metrics` beside the API, which is what `/v1` at the end of a base URL is."""
    return f"{base_url.rstrip('/').removesuffix('/v1')}/metrics"


def _nobody(_: Engine) -> None:
    """Hears it, and does nothing."""


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)

"""The composition root: builds everything from the config, and owns the order of start and stop."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from gateway import __version__
from gateway.background import Background
from gateway.cache import Clock
from gateway.current import Current
from gateway.lasting import MOST_CALLS, Parts
from gateway.reachable import Reachable
from gateway.reloading import Reloading
from gateway.server.admin_port import AdminPort
from gateway.server.drain import Drain
from gateway.server.listener import Listener
from gateway.server.probes import Readiness, probe_app
from gateway.store.generations import Generations
from gateway.store.open import default_url, describe, open_store, redis_access
from gateway.store.registers import open_register
from gateway.store.secret import scope_secrets
from gateway.telemetry.loop_lag import LoopLag
from gateway.telemetry.setup import Telemetry
from gateway.upstream.client import UpstreamClient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.assembly import Assembled
    from gateway.config import Config
    from gateway.config.source import Source
    from gateway.store.base import Store
    from gateway.store.secret import ScopeSecrets

_log = structlog.get_logger("warmgate.app")

_MAX_HEAD_BYTES = 64 * 1024
_TELEMETRY_CLOSE_S = 5.0
_BACKGROUND_CLOSE_S = 5.0
_WARMING_CLOSE_S = 2.0
_PLACEMENTS_CLOSE_S = 1.0
_KEEPALIVE_S = 75.0
# After the drain: for the last bytes of an answer, and then for a cancelled handler to end.
_LAST_S = 0.5


@dataclass(slots=True)
class RunningGateway:
    """A gateway that serves. `api_url` and `probe_url` are where it listens."""

    api_url: str
    probe_url: str
    admin_url: str | None
    """None when its port was taken."""
    readiness: Readiness
    background: Background
    reloading: Reloading
    _api: web.ServerRunner
    _calls: Background
    _drain: Drain
    _probes: web.AppRunner
    _admin: AdminPort
    _current: Current
    _client: UpstreamClient
    _store: Store
    _generations: Generations
    _secrets: ScopeSecrets
    _telemetry: Telemetry
    _lag: LoopLag

    @property
    def config(self) -> Config:
        """The one that holds."""
        return self._current.config

    @property
    def _assembled(self) -> Assembled:
        return self._current.assembled

    def wake(self) -> None:
        """Look at the clock: it may have been set."""
        self._assembled.refreshing.wake()

    def cut(self) -> None:
        """Somebody who waits for `stop` waits no longer for what still runs."""
        self._drain.cut()

    async def stop(self) -> None:
        """Drain and close, in the reverse order of the start; each step has a bound."""
        # At once: whoever probes is to know before anything else is waited for.
        self._drain.begin()
        if not await self._drain.drain(self.config.server.drain_timeout_s):
            _log.warning("cutting what still runs", drain=repr(self._drain))
        await self.reloading.close()
        await self._api.cleanup()
        # Their requests are gone, and so are they, but for the answers they still hand on.
        await self._calls.close(_LAST_S)
        await self.background.close(_BACKGROUND_CLOSE_S)
        parts = self._assembled
        await asyncio.gather(
            parts.warming.close(_WARMING_CLOSE_S),
            parts.refreshing.close(_WARMING_CLOSE_S),
            # Nobody needs what an engine would tell now.
            parts.engines.close(0.0),
            parts.pools.close(0.0),
            parts.welcome.close(0.0),
            parts.placements.close(_PLACEMENTS_CLOSE_S),
            self._current.close(),
        )
        parts.planning.close()
        parts.routing.close()
        # Whoever makes calls has ended.
        parts.telling.flush()
        await parts.accounts.close()
        await self._client.close()
        await self._secrets.close()
        await self._admin.close()
        await self._generations.close()
        await self._store.close()
        await self._probes.cleanup()
        self._lag.close()
        await asyncio.to_thread(self._telemetry.close, _TELEMETRY_CLOSE_S)


async def start(
    config: Config,
    environ: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    source: Source | None = None,
) -> RunningGateway:
    """Build it and listen; `source` is where `config` came from, to be read again. Raises OSError when
    a port can't be had, ValueError for a bad store.
    """
    environ = os.environ if environ is None else environ
    clock = clock or Clock(now=time.time, monotonic=time.monotonic)
    telemetry = Telemetry.start(config.telemetry, environ, __version__)
    store_url = config.store.url or default_url(environ)
    store = open_store(config.store, clock.now, environ)
    secrets = scope_secrets(
        [secret.get_secret_value() for secret in config.cache.secret],
        store_url,
        config.store.key_prefix,
        redis_access(config.store),
    )
    await store.start()
    await secrets.start()
    generations = Generations(
        open_register(store, clock.now),
        bound_s=config.cache.purge_bound_s,
        monotonic=clock.monotonic,
    )
    await generations.start()
    client = UpstreamClient(telemetry.metrics.called)
    await client.start()
    background = Background()
    calls = Background(MOST_CALLS)
    current = Current(
        config,
        Parts(
            store=store,
            generations=generations,
            secrets=secrets,
            client=client,
            background=background,
            calls=calls,
            telemetry=telemetry,
            clock=clock,
        ),
    )
    assembled = current.assembled
    readiness = _readiness(current)
    server = Listener(
        current.handle,
        current.refuse,
        handler_cancellation=True,
        access_log=None,
        # A body that came compressed goes on compressed.
        auto_decompress=False,
        keepalive_timeout=_KEEPALIVE_S,
        max_line_size=_MAX_HEAD_BYTES,
        max_field_size=_MAX_HEAD_BYTES,
    )
    drain = Drain(
        server,
        readiness,
        delay_s=config.server.drain_delay_s,
        idle_s=config.server.drain_idle_s,
    )
    api = web.ServerRunner(server, shutdown_timeout=_LAST_S)
    await api.setup()
    probes = web.AppRunner(probe_app(readiness, telemetry.metrics), access_log=None)
    await probes.setup()
    reloading = Reloading(source, lambda: current.config, current.turn)
    telemetry.metrics.watch_config(reloading.told)
    admin = AdminPort(
        config,
        store,
        generations,
        clock.now,
        environ,
        explain=current.explain,
        engines=assembled.engines.told,
        sharing=assembled.placements.told,
        pools=assembled.pools,
        drain=drain,
        configured=reloading,
        page=assembled.page,
        savings=assembled.savings,
    )
    # Whom DNS names must be known before the first request.
    await assembled.pools.start()
    await assembled.placements.start()
    try:
        api_url = await _listen(api, config.server.host, config.server.port)
        probe_url = await _listen(probes, config.server.probe_host, config.server.probe_port)
    except OSError:
        await api.cleanup()
        await probes.cleanup()
        await admin.close()
        await assembled.pools.close(0.0)
        await assembled.placements.close(0.0)
        await client.close()
        await secrets.close()
        await generations.close()
        await store.close()
        raise
    await admin.start(_listen)
    # Ready when the prompts of the config are warm, or have had their time.
    assembled.warming.start(readiness.ready)
    assembled.refreshing.start()
    assembled.engines.start()
    assembled.accounts.start()
    reloading.start()
    _log.info(
        "listening", api=api_url, probes=probe_url, admin=admin.url, store=describe(store_url)
    )
    return RunningGateway(
        api_url=api_url,
        probe_url=probe_url,
        admin_url=admin.url,
        readiness=readiness,
        background=background,
        reloading=reloading,
        _api=api,
        _calls=calls,
        _drain=drain,
        _probes=probes,
        _admin=admin,
        _current=current,
        _client=client,
        _store=store,
        _generations=generations,
        _secrets=secrets,
        _telemetry=telemetry,
        _lag=LoopLag(telemetry.metrics.lagged),
    )


def _readiness(current: Current) -> Readiness:
    readiness, reachable = Readiness(), Reachable(current.config, current.assembled.pools)
    readiness.watch(reachable.checks)
    current.on_turned = lambda: reachable.turn(current.config)
    return readiness


async def _listen(runner: web.ServerRunner | web.AppRunner, host: str, port: int) -> str:
    site = web.TCPSite(runner, host, port, backlog=1024, reuse_address=True)
    await site.start()
    bound = runner.addresses[0]
    shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    return f"http://{shown}:{bound[1]}"

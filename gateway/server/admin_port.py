"""The admin port opened and closed: with the store that operators look at, beside the requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from gateway.server.admin import Admin
from gateway.server.admin_backends import AdminBackends
from gateway.server.admin_config import AdminConfig
from gateway.server.admin_drain import AdminDrain
from gateway.store.inventory import Inventory
from gateway.store.open import open_store
from gateway.store.walk import furthest
from gateway.telemetry.tracebacks import kind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from gateway.config import Config
    from gateway.server.admin import Desk, Explain, Tell
    from gateway.server.admin_config import Configured
    from gateway.server.drain import Drain
    from gateway.store.base import Store
    from gateway.store.generations import Generations
    from gateway.upstream.pools import Pools

_log = structlog.get_logger("warmgate.admin")

_PATIENT_MS = 5000.0


class AdminPort:
    """One for each gateway. A port that is taken is no reason not to serve."""

    def __init__(
        self,
        config: Config,
        store: Store,
        generations: Generations,
        clock: Callable[[], float],
        environ: Mapping[str, str],
        *,
        explain: Explain,
        engines: Tell,
        sharing: Tell = dict,
        pools: Pools,
        drain: Drain,
        configured: Configured,
        page: Desk,
        savings: Desk,
    ) -> None:
        """`store` is the one that requests are served from; `clock` gives seconds since the epoch."""
        self._where = (config.admin.host, config.admin.port)
        self._own: Store | None = None
        if furthest(store).name == "redis":
            # Over connections of its own and with patience, so that requests don't wait behind it.
            # (SQLite is read beside the store anyway.)
            patient = {"memory_bytes": 0, "deadline_ms": _PATIENT_MS}
            self._own = open_store(config.store.model_copy(update=patient), clock, environ)
        inventory = Inventory(self._own or store, generations, clock)
        token = config.admin.token.get_secret_value() if config.admin.token else None
        admin = Admin(inventory, store, token, explain=explain, engines=engines, sharing=sharing)
        who = admin.who
        own = AdminBackends(pools, who), AdminDrain(drain, who), AdminConfig(configured, who)
        app = admin.app(*own, page, savings)
        self._runner = web.AppRunner(app, access_log=None)
        self.url: str | None = None
        """Where it listens; None when it doesn't."""

    async def start(self, listen: Callable[[web.AppRunner, str, int], Awaitable[str]]) -> None:
        """Open the port with `listen`, which returns its URL."""
        await self._runner.setup()
        try:
            self.url = await listen(self._runner, *self._where)
        except OSError as exc:
            # Another gateway on this host has it.
            _log.error("no admin port: set admin.port", port=self._where[1], error=kind(exc))

    async def close(self) -> None:
        """Close the port and what it looks at."""
        await self._runner.cleanup()
        if self._own is not None:
            await self._own.close()

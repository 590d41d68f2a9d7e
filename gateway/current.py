"""What serves now: everything that was assembled under the config that holds, turned over whole.

Rule 1: a request goes its whole way under one config, that of its first line.
Rule 2: whoever may take long (DNS) is asked before anything changes; from then on nobody waits, so
that no request comes between the old and the new.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from gateway.assembly import assemble, reassemble, turn
from gateway.background import Background
from gateway.placements import START_S
from gateway.upstream.choice import Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from aiohttp import web

    from gateway.assembly import Assembled, Turned
    from gateway.config import Config
    from gateway.lasting import Parts

_log = structlog.get_logger("warmgate.config")

_LEAVE_S = 1.0


class Current:
    """Owns what is left to do after a turn. For one event loop."""

    def __init__(self, config: Config, parts: Parts) -> None:
        self.assembled: Assembled = assemble(config, parts)
        """Under the config that holds."""
        self.on_turned: Callable[[], None] = _nobody
        """Called when another one holds."""
        self._parts = parts
        self._turning = asyncio.Lock()
        self._after = Background()

    def __repr__(self) -> str:
        return f"<Current {self.config.generation()}>"

    @property
    def config(self) -> Config:
        """The one that holds."""
        return self.assembled.config

    # --- for each request -------------------------------------------------------------------------

    def handle(self, request: web.BaseRequest) -> Coroutine[Any, Any, web.StreamResponse]:
        """As `Proxy.handle`."""
        return self.assembled.proxy.handle(request)

    def refuse(self, request: web.BaseRequest) -> Coroutine[Any, Any, web.StreamResponse]:
        """As `Proxy.refuse`."""
        return self.assembled.proxy.refuse(request)

    def explain(
        self, target: str, body: bytes, headers: Mapping[str, str]
    ) -> Coroutine[Any, Any, dict[str, Any]]:
        """As `Explaining.explain`."""
        return self.assembled.explaining.explain(target, body, headers)

    # --- another config ---------------------------------------------------------------------------

    async def turn(self, config: Config) -> None:
        """Let it hold. What can't change while we run is as in the one that holds (`changes`). Waits
        for DNS where a pool needs it. Raises whatever goes wrong: then the old one holds.
        """
        async with self._turning:
            before, choice = self.assembled, Choice(config)
            joining = await before.pools.joining(config.upstreams, choice.endpoints)
            try:
                after = reassemble(before, config, choice, self._parts, joining)
            except BaseException:
                for each in joining.values():
                    await each.close(0.0)
                raise
            turned = turn(before, after, self._parts, joining)
            self._parts.secrets.turn([each.get_secret_value() for each in config.cache.secret])
            self.assembled = after
            self.on_turned()
            self._after.spawn(_settle(turned), "settling another config")

    async def close(self) -> None:
        """Turn no more."""
        await self._after.close(_LEAVE_S)


async def _settle(turned: Turned) -> None:
    started = (feed.start(START_S) for feed in turned.arriving)
    left = (each.close(_LEAVE_S) for each in turned.leaving)
    for failed in await asyncio.gather(*started, *left, return_exceptions=True):
        if isinstance(failed, Exception):
            _log.error("what the config had before did not end well", exc_info=failed)


def _nobody() -> None:
    """Hears it, and does nothing."""

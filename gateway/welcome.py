"""A replica whose cache is empty is given the hottest prefixes before it gets requests: `Welcome`.

Rule 1: as much as `routing.warm_tokens`, for no longer than `routing.warm_timeout_s`; whatever becomes of
it, then the replica takes its share.
Rule 2: only with the credential that the config has, or with none where clients send none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import structlog

from gateway.background import Background
from gateway.prefill import OK
from gateway.providers.prompt_cache_rules import cache_rules
from gateway.wire.table import APIS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.hot import Prefix
    from gateway.pooled import Pooled
    from gateway.prefill import Prefill
    from gateway.upstream.backend import Backend
    from gateway.upstream.choice import Endpoint

_log = structlog.get_logger("warmgate.pools")

_LEAST_S = 0.1
_MOST_AT_ONCE = 64


class Welcome:
    """Warms replicas, each in a task of its own."""

    def __init__(self, prefill: Prefill, timer: Callable[[], float]) -> None:
        """`timer` gives monotonic seconds."""
        self._prefill = prefill
        self._tasks = Background(_MOST_AT_ONCE)
        self._timer = timer

    def turn(self, prefill: Prefill) -> None:
        """Send by this one from now on: another config holds."""
        self._prefill = prefill

    async def close(self, timeout_s: float) -> None:
        """Begin nothing new; what is being sent has so long to end."""
        await self._tasks.close(timeout_s)

    def __call__(self, pool: Pooled, backend: Backend) -> None:
        """Begin with this one, and say `warmed` to it in the end; at once where nothing is hot."""
        routing = pool.router.replicas.routing
        prefixes: list[Prefix] = []
        if routing.warm_tokens and routing.warm_timeout_s:
            prefixes = pool.hot.hottest(routing.warm_tokens, self._timer())
        if not prefixes or not self._tasks.spawn(
            self._warm(pool.router.replicas.endpoint, backend, prefixes, routing.warm_timeout_s),
            f"warming {backend.name}",
        ):
            backend.warmed()

    async def _warm(
        self, pool: Endpoint, backend: Backend, prefixes: list[Prefix], within_s: float
    ) -> None:
        began = self._timer()
        done = tokens = 0
        try:
            for prefix in prefixes:
                left_s = within_s - (self._timer() - began)
                if left_s < _LEAST_S:
                    break
                outcome = await self._send(pool, backend, prefix, left_s)
                if outcome == OK:
                    done, tokens = done + 1, tokens + prefix.tokens
                elif not outcome.isdecimal():
                    # Not refused: it doesn't answer.
                    break
        finally:
            backend.warmed()
        _log.info(
            "a replica is warm",
            pool=pool.name,
            backend=backend.name,
            prefixes=done,
            of=len(prefixes),
            tokens=tokens,
            seconds=round(self._timer() - began, 3),
        )

    async def _send(self, pool: Endpoint, backend: Backend, prefix: Prefix, within_s: float) -> str:
        document = orjson.loads(prefix.body)
        api = APIS[prefix.path].name
        rules = cache_rules(pool.caches_as, api, str(document.get("model")))
        outcome, _ = await self._prefill.send(
            pool, prefix.path, document, rules, why="replica", timeout_s=within_s, only=backend
        )
        return outcome

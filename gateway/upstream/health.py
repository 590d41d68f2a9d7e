"""Probes: each replica is asked again and again whether it is well.

Rule 1: no request waits for a probe, and a probe changes no count of requests.
Rule 2: well is who answers in time with a status that says nothing else: a server without our
credential's favour (401, 403), or too busy (429), is there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from gateway.errors import GatewayError
from gateway.upstream.backend import failure_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.upstream.backend import Backend
    from gateway.upstream.choice import Endpoint
    from gateway.upstream.client import Call
    from gateway.upstream.replicas import Replicas

_log = structlog.get_logger("warmgate.pools")

_AT_ONCE = 64
_BODY_BYTES = 64 * 1024
_THERE = frozenset((401, 403, 429))
# Not every server of OpenAI's API lists its models.
_NO_SUCH_PATH = frozenset((404, 405, 501))


class Probes:
    """Asks the replicas of one pool."""

    def __init__(self, replicas: Replicas, ask: Callable[[Endpoint, str], Call]) -> None:
        """`ask` GETs a URL of an endpoint, with the pool's own credential."""
        self._replicas = replicas
        self._ask = ask
        self._room = asyncio.Semaphore(_AT_ONCE)

    def __repr__(self) -> str:
        return f"<Probes of {self._replicas.name}>"

    async def ask_all(self) -> None:
        """One round; takes as long as the slowest answer, or `health.timeout_s` and what waits behind
        that. Raises nothing but CancelledError.
        """
        await asyncio.gather(*map(self.ask_one, self._replicas))

    async def ask_doubtful(self) -> None:
        """Only those of whom the last probe said something new."""
        await asyncio.gather(*(self.ask_one(each) for each in self._replicas if each.in_doubt))

    async def ask_one(self, backend: Backend) -> None:
        """One probe, told to its backend."""
        async with self._room:
            if not self._replicas.has(backend):
                # It left while it waited for its turn.
                return
            try:
                async with asyncio.timeout(self._replicas.health.timeout_s):
                    why = await self._asked(backend)
            except (GatewayError, TimeoutError) as problem:
                why = failure_of(problem)
            except Exception as problem:  # noqa: BLE001 - nobody's request
                _log.exception("a replica can't be probed", backend=backend.name)
                why = failure_of(problem)
        backend.probed(why)

    async def _asked(self, backend: Backend) -> str | None:
        endpoint = backend.endpoint
        path, engine = self._replicas.health.path, self._replicas.engine
        async with self._ask(endpoint, probe_url(endpoint.base_url, engine, path)) as response:
            status, read = response.status, 0
            # To its end, so that the connection can be used again; but nobody's flood.
            while read < _BODY_BYTES and (part := await response.content.readany()):
                read += len(part)
        if status < 400 or status in _THERE:
            return None
        if path is None and engine == "openai" and status in _NO_SUCH_PATH:
            return None
        return f"status {status}"


def probe_url(base_url: str, engine: str, path: str | None) -> str:
    """Where a replica is asked whether it is well."""
    if path is not None:
        parts = urlsplit(base_url)
        return f"{parts.scheme}://{parts.netloc}{path}"
    if engine == "openai":
        return f"{base_url}/models"
    return f"{base_url.removesuffix('/v1')}/health"

"""The probe port: /livez, /readyz and /metrics, nothing else.

Probes answer from what is already known, in constant time; they ask neither store nor upstream.
A store that is away does not make us unready: requests go on without it.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from gateway.telemetry.metrics import Metrics

_PROMETHEUS = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
_NO_STORE = {"Cache-Control": "no-store"}


class State(StrEnum):
    """Where the process is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Readiness:
    """Whether traffic should come here; a snapshot that others keep up to date."""

    def __init__(self) -> None:
        self.state = State.STARTING
        self._checks: dict[str, tuple[bool, bool]] = {}

    def __repr__(self) -> str:
        return f"<Readiness {self.status}>"

    def ready(self) -> None:
        """The listener is open. Ignored while draining: there is no way back."""
        if self.state is State.STARTING:
            self.state = State.READY

    def drain(self) -> None:
        """No new traffic, please; what runs goes on."""
        self.state = State.DRAINING

    def report(self, check: str, *, ok: bool, required: bool = False) -> None:
        """The latest of a named check. Only a `required` one that fails makes us unready."""
        self._checks[check] = (ok, required)

    @property
    def status(self) -> str:
        """`ready`, `starting`, `draining`, or `failing` when a required check fails."""
        if self.state is State.READY and any(
            required and not ok for ok, required in self._checks.values()
        ):
            return "failing"
        return self.state.value

    def snapshot(self) -> dict[str, Any]:
        """For people: the status, and every check with whether it holds and whether it must."""
        return {
            "status": self.status,
            "checks": {
                name: {"ok": ok, "required": required}
                for name, (ok, required) in self._checks.items()
            },
        }


def probe_app(readiness: Readiness, metrics: Metrics) -> web.Application:
    """The application of the probe port; whatever else is asked for is 404, as is /metrics when
    metrics are off. `?verbose` lists the checks.
    """

    async def livez(request: web.Request) -> web.Response:
        body: dict[str, Any] = {"status": "alive"}
        if "verbose" in request.query:
            body = {**readiness.snapshot(), **body}
        return _json(200, body)

    async def readyz(request: web.Request) -> web.Response:
        status = readiness.status
        body: dict[str, Any] = {"status": status}
        if "verbose" in request.query:
            body = readiness.snapshot()
        return _json(200 if status == "ready" else 503, body)

    async def prometheus(_: web.Request) -> web.Response:
        if not metrics.enabled:
            return _json(404, {"status": "metrics are off"})
        # One scrape at a time holds a thread; the others wait here, not in the thread pool.
        async with rendering:
            text = await asyncio.to_thread(metrics.render)
        return web.Response(body=text, headers=_NO_STORE | _PROMETHEUS)

    async def nothing(_: web.Request) -> web.Response:
        return _json(404, {"status": "not found"})

    rendering = asyncio.Lock()
    app = web.Application()
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", prometheus)
    app.router.add_route("*", "/{anything:.*}", nothing)
    return app


def _json(status: int, body: dict[str, Any]) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(body), content_type="application/json", headers=_NO_STORE
    )

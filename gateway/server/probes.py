"""The probe port: /livez, /readyz and /metrics, nothing else.

Probes answer from what is already known, in constant time; they ask neither store nor upstream.
A store that is away does not make us unready: requests go on without it.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.telemetry.metrics import Metrics

_PROMETHEUS = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
_NO_STORE = {"Cache-Control": "no-store"}


class State(StrEnum):
    """Where the process is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Check(NamedTuple):
    """One thing that is looked at."""

    ok: bool
    required: bool
    """Where it isn't ok, we are not ready."""


class Readiness:
    """Whether traffic should come here, by what others know already."""

    def __init__(self) -> None:
        self.state = State.STARTING
        self._checks: Callable[[], Mapping[str, Check]] = dict

    def __repr__(self) -> str:
        return f"<Readiness {self.status}>"

    def ready(self) -> None:
        """The listener is open. Ignored while draining: there is no way back."""
        if self.state is State.STARTING:
            self.state = State.READY

    def drain(self) -> None:
        """No new traffic, please; what runs goes on."""
        self.state = State.DRAINING

    def watch(self, checks: Callable[[], Mapping[str, Check]]) -> None:
        """Ask this one, at each probe, for what is known by name. It must not wait for anything."""
        self._checks = checks

    @property
    def status(self) -> str:
        """`ready`, `starting`, `draining`, or `failing` when a required check fails."""
        if self.state is State.READY and any(
            each.required and not each.ok for each in self._checks().values()
        ):
            return "failing"
        return self.state.value

    def snapshot(self) -> dict[str, Any]:
        """For people: the status, and every check with whether it holds and whether it must."""
        return {
            "status": self.status,
            "checks": {name: each._asdict() for name, each in self._checks().items()},
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

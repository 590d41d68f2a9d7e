"""`POST /admin/drain`: what SIGTERM does, without the end. For scripts and hooks that end it later.

Again: how far it is. There is no way back: balancers have been told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.server.admin import Refused, body_of, json_answer
from gateway.telemetry.audit import audited

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from gateway.server.drain import Drain


class AdminDrain:
    """Answers requests to drain this gateway."""

    def __init__(self, drain: Drain, who: Callable[[web.Request], str]) -> None:
        """`who` says who asks, for the audit."""
        self._drain = drain
        self._who = who

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the route."""
        router.add_post("/admin/drain", self._begin)

    async def _begin(self, request: web.Request) -> web.Response:
        # An object, though an empty one: no page can send that without asking first.
        if body := await body_of(request):
            raise Refused(400, "bad_request", f"unknown member {next(iter(body))!r}")
        drain = self._drain
        if not drain.begun:
            audited("drain", who=self._who(request), result="draining", requests=drain.busy)
            drain.begin()
        told = {"state": "draining", "requests": drain.busy, "connections": drain.connections}
        return json_answer(told)

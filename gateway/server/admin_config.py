"""The config that holds, and reading it again: `/admin/config` of the admin port.

Rule 1: no secret is shown, nor a password inside a URL.
Rule 2: reading it again changes what the files say, and nothing else: no config is taken from a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web
from blake3 import blake3

from gateway.server.admin import Refused, body_of, json_answer
from gateway.telemetry.audit import audited

if TYPE_CHECKING:
    from collections.abc import Callable


class Configured(Protocol):
    """Who reads the config (`gateway.reloading`)."""

    def shown(self) -> dict[str, Any]:
        """What holds, where it came from, and what became of the last one: plain JSON values."""

    async def again(self) -> dict[str, Any]:
        """Read it again; what became of it, with `outcome`. Raises LookupError where there is nothing to
        read.
        """


class AdminConfig:
    """Answers requests about the config."""

    def __init__(self, configured: Configured, who: Callable[[web.Request], str]) -> None:
        """`who` says who asks, for the audit."""
        self._configured = configured
        self._who = who

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the routes."""
        router.add_get("/admin/config", self._show)
        router.add_post("/admin/config/reload", self._reload)

    async def _show(self, request: web.Request) -> web.Response:
        answer = json_answer(self._configured.shown())
        assert isinstance(answer.body, bytes)
        answer.etag = tag = blake3(answer.body).hexdigest(length=8)
        asked = request.if_none_match or ()
        if any(each.value in {tag, "*"} for each in asked):
            return web.Response(status=304, headers={"ETag": answer.headers["ETag"]})
        return answer

    async def _reload(self, request: web.Request) -> web.Response:
        # An object, though an empty one: no page can send that without asking first.
        if body := await body_of(request):
            raise Refused(400, "bad_request", f"unknown member {next(iter(body))!r}")
        try:
            told = await self._configured.again()
        except LookupError as exc:
            raise Refused(409, "nothing_to_read", str(exc)) from exc
        audited("reload config", who=self._who(request), result=told["outcome"])
        return json_answer(told, 422 if told["outcome"] == "refused" else 200)

"""aiohttp's server, with our own answer to what is no HTTP.

Its own would log a traceback for every port scan, at level error and with the bytes that could
not be read: sometimes a header line with a credential in it.
"""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.errors import BadRequest, GatewayError
from gateway.server import replies
from gateway.wire.table import error_api

if TYPE_CHECKING:
    import asyncio

_log = structlog.get_logger("warmgate.listener")


class Listener(web.Server):
    """Makes the protocol of each connection."""

    def __init__(self, handler: Any, **settings: Any) -> None:
        """`settings` are those of `web.Server`."""
        super().__init__(handler, **settings)
        self._settings = self._kwargs
        self._inline: Any = None

    def __call__(self) -> RequestHandler:
        """The protocol of a new connection."""
        if self._inline is None:
            loop: asyncio.AbstractEventLoop = self._loop
            self._inline = _Inline(loop) if sys.version_info < (3, 12) else loop
        return _Connection(self, loop=self._inline, **self._settings)


class _Inline:
    """A loop that runs aiohttp's handler of a request in the task of its connection.

    aiohttp makes a task of its own for each request, for a context of its own, which nothing here
    uses. From Python 3.12 on it starts eagerly and costs next to nothing; before, it is a tenth of
    what a hit costs. Cancelling the connection's task cancels the handler either way.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.create_future = loop.create_future
        self.call_at = loop.call_at
        self.time = loop.time

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def create_task(self, work: Any, **options: Any) -> Any:
        """The handler itself, to be awaited; a task for anything else."""
        if work.__name__ == RequestHandler._handle_request.__name__:  # noqa: SLF001 - that one
            return work
        return self._loop.create_task(work, **options)


class _Connection(RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """An error in the shape of an API, for what never reached our handler or escaped it."""
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun: nothing else can be said")
        request_id = f"gw_{secrets.token_hex(12)}"
        problem: GatewayError
        if status < 500:
            what = (message or type(exc).__name__).partition("\n")[0].rstrip(":")
            problem = BadRequest(f"this is no HTTP request that can be read: {what[:200]}")
            _log.info("not HTTP", request_id=request_id, error=type(exc).__name__)
        else:
            problem = GatewayError("the gateway failed; its log has the details")
            _log.error("request failed", request_id=request_id, exc_info=exc)
        answer = replies.error(problem, error_api(request.path, request.headers), request_id)
        answer.force_close()
        return answer

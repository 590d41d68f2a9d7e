"""aiohttp's server, with our own answer to what is no HTTP, and a polite end.

aiohttp's own answer would log a traceback for every port scan, at level error and with the bytes that could
not be read: sometimes a header line with a credential in it.
"""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.errors import BadRequest, GatewayError
from gateway.server import replies
from gateway.wire.table import error_api

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_log = structlog.get_logger("warmgate.listener")


class Listener(web.Server):
    """Makes the protocol of each connection, and knows which are open.

    Rule 1: once `leaving`, each answer whose head isn't out says that its connection closes.
    Rule 2: whoever connects after `refuse_newcomers` gets a refusal that can be read, and nothing else.
    """

    def __init__(
        self,
        handler: Handler,
        refusal: Handler,
        **settings: Any,
    ) -> None:
        """`refusal` answers who comes too late; `settings` are those of `web.Server`."""
        super().__init__(handler, request_factory=self._asked, **settings)
        self._settings = self._kwargs
        self._inline: Any = None
        self._refusal = refusal
        self._refusing = False
        self.leaving = False
        """No connection is to be used again."""
        self.on_closed: Callable[[], None] = _nobody
        """A connection is gone."""

    def __call__(self) -> Connection:
        """The protocol of a new connection."""
        if self._inline is None:
            loop: asyncio.AbstractEventLoop = self._loop
            self._inline = _Inline(loop) if sys.version_info < (3, 12) else loop
        if not self._refusing:
            made = _Leaving if self.leaving else Connection
            return made(self, loop=self._inline, **self._settings)
        ours, self.request_handler = self.request_handler, self._refusal
        try:
            return Connection(self, late=True, loop=self._inline, **self._settings)
        finally:
            self.request_handler = ours

    @property
    def open(self) -> list[Connection]:
        """The connections that are there."""
        return cast("list[Connection]", self.connections)

    def leave(self) -> None:
        """No connection is to be used again."""
        self.leaving = True
        for each in self.open:
            each.__class__ = _Leaving

    def refuse_newcomers(self) -> None:
        """Whoever connects from now on."""
        self._refusing = True

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Forget it, when its last request has ended."""
        super().connection_lost(handler, exc)
        if handler in self._connections and (task := handler._task_handler) is not None:  # noqa: SLF001
            # The server forgets it then, and not before.
            task.add_done_callback(lambda _: self.on_closed())
        else:
            self.on_closed()

    def _asked(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> _Asked:
        return _Asked(message, payload, protocol, writer, task, self._loop)


def _nobody() -> None:
    """Hears it, and does nothing."""


class _Asked(web.BaseRequest):
    """A request on a connection that may have to end."""

    @property
    def keep_alive(self) -> bool:
        """May the connection be used again? Asked when the head of the answer is written."""
        connection = cast("Connection", self._protocol)
        return super().keep_alive and not connection.listener.leaving


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


class Connection(RequestHandler):
    """One client's."""

    __slots__ = ("ending", "heard_at", "late", "listener")

    def __init__(self, listener: Listener, *, late: bool = False, **settings: Any) -> None:
        """`late`: made when nobody new was taken any more."""
        super().__init__(listener, **settings)
        self.listener = listener
        self.late = late
        self.ending = False
        """What still runs on it is cut: its client is there, and we go."""
        self.heard_at = 0.0
        """When something came last, once the listener is leaving; by the loop's clock."""

    @property
    def busy(self) -> bool:
        """A request is being answered, or has come and is about to be."""
        return self._request_in_progress or bool(self._messages)

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's
        """Let go of it, and of what still runs on it."""
        self.ending = True
        await super().shutdown(timeout)

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


def who_went(request: web.BaseRequest) -> str:
    """Who ended a request that was cancelled: `client`, or `gateway` where we cut it."""
    return "gateway" if getattr(request.protocol, "ending", False) else "client"


class _Leaving(Connection):
    """One whose listener is leaving: it is noted when something comes, which would cost others."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self.heard_at = self._loop.time()
        super().data_received(data)

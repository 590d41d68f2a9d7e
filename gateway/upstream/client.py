"""How we ask: requests on kept connections, and their errors mapped to ours.

Rule 1: nothing is retried but a connection that was refused or reset before the request was sent:
a paid provider may have begun to work on anything later than that.
Rule 2: no total timeout, no limit on connections, no automatic header, no URL re-encoded, no
cookie kept, no body decoded. Every wait still has a deadline: connecting, and silence.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeAlias

import aiohttp

from gateway.errors import GatewayError, UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
from gateway.upstream.pool import Pool
from gateway.upstream.request import request_head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType

    from multidict import CIMultiDict

    from gateway.telemetry.spans import AttemptSpan
    from gateway.upstream.choice import Endpoint
    from gateway.upstream.connection import Connection
    from gateway.upstream.pool import Origin
    from gateway.upstream.response import Response

_ATTEMPTS = 2
_PAUSE_S = 0.05
# Without a body these say nothing of one; all others say that it is empty.
_NO_BODY_ASKED = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
_QUERY = re.compile(r"(https?://[^\s?']*)\?[^\s']*")
_TOLD_CHARS = 200

_OURS = "gateway_error"

Ended: TypeAlias = "Callable[[str, str, int | None, int, str, float], None]"
"""Told of each HTTP request when it is over: method, host, port, status (0: none), a short, fixed word
for what failed (or none), and seconds."""


def _nobody(*_: object) -> None:
    """Nobody wants to know."""


class UpstreamClient:
    """Sends requests to upstreams. One for each process."""

    def __init__(self, on_ended: Ended = _nobody) -> None:
        """`on_ended` must neither raise nor wait."""
        self._on_ended = on_ended
        self.pool: Pool | None = None
        """The connections; there once started."""

    async def start(self) -> None:
        """Get ready; needs a running loop."""
        self.pool = Pool()

    async def close(self) -> None:
        """Close every connection."""
        if self.pool is not None:
            await self.pool.close()
            self.pool = None

    def forget(self, endpoint: Endpoint) -> None:
        """Keep no connection to an endpoint that is gone; what is asked there goes on to its end."""
        if self.pool is not None:
            self.pool.forget(_taken_apart(endpoint.base_url)[0], endpoint.authority)

    def call(  # noqa: PLR0917
        self,
        method: str,
        url: str,
        headers: CIMultiDict[str],
        body: bytes | AsyncIterator[bytes] | None,
        endpoint: Endpoint,
        attempt_span: Callable[[int], AttemptSpan],
        attempts: int = _ATTEMPTS,
    ) -> Call:
        """The response as a context: its body is still to come; leaving ends an unfinished call.
        Connecting is tried so many times.

        Raises `UpstreamUnreachable`, `UpstreamTimeout`, `UpstreamBroken`; errors while the body
        is read come mapped as well when they leave the context.
        """
        assert self.pool is not None, "start() first"
        return Call(
            self.pool, method, url, headers, body, endpoint, attempt_span, attempts, self._on_ended
        )


class Call(AbstractAsyncContextManager["Response"]):
    """One request and its response. A class, because a generator's context costs more."""

    __slots__ = (
        "_attempts",
        "_began",
        "_body",
        "_connection",
        "_endpoint",
        "_headers",
        "_loop",
        "_method",
        "_on_ended",
        "_origin",
        "_pool",
        "_response",
        "_span",
        "_spans",
        "_url",
    )

    def __init__(  # noqa: PLR0917
        self,
        pool: Pool,
        method: str,
        url: str,
        headers: CIMultiDict[str],
        body: bytes | AsyncIterator[bytes] | None,
        endpoint: Endpoint,
        attempt_span: Callable[[int], AttemptSpan],
        attempts: int,
        on_ended: Ended,
    ) -> None:
        self._attempts = attempts
        self._on_ended = on_ended
        self._loop = asyncio.get_running_loop()
        self._began = 0.0
        self._pool = pool
        self._method = method
        self._url = url
        self._headers = headers
        self._body = body
        self._endpoint = endpoint
        self._spans = attempt_span
        self._span: AttemptSpan
        self._origin: Origin
        self._connection: Connection
        self._response: Response

    @property
    def was_kept(self) -> bool:
        """It went out on a connection that had been used before: if that broke before anything was
        answered, the server may have ended it for its own reasons, and never seen the request.
        """
        return self._connection.expires_at > 0.0

    async def __aenter__(self) -> Response:
        """Send the request; returns when the head of its response is there."""
        endpoint = self._endpoint
        for attempt in range(self._attempts):
            span = self._span = self._spans(attempt)
            self._began = self._loop.time()
            if endpoint.propagate_trace:
                self._headers.update(span.traceparent())
            try:
                response = self._response = await self._ask()
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                span.error(type(error).__name__)
                span.end()
                self._over(0, type(error).__name__)
                last = attempt == self._attempts - 1
                # A body that is passed on as it arrives can't be had twice, but a connection
                # that was never made has not taken any of it.
                if last or not _never_sent(error):
                    raise _mapped(error, endpoint) from error
                await asyncio.sleep(_PAUSE_S)
            except BaseException as problem:
                span.end()
                # (That the client went away is no failure of the call.)
                self._over(0, "" if isinstance(problem, asyncio.CancelledError) else _OURS)
                raise
            else:
                # The request is not sent again.
                self._body = None
                span.status(response.status)
                return response
        raise AssertionError  # the last attempt returned or raised

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(problem)

    def end(self, problem: BaseException | None) -> None:
        """Be done with it: in order, or because of `problem`, which is raised in our own words where
        it was the upstream's. Leaving the context does so.
        """
        span, failed = self._span, ""
        try:
            if problem is None:
                self._pool.give_back(self._origin, self._connection, self._response.headers)
                return
            # An upstream that broke off; or ours, or the client's going away: the upstream must
            # not work on for nobody.
            self._pool.end(self._connection)
            if isinstance(problem, aiohttp.ClientError | TimeoutError | OSError):
                failed = type(problem).__name__
                span.error(failed)
                raise _mapped(problem, self._endpoint) from problem
        finally:
            span.end()
            self._over(self._response.status, failed)

    def _over(self, status: int, failed: str) -> None:
        endpoint, seconds = self._endpoint, self._loop.time() - self._began
        self._on_ended(self._method, endpoint.host, endpoint.port, status, failed, seconds)

    async def _ask(self) -> Response:
        base, target = _taken_apart(self._url)
        origin = self._origin = self._pool.origin(base, self._endpoint.authority)
        method, headers, body = self._method, self._headers, self._body
        length: int | None = None
        if isinstance(body, bytes):
            headers.popall("Content-Length", None)
            headers["Content-Length"] = str(len(body))
        elif body is None:
            if "Content-Length" not in headers and method not in _NO_BODY_ASKED:
                headers["Content-Length"] = "0"
        else:
            said = headers.get("Content-Length")
            if said is None:
                headers["Transfer-Encoding"] = "chunked"
            else:
                length = int(said)
        head = request_head(method, target, origin.host_line, headers)
        endpoint = self._endpoint
        connection = self._connection = await self._pool.take(origin, endpoint.connect_timeout_s)
        try:
            return await connection.ask(
                head,
                body,
                length=length,
                bodyless=method == "HEAD",
                idle_s=endpoint.idle_timeout_s,
            )
        except BaseException:
            self._pool.end(connection)
            raise


def _taken_apart(url: str) -> tuple[str, str]:
    """`scheme://authority`, and what follows it as it is spelled: no parser of URLs may normalise
    it, drop an empty query, or what follows a raw `#`.
    """
    start = url.find("/", url.find("://") + 3)
    return (url, "/") if start < 0 else (url[:start], url[start:])


def _never_sent(error: BaseException) -> bool:
    """The connection itself failed: refused or reset, before a byte of the request left."""
    return isinstance(error, aiohttp.ClientConnectorError) and isinstance(
        error.os_error, ConnectionRefusedError | ConnectionResetError
    )


def _mapped(error: BaseException, endpoint: Endpoint) -> GatewayError:
    """One of aiohttp's errors as one of ours, told without the URL's query."""
    if isinstance(error.__cause__, GatewayError):
        # The body that was to be passed on failed, not the upstream.
        return error.__cause__
    who = f"upstream {endpoint.name!r} ({endpoint.base_url})"
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return UpstreamUnreachable(f"{who} can't be reached: {_told(error)}")
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return UpstreamUnreachable(f"{who}: the request can't be sent: {_told(error)}")
    if isinstance(error, TimeoutError):
        return UpstreamTimeout(
            f"{who} was silent for {endpoint.idle_timeout_s:g} s "
            f"(upstreams.{endpoint.name}.idle_timeout_s)"
        )
    return UpstreamBroken(f"{who} broke off: {_told(error)}")


def _told(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return str(error.os_error)
    # aiohttp names the whole URL in some messages, and quotes at length what it could not read.
    first_line = (str(error) or type(error).__name__).partition("\n")[0]
    return _QUERY.sub(r"\1", first_line)[:_TOLD_CHARS]

"""How we ask: one session without aiohttp's silent defaults, and its errors mapped to ours.

Rule 1: nothing is retried but a connection that was refused or reset before the request was sent:
a paid provider may have begun to work on anything later than that.
Rule 2: no total timeout, no limit on connections, no automatic header, no URL re-encoded, no
cookie kept, no body decoded. Every wait still has a deadline: connecting, and silence.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from gateway.errors import GatewayError, UpstreamBroken, UpstreamTimeout, UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ConnectionKey
    from multidict import CIMultiDict

    from gateway.telemetry.spans import AttemptSpan
    from gateway.upstream.choice import Endpoint

_ATTEMPTS = 2
_PAUSE_S = 0.05
_PIECE = 64 * 1024
_MAX_HEAD_BYTES = 64 * 1024
# Servers close idle connections after 5 s (uvicorn, and so vLLM) to some minutes; a connection
# closed under our feet is noticed at once, so that this only bounds how many are kept.
_KEEPALIVE_S = 30.0
_QUERY = re.compile(r"(https?://[^\s?']*)\?[^\s']*")
_TOLD_CHARS = 200


class _Connector(aiohttp.TCPConnector):
    """Connections whose calls were given up end at once, not when the upstream has read all that
    was on its way to it.
    """

    def _release(
        self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False
    ) -> None:
        if should_close:
            protocol.abort()
        super()._release(key, protocol, should_close=should_close)


class UpstreamClient:
    """Sends requests to upstreams. One for each process."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the session; needs a running loop."""
        self._session = aiohttp.ClientSession(
            connector=_Connector(
                limit=0, limit_per_host=0, keepalive_timeout=_KEEPALIVE_S, ttl_dns_cache=30
            ),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            requote_redirect_url=False,
            read_bufsize=_PIECE,
            max_line_size=_MAX_HEAD_BYTES,
            max_field_size=_MAX_HEAD_BYTES,
        )
        # aiohttp would send a GET, PUT or DELETE again when a kept connection breaks.
        self._session._retry_connection = False  # noqa: SLF001 - there is no public switch

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def call(  # noqa: PLR0917
        self,
        method: str,
        url: str,
        headers: CIMultiDict[str],
        body: bytes | AsyncIterator[bytes] | None,
        endpoint: Endpoint,
        attempt_span: Callable[[int], AttemptSpan],
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response, its body still to come. On leaving, an unfinished call is ended at once.

        Raises `UpstreamUnreachable`, `UpstreamTimeout`, `UpstreamBroken`; errors while the body
        is read come mapped as well when they leave the context.
        """
        response, span = await self._send(method, url, headers, body, endpoint, attempt_span)
        try:
            span.status(response.status)
            yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            span.error(type(error).__name__)
            response.close()
            raise _mapped(error, endpoint) from error
        except BaseException:
            # Ours, or the client's going away: the upstream must not work on for nobody.
            response.close()
            raise
        else:
            response.release()
        finally:
            span.end()

    async def _send(  # noqa: PLR0917
        self,
        method: str,
        url: str,
        headers: CIMultiDict[str],
        body: bytes | AsyncIterator[bytes] | None,
        endpoint: Endpoint,
        attempt_span: Callable[[int], AttemptSpan],
    ) -> tuple[aiohttp.ClientResponse, AttemptSpan]:
        assert self._session is not None, "start() first"
        timeout = aiohttp.ClientTimeout(
            total=None,
            connect=None,
            sock_connect=endpoint.connect_timeout_s,
            sock_read=endpoint.idle_timeout_s,
        )
        target = _as_spelled(url)
        for attempt in range(_ATTEMPTS):
            span = attempt_span(attempt)
            if endpoint.propagate_trace:
                headers.update(span.traceparent())
            try:
                response = await self._session.request(
                    method,
                    target,
                    headers=headers,
                    data=_payload(body, headers),
                    allow_redirects=False,
                    timeout=timeout,
                )
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                span.error(type(error).__name__)
                span.end()
                last = attempt == _ATTEMPTS - 1
                # A body that is passed on as it arrives can't be had twice, but a connection
                # that was never made has not taken any of it.
                if last or not _never_sent(error):
                    raise _mapped(error, endpoint) from error
                await asyncio.sleep(_PAUSE_S)
            except BaseException:
                span.end()
                raise
            else:
                return response, span
        raise AssertionError  # the last attempt returned or raised


def _as_spelled(url: str) -> URL:
    """A URL whose path and query go out as they are: yarl would drop an empty query, or what
    follows a raw `#`, if it were let to tell the parts of the target apart.
    """
    scheme, _, rest = url.partition("://")
    authority, slash, target = rest.partition("/")
    return URL.build(scheme=scheme, authority=authority, path=slash + target, encoded=True)


def _payload(
    body: bytes | AsyncIterator[bytes] | None, headers: CIMultiDict[str]
) -> bytes | AsyncIterator[bytes] | None:
    """A large body in pieces, so that writing it never holds up the loop for long."""
    if not isinstance(body, bytes) or len(body) <= 8 * _PIECE:
        return body
    headers["Content-Length"] = str(len(body))
    return _cut(body)


async def _cut(body: bytes) -> AsyncIterator[bytes]:
    view = memoryview(body)
    for start in range(0, len(body), _PIECE):
        yield bytes(view[start : start + _PIECE])


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

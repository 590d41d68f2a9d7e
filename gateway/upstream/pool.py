"""Connections that are kept, and how new ones are made.

aiohttp's connector makes them (resolver with a cache, happy eyeballs, TLS); keeping them is
simpler than what it does, because here there is no limit to wait for.
"""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from gateway.upstream.connection import Connection

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

# Servers close idle connections after 5 s (uvicorn, and so vLLM) to some minutes; a connection
# closed under our feet is noticed at once, so that this only bounds how many are kept.
KEEPALIVE_S = 30.0
_DNS_TTL_S = 30
# Where a server says how long it keeps them (`Keep-Alive: timeout=5`), ours end before.
_EARLIER_S = 1.0


@dataclass(eq=False)
class Origin:
    """Scheme, host and port, as a connector wants to hear them, and what is kept for them."""

    url: URL
    host_line: str
    kept: list[Connection] = field(default_factory=list)

    # What aiohttp's connector asks of a request.
    ssl: bool = True
    proxy: None = None
    server_hostname: str | None = None
    """Whom TLS asks for and believes, where it isn't the URL's host."""
    is_gone: bool = False
    """Nothing is kept for it any more."""

    @property
    def port(self) -> int | None:
        """As aiohttp's requests have it."""
        return self.url.port

    def is_ssl(self) -> bool:
        """As aiohttp's requests have it."""
        return self.url.scheme == "https"

    @property
    def connection_key(self) -> ConnectionKey:
        """As aiohttp's errors tell it."""
        return ConnectionKey(self.url.host or "", self.port, self.is_ssl(), True, None, None, None)


class _Connector(aiohttp.TCPConnector):
    """Makes connections of our own protocol."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=0, limit_per_host=0, ttl_dns_cache=_DNS_TTL_S)
        self._factory = cast("Any", functools.partial(Connection, loop))

    async def make(self, origin: Origin) -> Connection:
        """A new connection. Raises ClientConnectorError."""
        made = await self._create_connection(
            cast("aiohttp.ClientRequest", origin), [], aiohttp.ClientTimeout()
        )
        return cast("Connection", made)


class Pool:
    """The connections of one process, by origin; the one used last is used next."""

    def __init__(self) -> None:
        """Needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self._connector = _Connector(self._loop)
        self._origins: dict[tuple[str, str], Origin] = {}
        self._busy: set[Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        kept = sum(len(origin.kept) for origin in self._origins.values())
        return f"<Pool {len(self._busy)} busy, {kept} kept>"

    @property
    def busy(self) -> frozenset[Connection]:
        """Those on which something is asked."""
        return frozenset(self._busy)

    def origin(self, base: str, known_as: str = "") -> Origin:
        """For `scheme://authority`; `known_as` is the authority that it is to be addressed by, where
        that is another. Raises ValueError for what is no such thing.
        """
        known = self._origins.get((base, known_as))
        if known is None:
            scheme, _, authority = base.partition("://")
            url = URL.build(scheme=scheme, authority=authority, encoded=True)
            if scheme not in {"http", "https"} or not url.raw_host:
                raise ValueError("no http:// or https:// URL with a host")
            line = url.host_port_subcomponent or ""
            known = Origin(url, line)
            if known_as:
                known.host_line = known_as
                known.server_hostname = URL.build(authority=known_as, encoded=True).raw_host
            self._origins[base, known_as] = known
        return known

    def forget(self, base: str, known_as: str = "") -> None:
        """Keep nothing for an origin that is gone; what is asked there goes on to its end."""
        known = self._origins.pop((base, known_as), None)
        if known is not None:
            known.is_gone = True
            while known.kept:
                known.kept.pop().abort()

    async def take(self, origin: Origin, connect_s: float) -> Connection:
        """A connection, kept or new. Raises ClientConnectorError, ConnectionTimeoutError."""
        kept = origin.kept
        while kept:
            connection = kept.pop()
            transport = connection.transport
            if (
                transport is not None
                and not transport.is_closing()
                and connection.expires_at > self._loop.time()
            ):
                self._busy.add(connection)
                return connection
            connection.abort()
        try:
            async with asyncio.timeout(connect_s):
                connection = await self._connector.make(origin)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(
                f"no connection to {origin.host_line} in {connect_s:g} s"
            ) from error
        connection.on_lost = functools.partial(self._lost, origin)
        self._busy.add(connection)
        return connection

    def give_back(
        self, origin: Origin, connection: Connection, headers: CIMultiDictProxy[str]
    ) -> None:
        """Keep a connection whose response has ended in order; end any other."""
        self._busy.discard(connection)
        if not connection.finish() or origin.is_gone:
            self.end(connection)
            return
        keep_s = KEEPALIVE_S
        hint = headers.get("Keep-Alive")
        if hint is not None:
            keep_s = _hinted(hint)
            if keep_s <= 0:
                connection.abort()
                return
        connection.expires_at = self._loop.time() + keep_s
        origin.kept.append(connection)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(KEEPALIVE_S, self._sweep)

    def end(self, connection: Connection) -> None:
        """End a connection whose call was given up, at once."""
        self._busy.discard(connection)
        if connection.upgraded:
            # What the client said last may still be on its way out; the tunnel has a bound for it.
            connection.close()
        else:
            connection.abort()
            connection.forget()

    async def close(self) -> None:
        """End all of them."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for origin in self._origins.values():
            while origin.kept:
                origin.kept.pop().abort()
        for connection in tuple(self._busy):
            connection.abort()
        self._busy.clear()
        await self._connector.close()

    def _lost(self, origin: Origin, connection: Connection) -> None:
        self._busy.discard(connection)
        if connection in origin.kept:
            origin.kept.remove(connection)

    def _sweep(self) -> None:
        self._sweeping = None
        now = self._loop.time()
        left = 0
        for origin in self._origins.values():
            for connection in [each for each in origin.kept if each.expires_at <= now]:
                origin.kept.remove(connection)
                connection.abort()
            left += len(origin.kept)
        if left:
            self._sweeping = self._loop.call_later(KEEPALIVE_S, self._sweep)


def _hinted(value: str) -> float:
    for part in value.split(","):
        name, _, number = part.strip().partition("=")
        if name.lower() == "timeout" and number.isdecimal() and len(number) < 10:
            return min(KEEPALIVE_S, int(number) - _EARLIER_S)
    return KEEPALIVE_S

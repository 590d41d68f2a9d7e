"""A name, a port, TLS and an HTTP status, each asked by itself, so that it can be said which fails.

Rule 1: every step has a deadline. Rule 2: no proxy is used, because the gateway uses none.
Rule 3: no redirect is followed: a credential goes to the configured address and nowhere else.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

BODY_BYTES = 1 << 20
"""What is read of an answer at most."""
_EYEBALLS_S = 0.25
"""As aiohttp: one address that is silent does not hold up the next."""
_SOON_S = 14 * 86_400.0
"""A certificate that ends sooner is worth a word."""


class Place(NamedTuple):
    """Where to go. `authority` is what TLS and `Host` say where the URL's host is but a number."""

    url: str
    authority: str = ""

    @property
    def host(self) -> str:
        """Of the URL; empty where it has none."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Of the URL, or its scheme's."""
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def is_tls(self) -> bool:
        """Does it speak TLS?"""
        return urlsplit(self.url).scheme == "https"

    @property
    def named(self) -> str:
        """The host name that a certificate has to be for."""
        name = urlsplit(f"//{self.authority}").hostname if self.authority else None
        return name or self.host


class Reached(NamedTuple):
    """It listens there."""

    addresses: tuple[str, ...]
    connect_s: float
    """TLS included."""
    tls: str
    """Its version; empty without."""
    ends_in_s: float | None
    """Until the certificate ends."""

    @property
    def ends_soon(self) -> bool:
        """Within two weeks."""
        return self.ends_in_s is not None and self.ends_in_s < _SOON_S


class Unreached(Exception):
    """It can't be reached; the text says what was seen."""

    def __init__(self, step: str, said: str, mend: str) -> None:
        super().__init__(said)
        self.step = step
        """`dns`, `tcp`, `tls` or `http`."""
        self.mend = mend


class Answer(NamedTuple):
    """Of HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float
    middle_s: float
    """Unix time, by this machine, between the request and the answer."""


async def reach(
    place: Place,
    timeout_s: float,
    environ: Mapping[str, str],
    trust: ssl.SSLContext | None = None,
) -> Reached:
    """Look the name up, connect, and shake hands; `trust` is in the place of the usual one. Raises
    `Unreached`.
    """
    addresses = await resolve(place.host, timeout_s)
    context = trust or ssl.create_default_context()
    began = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            plain = await asyncio.open_connection(
                place.host, place.port, happy_eyeballs_delay=_EYEBALLS_S
            )
        plain[1].transport.abort()
    except (OSError, TimeoutError) as problem:
        raise _refused(place, addresses, problem, timeout_s, environ) from problem
    if not place.is_tls:
        return Reached(addresses, time.monotonic() - began, "", None)
    began = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(
                place.host,
                place.port,
                ssl=context,
                server_hostname=place.named,
                happy_eyeballs_delay=_EYEBALLS_S,
            )
    except (OSError, TimeoutError) as problem:
        raise _no_tls(place, problem) from problem
    spent = time.monotonic() - began
    spoken: ssl.SSLObject = writer.get_extra_info("ssl_object")
    certificate = spoken.getpeercert() or {}
    version = spoken.version() or "TLS"
    writer.transport.abort()
    ends = certificate.get("notAfter")
    left = ssl.cert_time_to_seconds(ends) - time.time() if isinstance(ends, str) else None
    return Reached(addresses, spent, version, left)


async def resolve(host: str, timeout_s: float) -> tuple[str, ...]:
    """The addresses of a name, sorted. Raises `Unreached`."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise Unreached(
            "dns",
            f"the resolver said nothing of {host} in {timeout_s:g} s",
            "see whether this machine's resolver answers (/etc/resolv.conf), and whether a "
            "NetworkPolicy lets UDP and TCP port 53 out",
        ) from None
    except (OSError, UnicodeError) as problem:
        raise Unreached(
            "dns",
            f"{host} has no address ({getattr(problem, 'strerror', None) or problem})",
            "correct the name; in Kubernetes write SERVICE.NAMESPACE, and of a headless Service see "
            "that pods are ready: kubectl get endpointslices",
        ) from problem
    return tuple(sorted({str(each[4][0]) for each in found}))


def _refused(
    place: Place,
    addresses: tuple[str, ...],
    problem: Exception,
    timeout_s: float,
    environ: Mapping[str, str],
) -> Unreached:
    at = f"{place.host}:{place.port} ({', '.join(addresses[:3])})"
    if isinstance(problem, TimeoutError):
        said = f"{at} says nothing within {timeout_s:g} s"
        how = "see whether a firewall or NetworkPolicy lets this pod out to that port"
    elif isinstance(problem, ConnectionRefusedError):
        said = f"{at} refuses connections"
        how = "nothing listens there: start it, or correct the port"
        if all(each.startswith("127.") or each == "::1" for each in addresses):
            how += "; in a container this is the container itself, and the host has another name"
    else:
        said = f"{at} can't be reached ({getattr(problem, 'strerror', None) or problem})"
        how = "see whether there is a route there from this machine"
    proxies = [n for n in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY") if environ.get(n)]
    if proxies and not isinstance(problem, ConnectionRefusedError):
        how += f"; {proxies[0]} is set, and the gateway connects itself, without a proxy"
    return Unreached("tcp", said, how)


def _why(problem: OSError) -> str:
    if isinstance(problem, ConnectionRefusedError):
        return "refuses connections"
    return f"can't be reached ({problem.strerror or type(problem).__name__})"


def _no_tls(place: Place, problem: Exception) -> Unreached:
    at = f"{place.host}:{place.port}"
    if isinstance(problem, ssl.SSLCertVerificationError):
        said = f"{at}: its certificate is not believed for {place.named} ({problem.verify_message})"
        how = (
            "where a CA of one's own signed it, add that one to the file that SSL_CERT_FILE names; "
            "where the name or the dates are wrong, the server needs another certificate (and see "
            "this machine's clock)"
        )
    elif isinstance(problem, TimeoutError):
        said, how = (
            f"{at} takes connections and does not answer TLS",
            "see what stands in between",
        )
    else:
        said = (
            f"{at} does not speak TLS as expected ({getattr(problem, 'reason', None) or problem})"
        )
        how = "write http:// if it speaks none, or correct the port"
    return Unreached("tls", said, how)


@asynccontextmanager
async def asking(timeout_s: float) -> AsyncIterator[aiohttp.ClientSession]:
    """A session whose every request is over in time."""
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=timeout_s), cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield session


async def ask(
    session: aiohttp.ClientSession,
    place: Place,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_s: float | None = None,
    trust: ssl.SSLContext | None = None,
) -> Answer:
    """What it answers. Raises `Unreached`."""
    sent = dict(headers or {})
    extra: dict[str, Any] = {}
    if trust is not None:
        extra["ssl"] = trust
    if place.authority:
        sent["Host"] = place.authority
        if place.is_tls:
            extra["server_hostname"] = place.named
    if timeout_s is not None:
        extra["timeout"] = aiohttp.ClientTimeout(total=timeout_s)
    began, at = time.monotonic(), time.time()
    status = 0
    try:
        async with session.request(
            method,
            place.url,
            headers=sent,
            data=body,
            allow_redirects=False,
            **extra,
        ) as answer:
            head_s = time.monotonic() - began
            status = answer.status
            text = bytearray()
            while len(text) < BODY_BYTES and (part := await answer.content.readany()):
                text += part
            return Answer(
                answer.status, answer.headers, bytes(text[:BODY_BYTES]), head_s, at + head_s / 2
            )
    except (TimeoutError, aiohttp.ClientPayloadError) as problem:
        if status:
            raise Unreached(
                "http",
                f"{place.host}:{place.port} answers {status}, and its body breaks off or does not end",
                "see its log, and what stands in between: a proxy that cuts answers cuts streams too",
            ) from problem
        raise Unreached(
            "http",
            f"{place.host}:{place.port} takes connections and answers nothing in time",
            "it is overloaded, still starting, or does not speak HTTP",
        ) from problem
    except aiohttp.ClientConnectorError as problem:
        raise Unreached(
            "tcp",
            f"{place.host}:{place.port} {_why(problem.os_error)}",
            "see what listens there, and whether a NetworkPolicy lets this pod out to it",
        ) from problem
    except (aiohttp.ClientError, OSError, ValueError) as problem:
        raise Unreached(
            "http",
            f"{place.host}:{place.port} does not answer HTTP ({type(problem).__name__})",
            "see what listens there",
        ) from problem

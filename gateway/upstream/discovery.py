"""Who is behind a name: each of its addresses is a replica.

Rule 1: nobody waits for DNS but us, and no answer is waited for longer than its deadline.
Rule 2: a failure, or an answer without addresses, takes nobody away (`Replicas.unresolved`).
Rule 3: where a name has addresses of both families, each replica most likely has one of both: only one
family counts, IPv4 where there is a choice, and the same as long as it is there.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.background import Background
from gateway.config.pools import default_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from gateway.upstream.replicas import Replicas

DEADLINE_S = 5.0
# What a resolver says of a name that exists without addresses, or doesn't exist.
_NO_ADDRESS = frozenset(
    code for code in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)) if code is not None
)


class Discovery:
    """Asks for one pool's name."""

    def __init__(
        self,
        replicas: Replicas,
        lookup: Callable[[str], Awaitable[Iterable[str]]] | None = None,
        *,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """`lookup` gives the addresses of a host name, or raises OSError (`socket.gaierror`)."""
        assert replicas.dns is not None
        self._replicas = replicas
        self._parts = urlsplit(replicas.dns)
        self._lookup = lookup or look_up
        self._deadline_s = deadline_s
        self._answer: asyncio.Future[Iterable[str] | Exception] | None = None
        self._tasks = Background(1)
        self._six: bool | None = None

    def __repr__(self) -> str:
        return f"<Discovery of {self._parts.hostname}>"

    async def ask(self) -> None:
        """Resolve once, and tell the pool. Raises nothing but CancelledError."""
        if self._answer is None:
            # A resolver that hangs holds a thread: the next round waits for the same answer.
            self._answer = asyncio.get_running_loop().create_future()
            self._tasks.spawn(self._look(self._answer), f"resolving {self._parts.hostname}")
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await asyncio.shield(self._answer)
        except TimeoutError:
            self._none("timeout", is_empty=False)
            return
        self._answer = None
        if isinstance(answer, Exception):
            is_empty = isinstance(answer, socket.gaierror) and answer.errno in _NO_ADDRESS
            self._none("no addresses" if is_empty else _told(answer), is_empty=is_empty)
        elif known := self._of_one_family(set(answer)):
            self._replicas.resolved({default_name(url): url for url in map(self._url, known)})
        else:
            self._none("no addresses", is_empty=True)

    async def close(self) -> None:
        """Wait for no answer any more."""
        await self._tasks.close(0.0)

    async def _look(self, answer: asyncio.Future[Iterable[str] | Exception]) -> None:
        try:
            found: Iterable[str] | Exception = await self._lookup(self._parts.hostname or "")
        except Exception as problem:  # noqa: BLE001 - OSError; UnicodeError for what is no name
            found = problem
        if not answer.done():
            answer.set_result(found)

    def _none(self, why: str, *, is_empty: bool) -> None:
        self._replicas.unresolved(why, is_empty=is_empty)
        if not len(self._replicas):
            self._six = None

    def _of_one_family(self, addresses: set[str]) -> list[str]:
        six = {each for each in addresses if ":" in each}
        four = addresses - six
        if self._six is None and addresses:
            self._six = not four
        return sorted(six if self._six else four)

    def _url(self, address: str) -> str:
        parts = self._parts
        host = f"[{address}]" if ":" in address else address
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{host}{port}{parts.path}"


async def look_up(host: str) -> list[str]:
    """All addresses of a host name, from the system's resolver, in a thread."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # A link-local address comes with its zone, which no URL has room for.
    return [str(each[4][0]) for each in found if "%" not in str(each[4][0])]


def _told(problem: Exception) -> str:
    return getattr(problem, "strerror", None) or type(problem).__name__

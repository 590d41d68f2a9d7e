"""What can happen to Redis, and what is promised for each: the rows of its fault matrix.

`tests/integration/test_store_faults.py` carries each case out under a real gateway, holds it to
what stands here, and puts both into `docs/reference/store-faults.md`.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tests.helpers.fault_proxy import FaultProxy
from tests.helpers.redis_servers import RedisServer
from tests.helpers.redis_topologies import cluster, executable, sentinels, told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

TLS = Path(__file__).parent / "tls"

MISS = "a miss: the upstream answers"
SAME = "what it always sees: the upstream answers"
UNSTORED = "answers that came meanwhile are not stored"


DEADLINE_S = 0.05
"""Of one store operation, as configured by default."""


class Fault(Protocol):
    """A store to which something will happen."""

    @property
    def store(self) -> Mapping[str, Any]:
        """The `store` section of the gateway's config."""

    @property
    def strike(self) -> Callable[[], Awaitable[None]]:
        """Let it happen. Returns when it has begun; it lasts until `mend`."""

    @property
    def mend(self) -> Callable[[], Awaitable[None]]:
        """Put an end to it."""


class Hits(Enum):
    """What becomes of hits while it lasts."""

    NONE = "none, beyond those that were under way"
    SOME = "some"
    ALL = "all, as before"


@dataclass(frozen=True)
class Case:
    """One fault, and the promise."""

    name: str
    how: str
    """What the test does."""
    hits: Hits
    hit_sees: str
    """What a client sees who asks for what is stored."""
    miss_sees: str
    """What one sees who asks for what is not."""
    lost: str
    resume_s: float
    """Hits have come back so long after the fault has ended, at the latest; where it heals by
    itself, so long after it began.
    """
    stage: Callable[[], AbstractAsyncContextManager[Fault]]
    """Sets the store up, and takes it down."""
    heals: bool = False
    """By itself: nobody mends it."""
    added_s: float = DEADLINE_S
    """A request takes at most so much longer than without a store."""


@dataclass
class _Acts:
    """A fault out of two acts. Memory of the gateway is off: every lookup needs Redis."""

    url: str
    strike: Callable[[], Awaitable[None]]
    mend: Callable[[], Awaitable[None]]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def store(self) -> dict[str, Any]:
        return {"url": self.url, "memory_bytes": 0, **self.settings}


@asynccontextmanager
async def _server() -> AsyncIterator[RedisServer]:
    server = RedisServer(executable())
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.close)


async def _nothing() -> None:
    """It heals by itself."""


@asynccontextmanager
async def _killed() -> AsyncIterator[Fault]:
    async with _server() as server:

        async def strike() -> None:
            await asyncio.to_thread(server.kill)

        async def mend() -> None:
            await asyncio.to_thread(server.start)

        yield _Acts(server.url, strike, mend)


@asynccontextmanager
async def _stopped() -> AsyncIterator[Fault]:
    async with _server() as server:

        async def strike() -> None:
            server.pause()

        async def mend() -> None:
            server.resume()

        yield _Acts(server.url, strike, mend)


@asynccontextmanager
async def _slow() -> AsyncIterator[Fault]:
    dice = random.Random(20261122)
    async with _server() as server, FaultProxy(server.port) as proxy:

        async def strike() -> None:
            proxy.faults.delay_s = lambda: dice.uniform(0.055, 0.2)

        async def mend() -> None:
            proxy.faults.delay_s = lambda: 0.0

        yield _Acts(proxy.url, strike, mend)


@asynccontextmanager
async def _flapping() -> AsyncIterator[Fault]:
    async with _server() as server, FaultProxy(server.port) as proxy:
        flapping: list[asyncio.Task[None]] = []

        async def flap() -> None:
            while True:
                proxy.faults.refuse = not proxy.faults.refuse
                if proxy.faults.refuse:
                    proxy.drop()
                await asyncio.sleep(0.3)  # the fault itself, not a synchronisation

        async def strike() -> None:
            flapping.append(asyncio.create_task(flap()))

        async def mend() -> None:
            for task in flapping:
                task.cancel()
            proxy.faults.refuse = False

        yield _Acts(proxy.url, strike, mend)
        await mend()


@asynccontextmanager
async def _full() -> AsyncIterator[Fault]:
    async with _server() as server:

        async def strike() -> None:
            await asyncio.to_thread(told, server, "CONFIG", "SET", "maxmemory", "1")

        async def mend() -> None:
            await asyncio.to_thread(told, server, "CONFIG", "SET", "maxmemory", "0")

        yield _Acts(server.url, strike, mend)


@asynccontextmanager
async def _wrong_password() -> AsyncIterator[Fault]:
    async with _server() as server:
        user = ("ACL", "SETUSER", "gw", "on", "~*", "&*", "+@all")
        await asyncio.to_thread(told, server, *user, ">right")

        def change(*password: str) -> None:
            told(server, *user, "resetpass", *password)
            # Whoever is connected would stay so: a password is only asked for at the door.
            told(server, "CLIENT", "KILL", "USER", "gw")

        async def strike() -> None:
            await asyncio.to_thread(change, ">another")

        async def mend() -> None:
            await asyncio.to_thread(change, ">right")

        settings = {"username": "gw", "password": "right"}
        yield _Acts(f"redis://127.0.0.1:{server.port}/0", strike, mend, settings)


@asynccontextmanager
async def _cluster_primary() -> AsyncIterator[Fault]:
    manager = cluster()
    group = await asyncio.to_thread(manager.__enter__)
    try:

        async def strike() -> None:
            await asyncio.to_thread(group.servers[1].kill)

        yield _Acts(group.url, strike, _nothing)
    finally:
        await asyncio.to_thread(group.close)


@asynccontextmanager
async def _sentinel_primary() -> AsyncIterator[Fault]:
    manager = sentinels()
    group = await asyncio.to_thread(manager.__enter__)
    try:

        async def strike() -> None:
            await asyncio.to_thread(group.primary.kill)

        yield _Acts(group.url, strike, _nothing)
    finally:
        await asyncio.to_thread(group.close)


@asynccontextmanager
async def _expired() -> AsyncIterator[Fault]:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(TLS / "server.pem")
    async with _server() as server, FaultProxy(server.port, tls) as proxy:

        async def strike() -> None:
            # The context serves handshakes to come; old connections end as they do in a restart.
            tls.load_cert_chain(TLS / "expired.pem")
            proxy.drop()

        async def mend() -> None:
            tls.load_cert_chain(TLS / "server.pem")

        yield _Acts(proxy.url, strike, mend, {"tls": {"ca_path": str(TLS / "ca.pem")}})


@asynccontextmanager
async def _corrupt() -> AsyncIterator[Fault]:
    async with _server() as server:

        def damage() -> None:
            """A flipped bit, a cut, the entry of another key, a foreign type: in turn."""
            dice = random.Random(20261122)
            names = sorted(n for n in told(server, "KEYS", "warmgate:*") if len(n) > 64)
            blobs = [told(server, "GET", name) for name in names]
            for place, (name, blob) in enumerate(zip(names, blobs, strict=True)):
                flipped = bytearray(blob)
                flipped[dice.randrange(len(blob))] ^= 1 << dice.randrange(8)
                damaged = (bytes(flipped), blob[: len(blob) // 2], blobs[place - 1], None)
                told(server, "UNLINK", name)
                if (value := damaged[place % 4]) is None:
                    told(server, "RPUSH", name, "foreign")
                else:
                    told(server, "SET", name, value)

        async def strike() -> None:
            await asyncio.to_thread(damage)

        yield _Acts(server.url, strike, _nothing)


REDIS_CASES = (
    Case(
        name="Redis killed",
        how="SIGKILL; later started again, empty",
        hits=Hits.NONE,
        hit_sees=MISS,
        miss_sees=SAME,
        lost=f"what it did not persist; {UNSTORED}",
        resume_s=2.5,
        stage=_killed,
    ),
    Case(
        name="Redis stopped",
        how="SIGSTOP: connections stay open, nobody answers; later SIGCONT",
        hits=Hits.NONE,
        hit_sees=MISS,
        miss_sees=SAME,
        lost=UNSTORED,
        resume_s=2.5,
        stage=_stopped,
    ),
    Case(
        name="Redis slow",
        how="every reply comes 55 to 200 ms late",
        hits=Hits.NONE,
        hit_sees=MISS,
        miss_sees=SAME,
        lost="answers are stored or not; none is mixed up",
        resume_s=2.5,
        stage=_slow,
    ),
    Case(
        name="Redis flapping",
        how="every 0.3 s all connections break, and for 0.3 s no new one holds",
        hits=Hits.SOME,
        hit_sees="a hit or a miss",
        miss_sees=SAME,
        lost="answers that came while it was away are not stored",
        resume_s=2.5,
        stage=_flapping,
    ),
    Case(
        name="Redis full",
        how="`maxmemory` reached with `noeviction`",
        hits=Hits.ALL,
        hit_sees="a hit",
        miss_sees=SAME,
        lost=UNSTORED,
        resume_s=2.5,
        stage=_full,
    ),
    Case(
        name="Wrong password",
        how="the ACL user gets another password, its connections are closed",
        hits=Hits.NONE,
        hit_sees=MISS,
        miss_sees=SAME,
        lost=UNSTORED,
        resume_s=2.5,
        stage=_wrong_password,
    ),
    Case(
        name="Primary lost in a Cluster",
        how="3 primaries with a replica each, node timeout 1 s; one primary gets SIGKILL",
        hits=Hits.SOME,
        hit_sees="a hit from the other two, until the Cluster notices; then a miss, until it has "
        "elected",
        miss_sees=SAME,
        lost="what the replica had not yet received; answers that came meanwhile are not stored",
        resume_s=10.0,
        stage=_cluster_primary,
        heals=True,
    ),
    Case(
        name="Primary lost behind Sentinels",
        how="1 primary, 1 replica, 3 Sentinels, down after 0.5 s; the primary gets SIGKILL",
        hits=Hits.SOME,
        hit_sees="a miss, until the Sentinels have elected",
        miss_sees=SAME,
        lost="what the replica had not yet received; answers that came meanwhile are not stored",
        resume_s=10.0,
        stage=_sentinel_primary,
        heals=True,
    ),
    Case(
        name="TLS certificate expired",
        how="new handshakes show a certificate that is out of date, old connections are closed",
        hits=Hits.NONE,
        hit_sees=MISS,
        miss_sees=SAME,
        lost=UNSTORED,
        resume_s=2.5,
        stage=_expired,
    ),
    Case(
        name="Entries corrupt",
        how="every entry is damaged: a bit flipped, cut in half, another key's, a list",
        hits=Hits.SOME,
        hit_sees="a miss, once for each damaged entry; then a hit",
        miss_sees=SAME,
        lost="the damaged entries; each is replaced at its next miss",
        resume_s=10.0,
        stage=_corrupt,
        heals=True,
    ),
)


def promises() -> str:
    """The cases as a table of the page; the test holds the gateway to these very figures."""
    heads = ["Fault", "What happens", "Asks what is stored", "Asks something new"]
    heads += ["Waits longer by", "Hits again within", "Lost"]
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join(['---'] * len(heads))} |"]
    for case in REDIS_CASES:
        cells = (case.name, case.how, case.hit_sees, case.miss_sees)
        bounds = (f"{case.added_s * 1000:.0f} ms", f"{case.resume_s:g} s")
        lines.append(f"| {' | '.join((*cells, *bounds, case.lost))} |")
    return "\n".join(lines) + "\n"

"""All pools of a config: what goes on behind the requests, on a clock that jumps, and over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from multidict import CIMultiDict

from gateway.config import Config
from gateway.errors import UpstreamTimeout
from gateway.telemetry.spans import NULL_ATTEMPT
from gateway.upstream.backend import State
from gateway.upstream.choice import Choice
from gateway.upstream.client import UpstreamClient
from gateway.upstream.pools import Pools
from tests.helpers.pools import NAMES, URLS, config_of
from tests.helpers.scripted_upstream import response
from tests.helpers.simulated_clock import run_simulated

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from gateway.upstream.choice import Endpoint
    from gateway.upstream.client import Call

DNS = "http://vllm.models:8000/v1"
TLS = Path(__file__).parents[1] / "helpers" / "tls"


class World:
    """Replicas that are probed, and a name that is resolved, each answer at its simulated second."""

    def __init__(self, **upstream: Any) -> None:
        self.ill: set[str] = set()
        self.addresses: list[str] = []
        self.probes: list[tuple[float, str]] = []
        self.lookups: list[float] = []
        config = config_of({"engine": "vllm", **upstream})
        self.pools = Pools(
            config.upstreams, Choice(config).endpoints, self._ask, self.now, lookup=self._lookup
        )
        self.pool = self.pools["pool"]

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def _ask(self, endpoint: Endpoint, url: str) -> Call:
        self.probes.append((self.now(), url))
        return cast("Call", _Answer(well=endpoint.base_url not in self.ill))

    async def _lookup(self, _: str) -> Iterable[str]:
        self.lookups.append(self.now())
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return list(self.addresses)

    def names(self) -> list[str]:
        return [each.name for each in self.pool]

    def usable(self) -> list[str]:
        return [each.name for each in self.pool.usable()]


class _Answer:
    """A probe's answer: 200 without a body, or a failure."""

    status = 200

    def __init__(self, *, well: bool) -> None:
        self._well = well
        self.content = self

    async def __aenter__(self) -> Self:
        if not self._well:
            raise UpstreamTimeout("silent")
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        """Nothing is held."""

    async def readany(self) -> bytes:
        return b""


def test_replicas_are_probed_every_five_seconds_and_in_doubt_each_second() -> None:
    async def play() -> None:
        world = World(backends=list(URLS[:2]))
        await world.pools.start()
        await asyncio.sleep(4)
        assert [at for at, _ in world.probes] == [0.0, 0.0]
        world.ill = {URLS[0]}
        await asyncio.sleep(2.5)
        assert world.usable() == list(NAMES[:2])
        await asyncio.sleep(1)
        assert world.usable() == [NAMES[1]]
        world.ill = set()
        await asyncio.sleep(3)
        assert world.usable() == [NAMES[1]]
        await asyncio.sleep(1)
        assert world.usable() == list(NAMES[:2])
        await asyncio.sleep(9)
        here = "http://10.0.0.1:8000/health"
        asked = [at for at, url in world.probes if url == here]
        assert asked == [0.0, 5.0, 6.0, 7.0, 10.0, 11.0, 15.0, 20.0]
        # Who is in no doubt is not asked more often for that.
        assert [at for at, url in world.probes if url != here] == [0.0, 5.0, 10.0, 15.0, 20.0]
        await world.pools.close(1.0)

    run_simulated(play())


def test_who_joins_is_probed_at_once() -> None:
    async def play() -> None:
        world = World(backends=[URLS[0]])
        await world.pools.start()
        await asyncio.sleep(1)
        world.pools.add("pool", "new", URLS[1])
        assert world.usable() == [NAMES[0]]
        await asyncio.sleep(0.01)
        assert world.usable() == [NAMES[0], "new"]
        await world.pools.close(1.0)

    run_simulated(play())


def test_a_name_is_resolved_at_the_start_and_every_ten_seconds() -> None:
    async def play() -> None:
        world = World(dns="http://vllm.models:8000/v1")
        world.addresses = ["10.0.0.1", "10.0.0.2"]
        await world.pools.start()
        assert (world.usable(), world.lookups) == (list(NAMES[:2]), [0.0])
        world.addresses = ["10.0.0.2", "10.0.0.3"]
        world.pool[NAMES[0]].in_flight = 1
        await asyncio.sleep(10.5)
        assert world.names() == list(NAMES[:3])
        assert world.usable() == [NAMES[1], NAMES[2]]
        assert world.pool[NAMES[0]].state is State.DRAINING
        world.pool[NAMES[0]].in_flight = 0
        await asyncio.sleep(1.1)
        assert world.names() == [NAMES[1], NAMES[2]]
        world.addresses = []
        world.ill = {URLS[1]}
        await asyncio.sleep(60)
        assert world.names() == [NAMES[2]]
        assert world.lookups == [10.0 * round_ for round_ in range(8)]
        await world.pools.close(1.0)

    run_simulated(play())


def test_a_gateway_that_starts_before_its_replicas_finds_them_later() -> None:
    async def play() -> None:
        world = World(dns="http://vllm.models:8000/v1")
        await world.pools.start()
        assert world.usable() == []
        world.addresses = ["10.0.0.1"]
        await asyncio.sleep(10.1)
        assert world.usable() == [NAMES[0]]
        await world.pools.close(1.0)

    run_simulated(play())


def test_an_odd_one_is_found_within_a_second() -> None:
    async def play() -> None:
        world = World(backends=list(URLS[:3]))
        await world.pools.start()
        for each in world.pool:
            for number in range(40):
                # Never three in a row.
                failed = each.name == NAMES[2] and number % 3 < 2
                if failed:
                    each.failed("status 503", world.now())
                else:
                    each.succeeded(world.now())
        assert len(world.usable()) == 3
        await asyncio.sleep(1.1)
        assert world.usable() == list(NAMES[:2])
        await asyncio.sleep(10)
        assert len(world.usable()) == 3
        await world.pools.close(1.0)

    run_simulated(play())


def test_what_is_turned_off_does_not_happen() -> None:
    async def play() -> None:
        health = {"interval_s": 0, "outliers": False}
        world = World(backends=list(URLS[:2]), health=health)
        await world.pools.start()
        for _ in range(40):
            world.pool[NAMES[0]].succeeded(world.now())
            world.pool[NAMES[0]].failed("status 503", world.now())
            world.pool[NAMES[1]].succeeded(world.now())
        await asyncio.sleep(100)
        assert (world.probes, world.usable()) == ([], list(NAMES[:2]))
        await world.pools.close(1.0)

    run_simulated(play())


def test_upstreams_without_replicas_are_no_pools_and_cost_no_task() -> None:
    async def play() -> None:
        config = config_of({"base_url": URLS[0]})
        choice = Choice(config)
        pools = Pools(config.upstreams, choice.endpoints, cast("Any", None), lambda: 0.0)
        before = asyncio.all_tasks()
        await pools.start()
        assert (len(pools), pools.told(), asyncio.all_tasks()) == (0, {}, before)
        await pools.close(1.0)

    run_simulated(play())


def test_closing_waits_for_nobody() -> None:
    async def play() -> None:
        world = World(backends=[URLS[0]], dns="http://vllm.models:8000/v1")
        world.addresses = ["10.0.0.2"]
        await world.pools.start()
        await asyncio.sleep(1)
        before = world.now()
        await world.pools.close(5.0)
        assert world.now() - before < 0.1
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_simulated(play())


async def test_over_tls_the_name_is_asked_for_and_believed_though_the_address_is_a_number() -> None:
    asked: list[str | None] = []
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(response(b"sealed"))
            await writer.drain()
        writer.close()

    def named(_: ssl.SSLObject | ssl.SSLSocket, name: str | None, __: ssl.SSLContext) -> None:
        asked.append(name)

    async def lookup(_: str) -> list[str]:
        return ["127.0.0.1"]

    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(TLS / "elsewhere.pem")
    ours.sni_callback = named
    client = UpstreamClient()
    await client.start()

    def ask(endpoint: Endpoint, url: str) -> Call:
        return client.call("GET", url, CIMultiDict(), None, endpoint, lambda _: NULL_ATTEMPT)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=ours)
    port = server.sockets[0].getsockname()[1]
    async with server:
        assert client.pool is not None
        client.pool._connector._ssl = ssl.create_default_context(cafile=str(TLS / "ca.pem"))
        config = config_of({"engine": "vllm", "dns": f"https://elsewhere.example:{port}/v1"})
        pools = Pools(config.upstreams, Choice(config).endpoints, ask, lambda: 0.0, lookup=lookup)
        await pools.start()
        try:
            (backend,) = pools["pool"]
            assert backend.name == f"127.0.0.1:{port}"
            async with asyncio.timeout(10):
                async with ask(backend.endpoint, f"{backend.endpoint.base_url}/models") as told:
                    assert await told.content.readany() == b"sealed"
            assert set(asked) == {"elsewhere.example"}
            assert all(f"Host: elsewhere.example:{port}".encode() in head for head in heads)
            client.forget(backend.endpoint)
            assert client.pool._origins == {}
        finally:
            await pools.close(0.0)
            await client.close()


# --- another config ------------------------------------------------------------------------------


def test_a_pool_that_joins_is_resolved_before_anybody_hears_of_it_and_one_that_goes_is_left() -> (
    None
):
    async def play() -> None:
        world = World(dns=DNS)
        world.addresses = ["10.0.0.1"]
        await world.pools.start()
        first = world.pool
        config = Config.model_validate(
            {
                "upstreams": {
                    "pool": {"engine": "vllm", "dns": DNS, "health": {"interval_s": 9}},
                    "more": {"engine": "sglang", "dns": DNS},
                }
            }
        )
        endpoints = Choice(config).endpoints

        joining = await world.pools.joining(config.upstreams, endpoints)
        assert list(joining) == ["more"]
        assert list(world.pools) == ["pool"]
        assert [each.name for each in joining["more"].pool] == ["10.0.0.1:8000"]
        assert world.pools.after(joining, endpoints) == [first, joining["more"].pool]
        left = world.pools.turn(joining, config.upstreams, endpoints)
        # By other intervals it is tended anew, and is the same pool.
        assert [each.pool for each in left] == [first]
        for each in left:
            await each.close(0.0)
        world.probes.clear()
        world.addresses = ["10.0.0.1", "10.0.0.2"]
        await asyncio.sleep(30)
        assert world.pools["pool"] is first
        assert len(first) == 2
        assert 3 <= sum(url.startswith("http://10.0.0.1") for _, url in world.probes) / 2 <= 9

        gone = world.pools.turn({}, {}, {})
        for each in gone:
            await each.close(0.0)
        world.probes.clear()
        await asyncio.sleep(60)
        assert (list(world.pools), world.probes) == ([], [])
        await world.pools.close(0.0)

    run_simulated(play())


def test_another_engine_or_name_is_another_pool() -> None:
    async def play() -> None:
        world = World(dns=DNS)
        world.addresses = ["10.0.0.1"]
        await world.pools.start()
        for changed in ({"engine": "sglang", "dns": DNS}, {"engine": "vllm", "dns": f"{DNS}/x"}):
            config = config_of(changed)
            joining = await world.pools.joining(config.upstreams, Choice(config).endpoints)
            assert list(joining) == ["pool"]
            for each in joining.values():
                await each.close(0.0)
        await world.pools.close(0.0)

    run_simulated(play())

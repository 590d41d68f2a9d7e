"""Journals over a Cluster, behind Sentinels, and over TLS, with no more rights than the page names."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.placements import Placements
from gateway.store.journals import open_journal
from gateway.store.redis import RedisStore
from gateway.store.redis_access import Access
from tests.helpers.placed import placed
from tests.helpers.redis_servers import RedisServer, binary, free_port, missing_is_a_failure
from tests.helpers.redis_topologies import cluster, sentinels, told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.route_records import RouteRecord

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "redis.md"
TLS = Path(__file__).parents[1] / "helpers" / "tls"
PATIENT_S = 30.0
POOLS = tuple(f"pool{number}" for number in range(6))


async def until(met: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENT_S):
        while not met():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.005)


class Gateway:
    def __init__(self, number: int, url: str, access: Access | None = None) -> None:
        self.store = RedisStore(url, access=access, deadline_s=1.0)
        self.heard: dict[str, list[RouteRecord]] = {pool: [] for pool in POOLS}
        self.placements = Placements(POOLS, lambda pool: open_journal(self.store, pool), number)
        for pool, records in self.heard.items():
            self.placements.on_heard(pool, records.append)

    async def start(self) -> None:
        await self.store.start()
        await self.placements.start(PATIENT_S)

    def shares(self) -> bool:
        return all(self.placements.shares(pool) for pool in POOLS)

    def tell(self, number: int) -> None:
        for pool in POOLS:
            self.placements.tell(pool, placed(self.placements.gateway, number))

    def numbers(self) -> set[tuple[int, ...]]:
        """What was heard, in any pool."""
        return {tuple(record.number for record in records) for records in self.heard.values()}

    async def close(self) -> None:
        await self.placements.close(0.0)
        await self.store.close()


async def tell_each_other(gateways: Sequence[Gateway]) -> None:
    one, other = gateways
    for each in gateways:
        await each.start()
    one.tell(1)
    other.tell(2)
    await until(lambda: one.numbers() == {(2,)} and other.numbers() == {(1,)})
    assert one.shares()
    assert other.shares()


async def close(gateways: Sequence[Gateway]) -> None:
    for each in gateways:
        await each.close()


@pytest.mark.redis
@pytest.mark.slow
async def test_in_a_cluster_a_lost_primary_costs_its_pools_some_seconds() -> None:
    (rights,) = re.findall(r"```text\n(ACL SETUSER .*?)```", PAGE.read_text(), re.DOTALL)
    manager = cluster()
    whole = await asyncio.to_thread(manager.__enter__)
    try:
        for server in whole.servers:
            told(server, *rights.split())
        url = whole.url.replace("//", "//warmgate:password@")
        gateways = [Gateway(number, url) for number in (1, 2)]
        await tell_each_other(gateways)
        one, other = gateways
        # The pools' streams lie on several servers: one is lost, the others go on.
        holding = [bool(told(server, "KEYS", "*")) for server in whole.servers[:3]]
        assert sum(holding) > 1
        await asyncio.to_thread(whole.servers[holding.index(True)].kill)
        await until(lambda: not one.shares() and not other.shares())
        assert any(one.placements.shares(pool) for pool in POOLS)
        await until(lambda: one.shares() and other.shares())
        one.tell(3)
        await until(lambda: all(numbers[-1] == 3 for numbers in other.numbers()))
        await close(gateways)
    finally:
        await asyncio.to_thread(whole.close)


@pytest.mark.redis
@pytest.mark.slow
async def test_behind_sentinels_a_new_primary_is_found() -> None:
    manager = sentinels()
    group = await asyncio.to_thread(manager.__enter__)
    try:
        gateways = [Gateway(number, group.url) for number in (1, 2)]
        await tell_each_other(gateways)
        one, other = gateways
        await asyncio.to_thread(group.primary.kill)
        one.tell(3)
        await until(lambda: not one.shares() and not other.shares())
        await until(lambda: one.shares() and other.shares())
        # What was told meanwhile was kept, and is told to the new primary.
        await until(lambda: all(3 in numbers for numbers in other.numbers()))
        other.tell(4)
        await until(lambda: all(numbers[-1] == 4 for numbers in one.numbers()))
        await close(gateways)
    finally:
        await asyncio.to_thread(group.close)


@pytest.mark.redis
async def test_over_tls_with_a_user_of_few_rights() -> None:
    executable = binary("redis")
    if executable is None:
        if missing_is_a_failure():
            pytest.fail("redis-server is not installed, and this is CI")
        pytest.skip("redis-server is not installed")
    port = free_port()
    ca, own = str(TLS / "ca.pem"), str(TLS / "server.pem")
    server = RedisServer(
        executable,
        options=(
            *("--tls-port", str(port), "--tls-ca-cert-file", ca, "--tls-auth-clients", "no"),
            *("--tls-cert-file", own, "--tls-key-file", own),
        ),
    )
    await asyncio.to_thread(server.start)
    try:
        rights = ("on", ">secret", "~warmgate:*", "+ping", "+xadd", "+xread", "+xrevrange")
        told(server, "ACL", "SETUSER", "gw", *rights, "+expire")
        told(server, "ACL", "SETUSER", "old", "on", ">secret", "~warmgate:*", "+ping", "+get")
        url = f"rediss://127.0.0.1:{port}/0"
        access = Access(username="gw", password="secret", ca_path=ca)
        gateways = [Gateway(number, url, access) for number in (1, 2)]
        await tell_each_other(gateways)
        # A user from before there were placements: said, and nothing else is hurt.
        poor = Gateway(3, url, Access(username="old", password="secret", ca_path=ca))
        await poor.store.start()
        await poor.placements.start(0.1)
        await until(lambda: poor.placements.told()["pool0"]["problem"])
        assert "no permissions" in poor.placements.told()["pool0"]["problem"]
        assert not poor.shares()
        assert await poor.store.get([bytes(32)]) == [None]
        await close([*gateways, poor])
    finally:
        await asyncio.to_thread(server.close)

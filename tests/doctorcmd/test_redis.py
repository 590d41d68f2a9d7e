"""What `gateway doctor` says of real Redis servers, sound ones and broken ones."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from gateway.config import Config
from gateway.doctorcmd.clock import Clocks
from gateway.doctorcmd.finding import Finding, Verdict
from gateway.doctorcmd.look import examine
from gateway.doctorcmd.redis import RedisDoctor
from gateway.doctorcmd.redis_said import eviction, memory_use, persistence, version
from tests.helpers.redis_servers import RedisServer, free_port
from tests.helpers.redis_topologies import cluster, executable, sentinels, told

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.redis

SKIP = ("host", "gateway", "upstreams", "otlp")
# What docs/explanation/redis.md says that Redis must allow.
ALLOWED = [
    "on",
    ">wordword",
    "~warmgate:*",
    "&warmgate:*",
    "+get",
    "+set",
    "+unlink",
    "+ping",
    "+hget",
    "+hmget",
    "+hgetall",
    "+hset",
    "+hlen",
    "+hscan",
    "+hdel",
    "+time",
    "+eval",
    "+publish",
    "+subscribe",
    "+scan",
    "+dbsize",
    "+info",
    "+xadd",
    "+xread",
    "+xrevrange",
    "+expire",
    "+hincrby",
    "+hexists",
    "+type",
    "+zadd",
    "+zrangebyscore",
    "+zrem",
    "+cluster|slots",
    "+readonly",
    "+asking",
]


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """One with the options that the test asks for."""
    made = RedisServer(executable(), options=tuple(getattr(request, "param", "").split()))
    made.start()
    yield made
    made.close()


async def looked(url: str, timeout_s: float = 10.0, **store: Any) -> dict[str, Finding]:
    config = Config.model_validate({"store": {"url": url, "deadline_ms": 5000, **store}})
    found = await examine(config, {}, skip=SKIP, timeout_s=timeout_s)
    return {each.check: each for each in found}


def verdicts(found: dict[str, Finding]) -> dict[str, str]:
    return {
        check.removeprefix("store.redis."): each.verdict.value
        for check, each in found.items()
        if check.startswith("store.redis")
    }


async def test_a_server_as_recommended_has_nothing_to_mend(redis_server: RedisServer) -> None:
    for setting in ("maxmemory 64mb", "maxmemory-policy volatile-lru", "appendonly yes"):
        told(redis_server, "CONFIG", "SET", *setting.split())

    found = await looked(redis_server.url)

    assert verdicts(found) == dict.fromkeys(
        ("latency", "server", "eviction", "memory", "persistence", "write"), "ok"
    )
    assert 0 < found["store.redis.latency"].facts["ping_ms"] < 5000
    assert abs(found["clock"].facts["ahead_s"][f"Redis 127.0.0.1:{redis_server.port}"]) < 5
    # The key that was tried is gone again.
    assert told(redis_server, "DBSIZE") == 0


async def test_a_server_as_it_comes_is_to_look_at(server: RedisServer) -> None:
    found = await looked(server.url)

    assert found["store.redis.eviction"].verdict is Verdict.LOOK
    assert "no maxmemory" in found["store.redis.eviction"].said
    assert found["store.redis.persistence"].verdict is Verdict.LOOK


@pytest.mark.parametrize(
    "server", ["--maxmemory 64mb --maxmemory-policy allkeys-lru"], indirect=True
)
async def test_a_policy_that_evicts_the_ledger_is_to_mend(server: RedisServer) -> None:
    found = await looked(server.url)

    assert found["store.redis.eviction"].verdict is Verdict.MEND
    assert "volatile-lru" in found["store.redis.eviction"].mend


@pytest.mark.parametrize("server", ["--maxmemory 1mb --maxmemory-policy noeviction"], indirect=True)
async def test_a_full_server_that_refuses_writes_is_to_mend(server: RedisServer) -> None:
    told(server, "CONFIG", "SET", "maxmemory", "1")
    found = await looked(server.url)

    assert found["store.redis.write"].verdict is Verdict.MEND
    assert found["store.redis.write"].facts["reason"] == "full"
    assert found["store.redis.memory"].verdict is Verdict.MEND


@pytest.mark.parametrize("server", ["--replicaof 127.0.0.1 1"], indirect=True)
async def test_a_replica_in_the_place_of_the_primary_is_to_mend(server: RedisServer) -> None:
    found = await looked(server.url)

    assert "a replica" in found["store.redis.server"].said
    assert found["store.redis.write"].facts["reason"] == "read_only"


async def test_a_wrong_password_is_told_from_nobody_there_and_not_printed() -> None:
    guarded = RedisServer(executable(), password="right-right-right")
    guarded.start()
    try:
        url = f"redis://:wrong-wrong-wrong@127.0.0.1:{guarded.port}/0"
        refused = await looked(url)
        asked_nothing = await looked(f"redis://127.0.0.1:{guarded.port}/0")
    finally:
        guarded.close()
    nobody = await looked(f"redis://127.0.0.1:{free_port()}/0")

    assert refused["store.redis"].facts["reason"] == "not_authenticated"
    assert asked_nothing["store.redis"].facts["reason"] == "not_authenticated"
    assert nobody["store.redis"].facts["reason"] == "unreachable"
    assert all("wrong-wrong" not in each.said + each.mend for each in refused.values())


async def test_the_rights_that_are_documented_are_enough(server: RedisServer) -> None:
    told(server, "ACL", "SETUSER", "warmgate", *ALLOWED)
    url = f"redis://127.0.0.1:{server.port}/0"
    user: dict[str, Any] = {"username": "warmgate", "password": "wordword"}

    enough = await looked(url, **user)
    told(server, "ACL", "SETUSER", "warmgate", "-info", "-time")
    less = await looked(url, **user)
    told(server, "ACL", "SETUSER", "warmgate", "-set")
    none = await looked(url, **user)

    assert "mend" not in verdicts(enough).values()
    assert less["store.redis.info"].verdict is Verdict.LOOK
    assert less["clock"].verdict is Verdict.SKIPPED
    assert none["store.redis.write"].facts["reason"] == "not_permitted"


async def test_a_server_that_hangs_is_given_up_in_time(server: RedisServer) -> None:
    server.pause()
    try:
        began = time.monotonic()
        found = await looked(server.url, timeout_s=0.3)
        took = time.monotonic() - began
    finally:
        server.resume()

    assert found["store.redis"].facts["reason"] == "late"
    assert took < 5


async def test_a_deadline_that_every_lookup_misses_is_to_mend(server: RedisServer) -> None:
    found = await looked(server.url, deadline_ms=0.001)

    assert found["store.redis.latency"].verdict is Verdict.MEND
    assert "is a miss" in found["store.redis.latency"].said


async def test_tls_towards_a_server_that_speaks_none_is_said(server: RedisServer) -> None:
    found = await looked(f"rediss://127.0.0.1:{server.port}/0", timeout_s=1.0)

    assert found["store.redis"].verdict is Verdict.MEND
    assert "redis:// for rediss://" in found["store.redis"].mend


async def test_a_port_that_cuts_what_is_not_tls_is_asked_about_by_name() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    listening = await asyncio.start_server(cut, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        cut_off = await looked(f"redis://127.0.0.1:{port}")
    refused = await looked(f"redis://127.0.0.1:{free_port()}")

    assert "rediss:// for redis://" in cut_off["store.redis"].mend
    assert "rediss" not in refused["store.redis"].mend


@pytest.mark.parametrize(
    ("kind", "path", "advice"),
    [
        ("redis+cluster", "", "write redis:// in place of redis+cluster://"),
        ("redis+sentinel", "/mymaster", "name the Sentinels' port"),
    ],
)
async def test_a_url_of_another_kind_than_the_server_is_named(
    server: RedisServer, kind: str, path: str, advice: str
) -> None:
    found = await looked(f"{kind}://127.0.0.1:{server.port}{path}")

    assert advice in found["store.redis.topology"].mend


async def test_a_cluster_without_slots_is_not_just_unreachable() -> None:
    folder = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf")
    made = RedisServer(executable(), options=folder)
    made.start()
    try:
        found = await looked(f"redis+cluster://127.0.0.1:{made.port}")
    finally:
        made.close()

    assert "CLUSTER INFO" in found["store.redis.topology"].mend


async def test_files_of_tls_that_are_not_there_are_said() -> None:
    found = await looked("rediss://127.0.0.1:1/0", tls={"ca_path": "/no/such.pem"})

    assert found["store.redis"].verdict is Verdict.MEND
    assert "TLS files" in found["store.redis"].said


@pytest.mark.slow
async def test_sentinels_and_the_one_that_is_silent_are_told() -> None:
    with sentinels() as made:
        whole = await looked(made.url)
        made.watchers[0].kill()
        most = await looked(made.url)
        for watcher in made.watchers[1:]:
            watcher.kill()
        none = await looked(made.url)

    assert whole["store.redis.topology"].verdict is Verdict.OK
    assert "3 of 3 Sentinels" in whole["store.redis.topology"].said
    assert whole["store.redis.write"].verdict is Verdict.OK
    assert most["store.redis.topology"].verdict is Verdict.LOOK
    assert none["store.redis.topology"].verdict is Verdict.MEND
    assert none["store.redis.topology"].facts["reason"] == "no_primary"
    assert "Connection" not in none["store.redis.topology"].said


@pytest.mark.slow
async def test_every_primary_of_a_cluster_is_asked_and_a_missing_one_is_told() -> None:
    with cluster() as made:
        whole = await looked(made.url)
        one = await looked(made.url.replace("redis+cluster", "redis").partition(",")[0])
        made.servers[0].kill()
        broken = await looked(made.url)

    writes = [each for check, each in whole.items() if check.endswith(".write")]
    assert [each.verdict for each in writes] == [Verdict.OK] * 3
    assert whole["store.redis.topology"].facts["slots"] == 16_384
    # A node of a Cluster that is used as a single server.
    assert one["store.redis.server"].verdict is Verdict.MEND
    # Either it still counts and does not answer, or its replica has its place and has none itself.
    gone = f"store.redis.127.0.0.1:{made.servers[0].port}"
    said = [broken[check].verdict for check in (gone, "store.redis.topology") if check in broken]
    assert set(said) & {Verdict.MEND, Verdict.LOOK}


INFO = {"redis_version": "7.2.4", "role": "master", "redis_mode": "standalone"}


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"maxmemory_policy": "volatile-ttl", "maxmemory": "9"}, "ok"),
        ({"maxmemory_policy": "noeviction", "maxmemory": "9"}, "look"),
        ({"maxmemory_policy": "noeviction", "maxmemory": "0"}, "look"),
        ({"maxmemory_policy": "allkeys-lfu", "maxmemory": "0"}, "look"),
        ({"maxmemory_policy": "allkeys-lfu", "maxmemory": "9"}, "mend"),
        ({"maxmemory": "9"}, "look"),
        ({}, "look"),
    ],
)
def test_every_policy_has_its_verdict(info: dict[str, str], expected: str) -> None:
    assert eviction("x", info).verdict.value == expected


def test_what_info_says_of_version_memory_and_disk_is_judged() -> None:
    full = {"used_memory": "99", "maxmemory": "100", "maxmemory_policy": "noeviction"}

    assert version("x", INFO).verdict is Verdict.OK
    assert version("x", {**INFO, "redis_version": "5.0.14"}).verdict is Verdict.LOOK
    assert version("x", {}).verdict is Verdict.OK
    assert memory_use("x", full).verdict is Verdict.MEND
    assert memory_use("x", {**full, "maxmemory_policy": "volatile-lru"}).verdict is Verdict.OK
    assert persistence("x", {"aof_enabled": "1"}).verdict is Verdict.OK
    assert persistence("x", {"rdb_last_bgsave_status": "err"}).verdict is Verdict.MEND


def test_a_doctor_is_refused_for_a_url_that_is_none() -> None:
    settings = Config.model_validate({}).store

    with pytest.raises(ValueError, match="not redis://"):
        RedisDoctor(settings, "nonsense://x", Clocks(), 1.0)

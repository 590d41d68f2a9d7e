from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from gateway.store.base import StoreUnavailable
from gateway.store.connections import IDLE_S
from gateway.store.redis import WARM, RedisStore
from gateway.store.redis_node import BATCH, Node
from tests.helpers.fault_proxy import FaultProxy
from tests.helpers.redis_servers import RedisServer, binary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

A, B = b"a" * 32, b"b" * 32
PATIENT_S = 10.0


@pytest.fixture
async def make(redis_server: RedisServer) -> AsyncIterator[Callable[..., RedisStore]]:
    """Makes stores and closes them in the end."""
    made: list[RedisStore] = []

    def make(
        url: str | None = None, deadline_s: float = PATIENT_S, connections: int = 64
    ) -> RedisStore:
        store = RedisStore(url or redis_server.url, deadline_s=deadline_s, connections=connections)
        made.append(store)
        return store

    yield make
    for store in made:
        await store.close()
    gc.collect()  # a connection that was not closed warns, and warnings are errors


def node_of(store: RedisStore) -> Node:
    """The one server of the store."""
    (node,) = store._topology.primaries()
    return node


async def told(server: RedisServer, *command: str | bytes) -> object:
    """The server's answer to a command given past the store."""
    async with Redis(port=server.port) as client:
        return await client.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py


async def test_keys_are_text_under_the_prefix_and_expire_in_the_server(
    make: Callable[..., RedisStore], redis_server: RedisServer
) -> None:
    await make().put(A, b"x", 60)
    name = "warmgate:" + "61" * 32
    assert await told(redis_server, "GET", name) == b"x"
    left_ms = await told(redis_server, "PTTL", name)
    assert isinstance(left_ms, int)
    assert 50_000 < left_ms <= 60_000


async def test_a_lookup_is_one_command_and_a_put_is_one_command(
    make: Callable[..., RedisStore], redis_server: RedisServer
) -> None:
    store = make()
    await store.start()
    await told(redis_server, "CONFIG", "RESETSTAT")
    await store.get([A, B])
    await store.put(A, b"x", 60)
    stats = await told(redis_server, "INFO", "commandstats")
    assert isinstance(stats, dict)
    ours = {name for name in stats if not name.startswith(("cmdstat_config", "cmdstat_client"))}
    assert {name.removeprefix("cmdstat_") for name in ours} - {"info", "hello"} == {"get", "set"}


async def test_connections_are_used_again(
    make: Callable[..., RedisStore], redis_server: RedisServer
) -> None:
    async with FaultProxy(redis_server.port) as proxy:
        store = make(proxy.url)
        for _ in range(20):
            await store.get([A])
        assert proxy.connections == 1
        await asyncio.gather(*(store.get([A]) for _ in range(10)))
        assert proxy.connections <= 10
        assert f"<Connections of 64: {proxy.connections} idle" in repr(store)
        await store.close()


async def test_connections_are_bounded_and_waiting_for_one_counts_against_the_deadline(
    make: Callable[..., RedisStore], redis_server: RedisServer
) -> None:
    async with FaultProxy(redis_server.port) as proxy:
        store = make(proxy.url + "?max_connections=3")
        await asyncio.gather(*(store.get([A]) for _ in range(50 * BATCH)))
        assert proxy.connections == 3
        node_of(store)._deadline_s = 0.1
        proxy.faults.delay_s = lambda: 0.08
        answers = await asyncio.gather(
            *(store.get([A]) for _ in range(6 * BATCH)), return_exceptions=True
        )
        kinds = [type(answer) for answer in answers]
        assert (kinds.count(list), kinds.count(StoreUnavailable)) == (3 * BATCH, 3 * BATCH)
        await store.close()


async def test_a_command_that_ran_into_its_deadline_costs_its_connection(
    make: Callable[..., RedisStore], redis_server: RedisServer
) -> None:
    async with FaultProxy(redis_server.port) as proxy:
        store = make(proxy.url, deadline_s=0.05)
        node_of(store)._deadline_s = PATIENT_S
        await store.get([A])
        node_of(store)._deadline_s = 0.05
        proxy.faults.delay_s = lambda: PATIENT_S
        with pytest.raises(StoreUnavailable, match="TimeoutError"):
            await store.get([A])
        assert len(node_of(store).connections._idle) == 0
        proxy.faults.delay_s = lambda: 0.0
        node_of(store)._deadline_s = PATIENT_S
        await store.put(B, b"of B", 60)
        assert await store.get([B]) == [b"of B"]
        assert proxy.connections == 2
        await store.close()


async def test_the_connection_of_a_caller_that_went_away_is_free_when_its_reply_was_read(
    make: Callable[..., RedisStore], redis_server: RedisServer
) -> None:
    async with FaultProxy(redis_server.port) as proxy:
        store = make(proxy.url)
        await store.put(A, b"of A", 60)
        proxy.faults.delay_s = lambda: 0.1
        lookup = asyncio.create_task(store.get([A]))
        async with asyncio.timeout(PATIENT_S):
            while node_of(store).connections._idle:  # noqa: ASYNC110 - taken is all there is to see
                await asyncio.sleep(0)
        lookup.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lookup
        assert len(node_of(store).connections._idle) == 0
        assert await store.get([B]) == [None]
        assert proxy.connections == 2
        async with asyncio.timeout(PATIENT_S):
            while len(node_of(store).connections._idle) < 2:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.001)
        proxy.faults.delay_s = lambda: 0.0
        assert await store.get([B, A]) == [None, b"of A"]
        assert proxy.connections == 2
        await store.close()


async def test_a_connection_with_unread_bytes_is_not_used_again(
    make: Callable[..., RedisStore], redis_server: RedisServer
) -> None:
    store = make()
    await store.put(A, b"of A", 60)
    ((_, connection),) = node_of(store).connections._idle
    await connection.send_command("GET", "warmgate:" + A.hex())
    reader = connection._reader
    assert reader is not None
    async with asyncio.timeout(PATIENT_S):
        while connection.is_at_rest():  # noqa: ASYNC110 - the reader has no public event
            await asyncio.sleep(0.001)
    assert await store.get([B]) == [None]
    assert not connection.is_connected


# At the second attempt of `start` the slower one has its connection, and makes the others.
@pytest.mark.parametrize(("deadline_s", "connections"), [(0.05, 1), (0.1, 1 + WARM)])
async def test_where_handshake_and_command_exceed_the_deadline_there_is_a_connection_yet(
    make: Callable[..., RedisStore], redis_server: RedisServer, deadline_s: float, connections: int
) -> None:
    # SELECT is a round trip of the handshake, the command is another.
    async with FaultProxy(redis_server.port) as proxy:
        proxy.faults.delay_s = lambda: 0.06
        store = make(f"redis://127.0.0.1:{proxy.port}/3", deadline_s=deadline_s)
        await store.start()
        async with asyncio.timeout(PATIENT_S):
            while not node_of(store).connections._idle:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.005)
        node_of(store)._deadline_s = PATIENT_S
        assert await store.get([A]) == [None]
        assert proxy.connections == connections
        await store.close()


async def test_closing_cancels_attempts_and_ends_what_waits_for_them(
    make: Callable[..., RedisStore], redis_server: RedisServer
) -> None:
    async with FaultProxy(redis_server.port) as proxy:
        proxy.faults.delay_s = lambda: PATIENT_S
        store = make(f"redis://127.0.0.1:{proxy.port}/3")
        lookup = asyncio.create_task(store.get([A]))
        async with asyncio.timeout(PATIENT_S):
            while not node_of(store).connections._attempts:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0)
            await store.close()
            with pytest.raises(StoreUnavailable, match="closing"):
                await lookup
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.get([A])


async def test_idle_connections_that_grew_old_are_not_trusted(
    make: Callable[..., RedisStore], redis_server: RedisServer
) -> None:
    async with FaultProxy(redis_server.port) as proxy:
        store = make(proxy.url)
        await store.get([A])
        ((since, connection),) = node_of(store).connections._idle
        node_of(store).connections._idle[0] = (since - IDLE_S - 1, connection)
        await store.get([A])
        assert not connection.is_connected
        assert proxy.connections == 2
        await store.close()


async def test_a_refusal_is_unavailability_but_no_reason_to_stop_asking(
    make: Callable[..., RedisStore], redis_server: RedisServer
) -> None:
    store = make()
    await store.put(A, b"x", 60)
    await told(redis_server, "CONFIG", "SET", "maxmemory", "1")
    for _ in range(20):
        with pytest.raises(StoreUnavailable, match="refused"):
            await store.put(B, b"y", 60)
    assert await store.get([A]) == [b"x"]
    assert not node_of(store).breaker.is_open


async def test_a_value_of_another_type_is_unavailability(
    make: Callable[..., RedisStore], redis_server: RedisServer
) -> None:
    store = make()
    await told(redis_server, "LPUSH", "warmgate:scope-secret", "x")
    with pytest.raises(StoreUnavailable):
        await store.claim("scope-secret", b"mine")


async def test_the_first_to_claim_a_name_decides_its_value(
    make: Callable[..., RedisStore],
) -> None:
    stores = [make() for _ in range(5)]
    claimed = await asyncio.gather(
        *(store.claim("name", b"%d" % n) for n, store in enumerate(stores))
    )
    assert len(set(claimed)) == 1
    assert await stores[0].claim("name", b"later") == claimed[0]


async def test_nobody_waits_for_a_server_that_is_known_to_be_away(
    make: Callable[..., RedisStore],
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = make(deadline_s=0.05)
    redis_server.kill()
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(PATIENT_S):
            while not node_of(store).breaker.is_open:
                with contextlib.suppress(StoreUnavailable):
                    await store.get([A])
        with pytest.raises(StoreUnavailable, match="tried once a second"):
            await store.get([A])
        await asyncio.to_thread(redis_server.start)
        async with asyncio.timeout(PATIENT_S):
            while node_of(store).breaker.is_open:
                with contextlib.suppress(StoreUnavailable):
                    await store.get([A])
                await asyncio.sleep(0.01)
    said = [record.getMessage() for record in caplog.records]
    assert [text.split(" (")[0] for text in said] == [
        "Redis does not answer",
        "Redis answers again",
    ]


async def test_a_server_that_is_away_at_start_is_said_and_used_when_it_comes(
    make: Callable[..., RedisStore],
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    redis_server.kill()
    store = make()
    await store.start()
    assert "is not there at start" in caplog.text
    await asyncio.to_thread(redis_server.start)
    assert await store.get([A]) == [None]


@pytest.fixture
def guarded() -> Iterator[RedisServer]:
    executable = binary("valkey")
    assert executable is not None
    server = RedisServer(executable, password="hunter2")
    server.start()
    yield server
    server.close()


@pytest.mark.redis
async def test_passwords_and_database_numbers_come_from_the_url(guarded: RedisServer) -> None:
    for url in (guarded.url, f"redis://default:hunter2@127.0.0.1:{guarded.port}/5?protocol=3"):
        store = RedisStore(url, deadline_s=PATIENT_S)
        await store.put(A, b"x", 60)
        assert await store.get([A]) == [b"x"]
        await store.close()


@pytest.mark.redis
async def test_a_wrong_password_is_unavailability_and_not_logged(
    guarded: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisStore(f"redis://:wrong-one@127.0.0.1:{guarded.port}", deadline_s=PATIENT_S)
    await store.start()
    with pytest.raises(StoreUnavailable, match="Authentication"):
        await store.get([A])
    await store.close()
    assert "Authentication" in caplog.text
    assert "wrong-one" not in caplog.text


TLS = Path(__file__).parent.parent / "helpers" / "tls"


async def test_tls_is_checked_against_the_authority_in_the_url(redis_server: RedisServer) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    async with FaultProxy(redis_server.port, tls) as proxy:
        trusting = RedisStore(f"{proxy.url}?ssl_ca_certs={TLS / 'cert.pem'}", deadline_s=PATIENT_S)
        await trusting.put(A, bytes(1 << 20), 60)
        assert (
            await asyncio.gather(*(trusting.get([A]) for _ in range(5))) == [[bytes(1 << 20)]] * 5
        )
        await trusting.close()
        strict = RedisStore(proxy.url, deadline_s=PATIENT_S)
        with pytest.raises(StoreUnavailable, match="certificate"):
            await strict.get([A])
        await strict.close()

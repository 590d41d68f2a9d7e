"""Real TLS: an authority of our own, client certificates, hostnames, dates, ACL users."""

from __future__ import annotations

import gc
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.store.base import StoreUnavailable
from gateway.store.redis import RedisStore
from gateway.store.redis_access import Access
from tests.helpers.fault_proxy import FaultProxy
from tests.helpers.redis_servers import RedisServer, binary, free_port, missing_is_a_failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytestmark = pytest.mark.redis

TLS = Path(__file__).parent.parent / "helpers" / "tls"
CA = str(TLS / "ca.pem")
CLIENT = str(TLS / "client.pem")
PATIENT_S = 10.0
A = b"a" * 32


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., RedisStore]]:
    made: list[RedisStore] = []

    def make(url: str, access: Access) -> RedisStore:
        made.append(RedisStore(url, deadline_s=PATIENT_S, access=access))
        return made[-1]

    yield make
    for store in made:
        await store.close()
    gc.collect()


@pytest.fixture
def guarded() -> Iterator[tuple[RedisServer, int]]:
    """Debian's Redis, which asks for certificates and knows one user; and its TLS port."""
    executable = binary("redis")
    if executable is None:
        if missing_is_a_failure():
            pytest.fail("redis-server is not installed, and this is CI")
        pytest.skip("redis-server is not installed")
    port = free_port()
    options = (
        *("--tls-port", str(port), "--tls-ca-cert-file", CA, "--tls-auth-clients", "yes"),
        *("--tls-cert-file", str(TLS / "server.pem"), "--tls-key-file", str(TLS / "server.pem")),
        *("--user", *["gw", "on", ">secret", "~gw:*", "&gw:*", "+get", "+set", "+unlink", "+ping"]),
        *("+subscribe", "+publish"),
    )
    server = RedisServer(executable, options=options)
    server.start()
    yield server, port
    server.close()


async def test_a_certificate_of_ours_and_a_user_of_few_rights_are_enough(
    make: Callable[..., RedisStore], guarded: tuple[RedisServer, int]
) -> None:
    url = f"rediss://127.0.0.1:{guarded[1]}/0"
    access = Access(username="gw", password="secret", ca_path=CA, cert_path=CLIENT, key_path=CLIENT)
    store = RedisStore(url, deadline_s=PATIENT_S, key_prefix="gw:", access=access)
    await store.start()
    await store.put(A, bytes(1 << 20), 60)
    assert await store.get([A]) == [bytes(1 << 20)]
    async with store.subscription(store.named("channel")) as messages:
        await store.execute("PUBLISH", store.named("channel"), "news")
        assert await anext(messages) == b"news"
    assert await store.delete([A]) == 1
    await store.close()
    without = make(url, Access(username="gw", password="secret", ca_path=CA))
    with pytest.raises(StoreUnavailable):
        await without.get([A])


@pytest.mark.parametrize(
    ("certificate", "access", "reason"),
    [
        ("server", Access(ca_path=CA), None),
        ("server", Access(), "tls"),
        ("expired", Access(ca_path=CA), "tls"),
        ("elsewhere", Access(ca_path=CA), "tls"),
        ("elsewhere", Access(ca_path=CA, check_hostname=False), None),
    ],
)
async def test_the_servers_certificate_is_checked(
    make: Callable[..., RedisStore],
    redis_server: RedisServer,
    certificate: str,
    access: Access,
    reason: str | None,
) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(TLS / f"{certificate}.pem")
    async with FaultProxy(redis_server.port, tls) as proxy:
        store = make(proxy.url, access)
        if reason is None:
            assert await store.get([A]) == [None]
        else:
            with pytest.raises(StoreUnavailable) as caught:
                await store.get([A])
            assert caught.value.reason == reason
        await store.close()

"""The chart's values for each kind of Redis lead to one that is there: from values, through mounted
Secrets, to an answer that is stored. Only addresses and places of certificates are the tests' own.
"""

from __future__ import annotations

import gc
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gateway.store.base import StoreUnavailable
from gateway.store.open import open_store
from tests.deploy.manifests import SECRETS, settings_of
from tests.helpers.redis_servers import RedisServer, binary, free_port, missing_is_a_failure
from tests.helpers.redis_topologies import cluster, sentinels, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.deploy.helm import Helm

pytestmark = pytest.mark.redis

TLS = Path(__file__).parents[1] / "helpers/tls"
KEY = b"k" * 32
Values = dict[str, Any]
OF_THE_SECRETS = {
    name: {"existingSecret": "warmgate-redis", "key": name}
    for name in ("store__password", "store__sentinel_password", "store__tls__key_password")
}


OF_ITS_KEYS = ("~warmgate:*", "&warmgate:*", "+@all", "-@admin")


def only(
    server: RedisServer, user: str, password: str, rights: tuple[str, ...] = OF_ITS_KEYS
) -> None:
    """From now on this user is the only one that gets in, with that password alone."""
    told(server, "ACL", "SETUSER", user, "on", f">{password}", *rights)
    told(server, "ACL", "SETUSER", "default", "off")


@contextmanager
def behind_sentinels() -> Iterator[Values]:
    with sentinels() as found:
        for server in (found.primary, found.replica):
            only(server, "warmgate", SECRETS["store__password"])
        for watcher in found.watchers:
            # (What docs/explanation/redis.md asks for, where no replica is read from.)
            only(watcher, "watcher", SECRETS["store__sentinel_password"], ("+sentinel|masters",))
        yield {"url": found.url, "sentinel_username": "watcher"}


@contextmanager
def in_a_cluster() -> Iterator[Values]:
    with cluster() as found:
        for server in found.servers:
            only(server, "warmgate", SECRETS["store__password"])
        yield {"url": found.url}


@contextmanager
def over_tls() -> Iterator[Values]:
    """It asks for a certificate of ours."""
    executable = binary("redis")
    if executable is None:
        if missing_is_a_failure():
            pytest.fail("redis-server is not installed, and this is CI")
        pytest.skip("redis-server is not installed")
    port = free_port()
    options = (
        *("--tls-port", str(port), "--tls-ca-cert-file", str(TLS / "ca.pem")),
        *("--tls-auth-clients", "yes", "--tls-cert-file", str(TLS / "server.pem")),
        *("--tls-key-file", str(TLS / "server.pem")),
    )
    server = RedisServer(executable, options=options)
    try:
        server.start()
        only(server, "warmgate", SECRETS["store__password"])
        places = {"ca_path": "ca.pem", "cert_path": "client.pem", "key_path": "client.pem"}
        tls = {setting: str(TLS / name) for setting, name in places.items()}
        yield {"url": f"rediss://127.0.0.1:{port}/0", "tls": tls}
    finally:
        server.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("topology", "secrets"),
    [
        (behind_sentinels, ("store__password", "store__sentinel_password")),
        (in_a_cluster, ("store__password",)),
        (over_tls, ("store__password", "store__tls__key_password")),
    ],
)
async def test_values_and_secrets_lead_to_it(
    helm: Helm,
    tmp_path: Path,
    topology: Callable[[], AbstractContextManager[Values]],
    secrets: tuple[str, ...],
) -> None:
    with topology() as told_of_it:
        # Time is of no interest here, and a machine may be busy.
        ours = {"username": "warmgate", "deadline_ms": 10_000, "memory_bytes": 0}
        values = {
            "config": {"store": {**ours, **told_of_it}},
            "secrets": {name: OF_THE_SECRETS[name] for name in secrets},
        }
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        settings = settings_of(helm.manifests("-f", file), tmp_path).store
        store = open_store(settings, time.time, {})
        await store.start()
        try:
            await store.put(KEY, b"an answer", 60)
            assert await store.get([KEY]) == [b"an answer"]
        finally:
            await store.close()
            gc.collect()


@pytest.mark.slow
async def test_without_the_secret_nothing_is_let_in(helm: Helm, tmp_path: Path) -> None:
    with over_tls() as told_of_it:
        file = tmp_path / "values.yaml"
        store_values = {"username": "", "deadline_ms": 10_000, "memory_bytes": 0, **told_of_it}
        file.write_text(yaml.safe_dump({"config": {"store": store_values}}), encoding="utf-8")
        settings = settings_of(helm.manifests("-f", file), tmp_path).store
        store = open_store(settings, time.time, {})
        await store.start()
        try:
            with pytest.raises(StoreUnavailable):
                await store.get([KEY])
        finally:
            await store.close()
            gc.collect()

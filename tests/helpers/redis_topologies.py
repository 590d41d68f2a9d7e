"""Real topologies on free ports: a Cluster of three primaries with a replica each, and a primary
with a replica and three Sentinels. Whichever server is there, Debian's Redis first.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import redis

from tests.helpers.redis_servers import RedisServer, binary, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SETTLE_S = 20.0
NODE_TIMEOUT_MS = 1000
DOWN_AFTER_MS = 500
SERVICE = "gw"


def executable() -> Path:
    """Debian's Redis, else the Valkey that is always there."""
    found = binary("redis") or binary("valkey")
    assert found is not None
    return found


def told(server: RedisServer, *command: object) -> Any:
    """The server's answer."""
    with redis.Redis(port=server.port, socket_timeout=5, protocol=2) as client:
        return client.execute_command(*command)


def until(met: Callable[[], object]) -> None:
    """Polls: these are foreign processes."""
    give_up = time.monotonic() + SETTLE_S
    while True:
        with suppress(redis.RedisError):
            if met():
                return
        if time.monotonic() > give_up:
            raise TimeoutError(f"{met} is not met after {SETTLE_S} s")
        time.sleep(0.02)


def _slots(server: RedisServer) -> list[list[object]]:
    """First, last, primary, replica of each range."""
    with redis.Redis(port=server.port, socket_timeout=5, protocol=2) as client:
        client.set_response_callback("CLUSTER SLOTS", list)
        found: list[list[object]] = client.execute_command("CLUSTER SLOTS")
        return found


class Cluster:
    """`servers[:3]` are made primaries, `servers[3:]` their replicas, in this order."""

    def __init__(self) -> None:
        options = (
            *("--cluster-enabled", "yes"),
            *("--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
            *("--cluster-replica-validity-factor", "0"),
            *("--repl-diskless-sync-delay", "0"),
            # CLUSTER SLOTS leaves a replica out until it has heard of its primary.
            *("--repl-ping-replica-period", "1"),
        )
        self.servers = [
            RedisServer(executable(), options=(*options, "--cluster-port", str(free_port())))
            for _ in range(6)
        ]

    @property
    def url(self) -> str:
        """With every node in it: any of them may be the one that is down."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{s.port}" for s in self.servers)

    def start(self) -> None:
        for server in self.servers:
            server.start()
        first, ids = self.servers[0], []
        for number, server in enumerate(self.servers):
            ids.append(told(server, "CLUSTER MYID").decode())
            told(server, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < 3:
                slots = (number * 5461, number * 5461 + 5460 if number < 2 else 16_383)
                told(server, "CLUSTER", "ADDSLOTSRANGE", *slots)
            if server is not first:
                bus = server.options[server.options.index("--cluster-port") + 1]
                told(first, "CLUSTER", "MEET", "127.0.0.1", server.port, bus)
        for server in self.servers:
            until(lambda s=server: told(s, "CLUSTER INFO")["cluster_known_nodes"] == "6")  # type: ignore[misc] # redis-py parses it
        for server, primary in zip(self.servers[3:], ids, strict=False):
            until(lambda s=server, p=primary: told(s, "CLUSTER", "REPLICATE", p))  # type: ignore[misc]
        for server in self.servers[3:]:
            # A primary that dies before the first sync is never replaced.
            until(lambda s=server: told(s, "INFO", "replication")["master_link_status"] == "up")  # type: ignore[misc]
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Every server knows three primaries with a replica each, and holds them for alive."""
        for server in self.servers:
            until(lambda s=server: told(s, "CLUSTER INFO")["cluster_state"] == "ok")  # type: ignore[misc]
            until(lambda s=server: sorted(map(len, _slots(s))) == [4, 4, 4])  # type: ignore[misc]

    def close(self) -> None:
        for server in self.servers:
            server.close()


class Sentinels:
    """`primary`, `replica`, and three Sentinels that agree by two."""

    def __init__(self) -> None:
        quick = ("--repl-diskless-sync-delay", "0")
        self.primary = RedisServer(executable(), options=quick)
        self.replica = RedisServer(
            executable(), options=(*quick, "--replicaof", f"127.0.0.1 {self.primary.port}")
        )
        self.watchers = [RedisServer(executable(), options=("--sentinel",)) for _ in range(3)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{watcher.port}" for watcher in self.watchers)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    def start(self) -> None:
        self.primary.start()
        self.replica.start()
        until(lambda: told(self.replica, "INFO", "replication")["master_link_status"] == "up")
        for watcher in self.watchers:
            watcher.start()
            told(watcher, "SENTINEL", "MONITOR", SERVICE, "127.0.0.1", self.primary.port, 2)
            told(watcher, "SENTINEL", "SET", SERVICE, "down-after-milliseconds", DOWN_AFTER_MS)
            told(watcher, "SENTINEL", "SET", SERVICE, "failover-timeout", 3000)
        for watcher in self.watchers:
            until(lambda w=watcher: self._knows_all(w))  # type: ignore[misc]

    @staticmethod
    def _knows_all(watcher: RedisServer) -> bool:
        said = told(watcher, "SENTINEL", "MASTER", SERVICE)
        fields = {k.decode(): v.decode() for k, v in zip(said[::2], said[1::2], strict=True)}
        return (fields["num-other-sentinels"], fields["num-slaves"]) == ("2", "1")

    def close(self) -> None:
        for server in (*self.watchers, self.replica, self.primary):
            server.close()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """One that is whole; gone afterwards."""
    made = Cluster()
    try:
        made.start()
        yield made
    finally:
        made.close()


@contextmanager
def sentinels() -> Iterator[Sentinels]:
    """A primary whose replica is in sync, and that the Sentinels agree on; gone afterwards."""
    made = Sentinels()
    try:
        made.start()
        yield made
    finally:
        made.close()

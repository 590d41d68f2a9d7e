"""A store that replicas share: Redis or Valkey, as one server, behind Sentinels or as a Cluster.

Entries are plain strings with an expiry: GET, SET PX, UNLINK, nothing that needs a certain server.
Keys carry no hash tag, so that a Cluster spreads them over its slots.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import AskError, MovedError, ResponseError

from gateway.store.base import StoreUnavailable
from gateway.store.deadline import within
from gateway.store.redis_address import Address, Place
from gateway.store.redis_feed import subscribed
from gateway.store.redis_finders import ClusterFinder, ServiceFinder
from gateway.store.redis_line import Line
from gateway.store.redis_node import Node
from gateway.store.redis_replies import in_words, judge
from gateway.store.redis_topology import Discovered, OneServer
from gateway.store.redis_witness import tell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from gateway.store.redis_access import Access
    from gateway.store.redis_topology import Topology

    Word = bytes | str | int

logger = logging.getLogger(__name__)

CONNECTIONS = 64
"""Connections of one process to one server, unless the URL says `max_connections`."""

WARM = 8
"""Connections made at start, so that a first burst need not wait for handshakes."""

_REDIRECTIONS = 3
"""A slot that moves may point on once or twice; then somebody is wrong."""

_READS = frozenset(
    {"GET", "MGET", "HGET", "HMGET", "HGETALL", "EXISTS", "TTL", "PTTL", "PING", "PUBLISH"}
    | {"SCAN", "TIME", "STRLEN", "TYPE", "INFO", "DBSIZE", "MEMORY", "LRANGE", "SMEMBERS"}
)


class RedisStore:
    """Every operation is over within `deadline_s`, waiting for a free connection included.

    Nothing is retried. When a server does not answer at all, operations on it fail at once, without
    waiting, but for one each second that looks whether it is back.
    """

    name = "redis"

    def __init__(
        self,
        url: str,
        *,
        deadline_s: float = 0.05,
        key_prefix: str = "warmgate:",
        connections: int = CONNECTIONS,
        access: Access | None = None,
    ) -> None:
        """A store at `url` (see `redis_address`), reached with what `access` adds to it.

        Raises ValueError that names every fault of both.
        """
        address = Address(url, access)
        if address.topology == "cluster" and "{" in key_prefix:
            raise ValueError(
                "store.key_prefix has a {: a Cluster would keep all entries in one slot; choose a "
                "prefix without braces"
            )
        self._address = address
        self._deadline_s = deadline_s
        self._prefix = key_prefix
        self._prefix_bytes = key_prefix.encode()
        self._size = address.max_connections or connections
        self._topology = self._topology_of(address)

    def __repr__(self) -> str:
        return f"<RedisStore {self._topology!r}>"

    async def start(self) -> None:
        """Connect once, so that the first request finds a connection; say so when it fails."""
        try:
            await self._topology.start(1.0)
            nodes = list(self._topology.primaries())
            for node in nodes:
                replies = await node.ask([("PING",)])
                if isinstance(replies, StoreUnavailable) and replies.reason == "connecting":
                    # TLS may take longer than a request would wait; now there is a connection.
                    replies = await node.ask([("PING",)])
                _sound(replies)
        except StoreUnavailable as exc:
            logger.warning("Redis is not there at start (%s); it is tried again on demand", exc)
            return
        for node in nodes:
            await node.connections.warm_up(min(WARM, self._size))

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The blobs, in the order asked; what lies there in another shape than ours is None.

        Where a Cluster can't say it of all, what was found is given, the rest is None. Raises
        `StoreUnavailable` when nothing was found and something could not be asked.
        """
        began = asyncio.get_running_loop().time()
        await self._topology.start(self._deadline_s)
        names = [self._name(key) for key in keys]
        asked: dict[Node, list[int]] = {}
        problem: StoreUnavailable | None = None
        for place, name in enumerate(names):
            try:
                asked.setdefault(self._topology.reader(name), []).append(place)
            except StoreUnavailable as exc:
                problem = exc
        answers = [
            (node, places, node.ask([(b"GET", names[place]) for place in places]))
            for node, places in asked.items()
        ]
        for node, places, answer in answers:
            tell("GET", len(places), node.place, answer)
        blobs: list[bytes | None] = [None] * len(names)
        for node, places, answer in answers:
            replies = await answer
            if isinstance(replies, StoreUnavailable):
                problem = replies
                continue
            for place, reply in zip(places, replies, strict=True):
                if reply is None or type(reply) is bytes:
                    blobs[place] = reply
                    continue
                try:
                    blobs[place] = await self._blob(node, names[place], reply, began)
                except StoreUnavailable as exc:
                    problem = exc
        if problem is not None and not any(blobs):
            raise problem
        return blobs

    async def put(self, key: bytes, blob: bytes, ttl_s: float) -> None:
        """Keep the blob. Raises `StoreUnavailable`, then it may or may not have been kept."""
        await self.execute("SET", self._name(key), blob, "PX", max(1, round(ttl_s * 1000)))

    async def delete(self, keys: Sequence[bytes]) -> int:
        """Forget the keys; how many existed. Raises `StoreUnavailable`."""
        # One at a time in one pipeline: those of different slots can't share a command.
        counts = await asyncio.gather(
            *(self.execute("UNLINK", self._name(key)) for key in keys), return_exceptions=True
        )
        for count in counts:
            if isinstance(count, BaseException):
                raise count
        return sum(count for count in counts if isinstance(count, int))

    async def claim(self, name: str, value: bytes) -> bytes:
        """The value under `<prefix><name>`, which is `value` if we are the first to set it.

        Never expires. Raises `StoreUnavailable`.
        """
        if await self.execute("SET", self.named(name), value, "NX") is not None:
            return value
        held = await self.execute("GET", self.named(name))
        if not isinstance(held, bytes):
            raise StoreUnavailable(f"{name} went away between SET NX and GET")
        return held

    def named(self, name: str) -> str:
        """The key or channel of that name: behind our prefix, so that ACLs hold."""
        return self._prefix + name

    async def execute(self, *command: Word) -> Any:
        """The reply to any command that answers at once and concerns one key.

        The key comes right after the command's name, whole, as `named` makes it (in EVAL and FCALL
        after the number of keys). It is asked of the server that takes writes. Replies are as RESP2
        has them: bytes, int, None or lists of these; HGETALL is a flat list. Same deadline and
        breaker as everything here: raises `StoreUnavailable`, nothing else; then a write may or may
        not have happened.
        """
        began = asyncio.get_running_loop().time()
        await self._topology.start(self._deadline_s)
        verb = str(command[0]).upper()
        node = self._topology.primary(_key(verb, command))
        answer = node.ask([command], is_write=verb not in _READS)
        tell(verb, 1, node.place, answer)
        (reply,) = _sound(await answer)
        return await self._settled(node, command, reply, began)

    async def execute_everywhere(self, *command: Word) -> list[Any]:
        """The replies of all servers that take writes to a command without a key (INFO, DBSIZE).

        Raises `StoreUnavailable` when one of them did not answer.
        """
        await self._topology.start(self._deadline_s)
        answers = [(node, node.ask([command])) for node in self._topology.primaries()]
        replies = [(node, _sound(await answer)[0]) for node, answer in answers]
        for _, reply in replies:
            if isinstance(reply, ResponseError):
                raise _refused(reply)
        return [reply for _, reply in replies]

    async def scan(self, name: str = "", count: int = 1000) -> AsyncIterator[list[bytes]]:
        """All keys that begin with `named(name)`, in portions of about `count`; some twice.

        What is written or deleted meanwhile may be missing. Raises `StoreUnavailable`.
        """
        await self._topology.start(self._deadline_s)
        pattern = _literally(self.named(name)) + "*"
        for node in list(self._topology.primaries()):
            cursor: Word = 0
            while True:
                command = ("SCAN", cursor, "MATCH", pattern, "COUNT", count)
                (reply,) = _sound(await node.ask([command]))
                if isinstance(reply, ResponseError):
                    raise _refused(reply)
                cursor, found = reply
                if found:
                    yield found
                if cursor == b"0":
                    break

    def subscription(self, channel: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The messages of a channel (as `named` makes it), over a connection of their own.

        `async with store.subscription(c) as messages: async for message in messages: ...`
        Entering and iterating raise `StoreUnavailable`, nothing else, when there is no feed or it
        is lost (at most 3 s after it fell silent). Then subscribe anew, after a pause: what was
        published meanwhile is lost. Publish with `execute("PUBLISH", channel, message)`.
        """

        async def connect() -> Any:
            await self._topology.start(self._deadline_s)
            return await self._topology.primary(channel.encode()).connections.own()

        return subscribed(connect, channel)

    async def line(self, key: str) -> Line:
        """A new connection to the server that takes writes for the key (as `named` makes it), for who
        keeps it: not of the pool, without the breaker. Raises `StoreUnavailable`.
        """
        await self._topology.start(self._deadline_s)
        node = self._topology.primary(key.encode())

        def is_current() -> bool:
            with suppress(StoreUnavailable):
                return self._topology.primary(key.encode()) is node
            return False

        try:
            return Line(await node.connections.own(), is_current, node.on_trouble)
        except Exception as exc:
            if judge(exc).look_again:
                node.on_trouble()
            raise StoreUnavailable(
                f"no connection to {node.place} ({in_words(exc)})", judge(exc).reason
            ) from exc

    async def close(self) -> None:
        """Close all connections."""
        await self._topology.close()

    def _topology_of(self, address: Address) -> Topology:
        match address.topology:
            case "sentinel":
                finder: Any = ServiceFinder(address)
            case "cluster":
                finder = ClusterFinder(address)
            case _:
                return OneServer(address.places[0], self._node)
        return Discovered(finder, self._node, reads_replicas=address.reads_replicas)

    def _node(
        self, place: Place, on_trouble: Callable[[], None], *, of_replica: bool = False
    ) -> Node:
        make = self._address.maker(place, of_replica=of_replica)
        return Node(
            place, make, size=self._size, deadline_s=self._deadline_s, on_trouble=on_trouble
        )

    def _name(self, key: bytes) -> bytes:
        return self._prefix_bytes + key.hex().encode()

    async def _blob(self, node: Node, name: bytes, reply: Any, began: float) -> bytes | None:
        if isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE"):
            return None
        settled = await self._settled(node, (b"GET", name), reply, began)
        return settled if isinstance(settled, bytes) else None

    async def _settled(
        self, node: Node, command: tuple[Word, ...], reply: Any, began: float
    ) -> Any:
        """The reply, or that of the server that another one pointed to. Raises `StoreUnavailable`
        for a refusal, and when the time that is left does not suffice.
        """
        if not isinstance(reply, ResponseError):
            return reply
        left_s = began + self._deadline_s - asyncio.get_running_loop().time()
        try:
            return await within(left_s, self._followed(node, command, reply))
        except TimeoutError as exc:
            raise StoreUnavailable(
                "Redis pointed elsewhere, too late to ask there", "late"
            ) from exc

    async def _followed(self, node: Node, command: tuple[Word, ...], reply: Any) -> Any:
        for _ in range(_REDIRECTIONS):
            if not isinstance(reply, AskError):
                break
            node.on_trouble()
            node = self._topology.at(Place(reply.host or node.place.host, reply.port))
            # A slot that moves: its new owner answers for it only who was sent there.
            first = () if isinstance(reply, MovedError) else (("ASKING",),)
            *_, reply = _sound(await node.ask([*first, command]))
        if isinstance(reply, ResponseError):
            raise _refused(reply)
        return reply


def _key(verb: str, command: tuple[Word, ...]) -> bytes:
    place = 3 if verb in {"EVAL", "EVALSHA", "FCALL"} else 1
    key = command[place] if len(command) > place else b""
    return key if isinstance(key, bytes) else str(key).encode()


def _sound(replies: list[Any] | StoreUnavailable) -> list[Any]:
    if isinstance(replies, StoreUnavailable):
        raise replies
    return replies


def _refused(error: ResponseError) -> StoreUnavailable:
    return StoreUnavailable(f"Redis refused: {error}", judge(error).reason)


def _literally(text: str) -> str:
    """A glob that matches the text."""
    return "".join(f"\\{char}" if char in "*?[]^-\\" else char for char in text)

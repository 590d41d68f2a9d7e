"""A store's URL and its settings -> how to reach Redis.

    redis://user:password@host:6379/0                              one server
    redis+sentinel://user:password@host1:26379,host2/service/0     the primary that Sentinels know
    redis+cluster://user:password@host1:6379,host2                 a Cluster; the hosts know the rest

`rediss` in place of `redis` speaks TLS, with Sentinels too. The spelling is that of the
redis-sentinel-url package, which others took over; options after `?` are redis-py's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.connection import parse_url as parse_redis_url
from redis.exceptions import RedisError

from gateway.store.connections import Plain, Secure
from gateway.store.redis_access import Access

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.store.connections import Abortable

REDIS_PORT = 6379
SENTINEL_PORT = 26379

_URL = re.compile(
    r"(?P<kind>redis|rediss)(?:\+(?P<topology>sentinel|cluster))?://(?P<rest>.*)", re.DOTALL
)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:,\[\]]+)(?::(?P<port>[0-9]{1,5}))?")

_OURS = frozenset(
    {
        "connection_class",
        "health_check_interval",  # a PING before a command would be on the hot path
        "max_connections",
        "retry_on_timeout",  # nothing is retried: the request goes on without the store
        "socket_connect_timeout",
        "socket_timeout",
        "decode_responses",
        "timeout",
    }
)
"""URL options that the store decides; what a URL says about them is not passed on."""


class Place(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Address:
    """How to reach Redis: who to ask first, and what makes connections.

    RESP2 and no `CLIENT SETINFO` unless the URL asks for more: without a password and a database
    number a connection needs no round trip, and old servers and proxies understand it.
    """

    def __init__(self, url: str, access: Access | None = None) -> None:
        """Raises ValueError that names every fault, each with its mend, and no password."""
        access = access or Access()
        found = _URL.fullmatch(url)
        if found is None:
            raise ValueError("the URL is not redis://, redis+sentinel:// or redis+cluster://")
        faults: list[str] = []
        self.topology = found["topology"] or "one"
        self.is_tls = found["kind"] == "rediss"
        self.reads_replicas = access.read_from_replicas
        netloc, path, query = _parts(found["rest"])
        credentials, _, hosts = netloc.rpartition("@")
        default = SENTINEL_PORT if self.topology == "sentinel" else REDIS_PORT
        self.places = tuple(_places(hosts, default, self.topology, faults))
        self.service, database = _service_and_database(path, self.topology, faults)
        options = _options(self.is_tls, credentials, database, query, faults)
        self.max_connections: int | None = options.pop("max_connections", None)
        sentinel = {
            name.removeprefix("sentinel_"): options.pop(name)
            for name in ("sentinel_username", "sentinel_password")
            if name in options
        }
        faults += _with_access(options, sentinel, access, self)
        if self.topology == "cluster" and options.get("db"):
            faults.append("a Cluster has no databases but 0: leave the number out")
        if self.reads_replicas and self.topology == "one":
            faults.append(
                "store.read_from_replicas needs to be told of replicas: use redis+sentinel:// or "
                "redis+cluster://"
            )
        self._settings: dict[str, Any] = {"protocol": 2, "driver_info": None}
        self._settings |= {name: value for name, value in options.items() if name not in _OURS}
        self._settings |= {"socket_timeout": None, "socket_connect_timeout": None}
        self._kind: type[Abortable] = Secure if self.is_tls else Plain
        self._context: Any = None
        self.sentinel_settings: dict[str, Any] = {
            **{n: v for n, v in self._settings.items() if n.startswith("ssl_")},
            **sentinel,
            "ssl": self.is_tls,
        }
        try:
            self._first()
        except (TypeError, RedisError) as exc:
            faults.append(f"an option in the URL can't be used: {exc}")
        except (OSError, ValueError) as exc:
            faults.append(
                f"the TLS files can't be used ({exc}): give PEM files that this process may read, "
                "and the key that belongs to the certificate"
            )
        if faults:
            raise ValueError("\n".join(faults))

    def __repr__(self) -> str:
        hosts = ",".join(map(str, self.places))
        return f"<Address {self.topology} {hosts}{' TLS' if self.is_tls else ''}>"

    def maker(self, place: Place, *, of_replica: bool = False) -> Callable[[], Abortable]:
        """What makes connections to the server there, not connected."""
        settings = {**self._settings, "host": place.host, "port": place.port}
        if of_replica and self.topology == "cluster":
            settings["redis_connect_func"] = _ask_of_replica

        def make() -> Abortable:
            connection = self._kind(**settings)
            if isinstance(connection, SSLConnection):
                # One TLS context for all: loading the certificates takes milliseconds each time.
                connection.ssl_context = self._context
            return connection

        return make

    def _first(self) -> None:
        """Build one connection and its TLS context: faults in options show here."""
        made = self._kind(**self._settings)
        if isinstance(made, SSLConnection):
            made.ssl_context.get()
            self._context = made.ssl_context


async def _ask_of_replica(connection: Connection) -> None:
    """A replica in a Cluster answers for its primary's slots only who says that it may be old."""
    await connection.on_connect()
    await connection.send_command("READONLY", check_health=False)
    await connection.read_response()


def _parts(rest: str) -> tuple[str, str, str]:
    """netloc, path and query. By hand: urlsplit refuses lists of hosts with IPv6 among them."""
    before, _, query = rest.partition("?")
    netloc, _, path = before.partition("/")
    return netloc, path, query


def _places(hosts: str, default: int, topology: str, faults: list[str]) -> list[Place]:
    texts = hosts.split(",") if topology != "one" else [hosts]
    places: list[Place] = []
    for text in texts:
        found = _HOST.fullmatch(text)
        if found is None or int(found["port"] or default) > 65_535:
            # Not quoted: what was taken for a host or port may be part of a password.
            faults.append(
                "a host or port in the URL is not one: write host:port (several only with Sentinel "
                "and Cluster, with commas), and percent-encode / ? # @ and : in a password"
            )
            continue
        places.append(Place(unquote(found["host"]).strip("[]"), int(found["port"] or default)))
    return places


def _service_and_database(path: str, topology: str, faults: list[str]) -> tuple[str, str]:
    service, database = "", path
    if topology == "sentinel":
        service, _, database = path.partition("/")
        if not service:
            faults.append(
                "the URL names no service: write redis+sentinel://host1,host2/mymaster, with the "
                "name that the Sentinels monitor"
            )
    if database and not database.isdecimal():
        faults.append("the URL ends in something other than a database number: write /0 or nothing")
        database = ""
    return unquote(service), database


def _options(
    is_tls: bool, credentials: str, database: str, query: str, faults: list[str]
) -> dict[str, Any]:
    """Keyword arguments of a connection, by redis-py's own reading of a URL with one host."""
    kind = "rediss" if is_tls else "redis"
    at = "@" if credentials else ""
    try:
        options: dict[str, Any] = dict(
            parse_redis_url(f"{kind}://{credentials}{at}host/{database}?{query}")
        )
    except ValueError as exc:
        faults.append(f"an option in the URL can't be used: {exc}")
        return {}
    options.pop("host", None)
    return options


def _with_access(
    options: dict[str, Any], sentinel: dict[str, Any], access: Access, address: Address
) -> list[str]:
    """Lay the settings over what the URL said; what doesn't go together."""
    faults = []
    for name, value in (("username", access.username), ("password", access.password)):
        if value and options.get(name):
            faults.append(f"both the URL and store.{name} give the {name}: leave one out")
        if value:
            options[name] = value
    for name, value in (
        ("username", access.sentinel_username),
        ("password", access.sentinel_password),
    ):
        if value and address.topology != "sentinel":
            faults.append(f"store.sentinel_{name} is for redis+sentinel:// URLs: leave it out")
        if value:
            sentinel[name] = value
    return faults + _with_tls(options, access, is_tls=address.is_tls)


def _with_tls(options: dict[str, Any], access: Access, *, is_tls: bool) -> list[str]:
    given = {
        "ca_path": ("ssl_ca_certs", access.ca_path),
        "cert_path": ("ssl_certfile", access.cert_path),
        "key_path": ("ssl_keyfile", access.key_path),
        "key_password": ("ssl_password", access.key_password),
        "check_hostname": ("ssl_check_hostname", "" if access.check_hostname else "no"),
    }
    named = [f"store.tls.{name}" for name, (_, value) in given.items() if value]
    if named and not is_tls:
        return [f"{', '.join(named)} without TLS: write rediss in place of redis in the URL"]
    options |= {option: value for option, value in given.values() if value}
    if not access.check_hostname:
        options["ssl_check_hostname"] = False
    if access.key_path and not options.get("ssl_certfile"):
        return ["store.tls.key_path without store.tls.cert_path: give both"]
    return []

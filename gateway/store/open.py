"""URL -> store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from gateway.store.memory import MemoryStore
from gateway.store.redis_access import Access
from gateway.store.sqlite import SqliteStore
from gateway.store.tiered import TieredStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import SecretStr

    from gateway import config
    from gateway.store.base import Store

_MS = 1000.0
REDIS = re.compile(r"rediss?(\+sentinel|\+cluster)?")
_SECRET = re.compile("pass|pwd|secret|token|key", re.IGNORECASE)


def open_store(
    settings: config.Store, clock: Callable[[], float], environ: Mapping[str, str]
) -> Store:
    """The store that the settings name, not started. `clock` gives seconds since the epoch.

    Raises ValueError, in words for people and without the password, for a URL it can't use.
    """
    url = settings.url or default_url(environ)
    memory = MemoryStore(settings.memory_bytes, clock)
    deadline_s = settings.deadline_ms / _MS
    back: Store
    match scheme(url):
        case "memory":
            return memory
        case "sqlite":
            back = SqliteStore(
                sqlite_path(url),
                deadline_s=deadline_s,
                clock=clock,
                budget_bytes=settings.sqlite_bytes,
            )
        case _:
            from gateway.store.redis import RedisStore  # noqa: PLC0415 - 7 MB, for Redis only

            back = RedisStore(
                url,
                deadline_s=deadline_s,
                key_prefix=settings.key_prefix,
                access=redis_access(settings),
            )
    return TieredStore(memory, back, clock) if settings.memory_bytes else back


def redis_access(settings: config.Store) -> Access:
    """What the settings add to a URL of Redis."""
    tls = settings.tls

    def shown(secret: SecretStr | None) -> str:
        return secret.get_secret_value() if secret else ""

    return Access(
        username=settings.username or "",
        password=shown(settings.password),
        sentinel_username=settings.sentinel_username or "",
        sentinel_password=shown(settings.sentinel_password),
        ca_path=str(tls.ca_path or ""),
        cert_path=str(tls.cert_path or ""),
        key_path=str(tls.key_path or ""),
        key_password=shown(tls.key_password),
        check_hostname=tls.check_hostname,
        read_from_replicas=settings.read_from_replicas,
    )


def default_url(environ: Mapping[str, str]) -> str:
    """SQLite in the user's state folder, by the XDG base directory specification."""
    state = Path(environ.get("XDG_STATE_HOME", ""))
    # "If an implementation encounters a relative path ... it should consider the path invalid and
    # ignore it." https://specifications.freedesktop.org/basedir-spec/latest/
    if not state.is_absolute():
        home = environ.get("HOME")
        state = (Path(home) if home else Path("~").expanduser()) / ".local" / "state"
    return "sqlite:///" + quote(str(state / "warmgate" / "cache.sqlite"))


def scheme(url: str) -> str:
    """memory, sqlite or redis (in all its forms). Raises ValueError for any other."""
    name = url.partition("://")[0]
    if REDIS.fullmatch(name):
        return "redis"
    if name not in {"memory", "sqlite"}:
        raise ValueError(
            f"{describe(url)} is not memory://, sqlite:///path, redis://host, "
            "redis+sentinel://host/service or redis+cluster://host"
        )
    return name


def sqlite_path(url: str) -> Path:
    """The file of a sqlite URL: `sqlite:///rel/ative`, `sqlite:////abs/olute`.

    Percent-encoding is decoded. Raises ValueError.
    """
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or not path:
        raise ValueError(f"{url} names no file: write sqlite:///relative or sqlite:////absolute")
    if parts.query or parts.fragment:
        raise ValueError(f"{url}: a sqlite URL has no options; write %3F for ? and %23 for #")
    return Path(path)


def describe(url: str) -> str:
    """The URL with its credentials blotted out: for logs, spans and `gateway check`."""
    # By hand: urlsplit refuses lists of hosts, and urlunsplit drops the host of sqlite:////absolute.
    scheme, _, rest = url.partition("://")
    before, _, options = rest.partition("?")
    netloc, slash, path = before.partition("/")
    credentials, at, host = netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    # Without a colon it may be a token.
    user = f"{user}:***" if colon else "***" if user else ""
    query = [
        (name, "***" if _SECRET.search(name) else value)
        for name, value in parse_qsl(options, keep_blank_values=True)
    ]
    shown = f"{scheme}://{user}{at}{host}{slash}{path}"
    return f"{shown}?{urlencode(query, safe='*/')}" if query else shown

"""URL -> store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from gateway.store.memory import MemoryStore
from gateway.store.redis import RedisStore
from gateway.store.sqlite import SqliteStore
from gateway.store.tiered import TieredStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway import config
    from gateway.store.base import Store

_MS = 1000.0


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
            back = SqliteStore(sqlite_path(url), deadline_s=deadline_s, clock=clock)
        case _:
            back = RedisStore(url, deadline_s=deadline_s, key_prefix=settings.key_prefix)
    return TieredStore(memory, back, clock) if settings.memory_bytes else back


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
    """memory, sqlite, redis or rediss. Raises ValueError for any other."""
    name = urlsplit(url).scheme
    if name not in {"memory", "sqlite", "redis", "rediss"}:
        raise ValueError(
            f"{describe(url)} is not memory://, sqlite:///path, redis://host or rediss://host"
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
    parts = urlsplit(url)
    credentials, at, host = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    query = [
        (name, "***" if "password" in name else value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    # Put together by hand: urlunsplit drops the empty host of sqlite:////absolute.
    shown = f"{parts.scheme}://{user}{colon}{'***' if colon else ''}{at}{host}{parts.path}"
    return f"{shown}?{urlencode(query, safe='*/')}" if query else shown

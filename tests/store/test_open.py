from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway import config
from gateway.store import open as opening
from gateway.store.memory import MemoryStore
from gateway.store.redis import RedisStore
from gateway.store.sqlite import SqliteStore
from gateway.store.tiered import TieredStore

if TYPE_CHECKING:
    from gateway.store.base import Store

HOME = {"HOME": "/home/ada"}


def opened(url: str | None, **settings: Any) -> Store:
    return opening.open_store(config.Store(url=url, **settings), time.time, HOME)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("sqlite:////tmp/x.sqlite", SqliteStore),
        (None, SqliteStore),
        ("redis://localhost:6379/0", RedisStore),
        ("rediss://:secret@example.com:6380/2?ssl_cert_reqs=none", RedisStore),
        ("redis://h?max_connections=3&socket_timeout=9", RedisStore),
    ],
)
async def test_a_store_has_a_memory_tier_in_front_unless_its_budget_is_zero(
    url: str | None, kind: type
) -> None:
    tiered = opened(url)
    assert isinstance(tiered, TieredStore)
    assert isinstance(tiered.back, kind)
    assert tiered.memory.budget_bytes == 64 << 20
    assert isinstance(opened(url, memory_bytes=0), kind)


async def test_memory_alone_is_memory_alone() -> None:
    assert isinstance(opened("memory://"), MemoryStore)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://host/db",
        "localhost:6379",
        "sqlite://",
        "sqlite:///",
        "sqlite://cache.sqlite",
        "sqlite:///cache.sqlite?mode=ro",
        "redis://:hunter2@host:port/0",
        "redis://:hunter2/x@host:6379/0",
        "redis://:hunter2@host?colour=red",
        "redis://:hunter2@host?db=first",
        "rediss://:hunter2@host?ssl_cert_reqs=perhaps",
    ],
)
async def test_a_url_that_cannot_be_used_is_refused_without_quoting_its_password(url: str) -> None:
    # The config refuses some of them already; this is about what refuses the rest.
    settings = config.Store.model_construct(url=url)
    with pytest.raises(ValueError, match=r"\w") as caught:
        opening.open_store(settings, time.time, HOME)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///cache.sqlite", "cache.sqlite"),
        ("sqlite:///a/b.sqlite", "a/b.sqlite"),
        ("sqlite:////var/lib/b.sqlite", "/var/lib/b.sqlite"),
        ("sqlite:////tmp/a%20b%3F.sqlite", "/tmp/a b?.sqlite"),
    ],
)
def test_sqlite_urls_are_read_as_sqlalchemy_does(url: str, path: str) -> None:
    assert opening.sqlite_path(url) == Path(path)


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        (HOME, "/home/ada/.local/state/warmgate/cache.sqlite"),
        (HOME | {"XDG_STATE_HOME": "/state"}, "/state/warmgate/cache.sqlite"),
        (HOME | {"XDG_STATE_HOME": ""}, "/home/ada/.local/state/warmgate/cache.sqlite"),
        (HOME | {"XDG_STATE_HOME": "rel"}, "/home/ada/.local/state/warmgate/cache.sqlite"),
        ({"HOME": "/home/a b#c"}, "/home/a b#c/.local/state/warmgate/cache.sqlite"),
    ],
)
def test_the_default_is_a_file_in_the_users_state_folder(
    environ: dict[str, str], path: str
) -> None:
    assert opening.sqlite_path(opening.default_url(environ)) == Path(path)


def test_the_default_without_a_home_variable_is_the_users_home() -> None:
    path = opening.sqlite_path(opening.default_url({}))
    assert path == Path("~/.local/state/warmgate/cache.sqlite").expanduser()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://:hunter2@host:6379/0", "redis://:***@host:6379/0"),
        ("rediss://ada:hun:ter2@host/0", "rediss://ada:***@host/0"),
        ("redis://ada@host", "redis://***@host"),
        (
            "rediss://host?ssl_ca_certs=/etc/ca.pem&ssl_password=hunter2&password=hunter2",
            "rediss://host?ssl_ca_certs=/etc/ca.pem&ssl_password=***&password=***",
        ),
        ("sqlite:////var/lib/cache.sqlite", "sqlite:////var/lib/cache.sqlite"),
        ("sqlite:///cache.sqlite", "sqlite:///cache.sqlite"),
        ("memory://", "memory://"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert opening.describe(url) == shown

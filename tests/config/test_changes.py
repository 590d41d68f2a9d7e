"""What of another config holds at once, and what waits for a restart."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config import Config
from gateway.config.catalogue import catalogue
from gateway.config.changes import WAITING, changes

SECRETS = ["a-secret-of-some-length", "another-secret-of-length"]


def config(**sections: Any) -> Config:
    return Config.model_validate(sections)


def test_equal_configs_change_nothing() -> None:
    found = changes(config(cache={"ttl_s": 60}), config(cache={"ttl_s": 60}))

    assert ((), ()) == (found.applied, found.waiting)


def test_what_can_change_holds_and_the_rest_of_the_same_file_waits() -> None:
    held = config(server={"port": 8080}, store={"url": "memory://"}, log={"level": "info"})
    read = config(
        server={"port": 9090, "drain_timeout_s": 5},
        store={"url": "sqlite:///tmp/x.db"},
        log={"level": "debug", "format": "json"},
        routes=[{"upstream": "openai"}],
        upstreams={"gpu": {"base_url": "http://gpu/v1"}},
    )

    found = changes(held, read)

    assert ("log.level", "routes", "server.drain_timeout_s", "upstreams.gpu") == found.applied
    assert ("log.format", "server.port", "store.url") == found.waiting
    assert (8080, 5) == (found.config.server.port, found.config.server.drain_timeout_s)
    assert ("memory://", "debug", "auto") == (
        found.config.store.url,
        found.config.log.level,
        found.config.log.format,
    )


def test_what_waited_is_named_again_and_holds_no_more_than_before() -> None:
    held = config(admin={"port": 1})
    first = changes(held, config(admin={"port": 2}, cache={"ttl_s": 5}))
    second = changes(first.config, config(admin={"port": 2}, cache={"ttl_s": 6}))

    assert (("admin.port",), ("cache.ttl_s",)) == (second.waiting, second.applied)


def test_a_rotated_key_is_a_change_and_no_secret_is_named() -> None:
    def keyed(key: str) -> Config:
        return config(upstreams={"openai": {"api_key": key}})

    found = changes(keyed("sk-old"), keyed("sk-new"))

    assert ("upstreams.openai.api_key",) == found.applied
    assert keyed("sk-old").generation() == keyed("sk-new").generation()


@pytest.mark.parametrize(
    ("before", "after", "applied"),
    [
        (SECRETS[:1], SECRETS, ("cache.secret",)),
        (SECRETS, SECRETS[1:], ("cache.secret",)),
        ([], SECRETS, ()),
        (SECRETS, [], ()),
    ],
)
def test_other_scope_secrets_hold_but_the_first_or_none_waits(
    before: list[str], after: list[str], applied: tuple[str, ...]
) -> None:
    found = changes(config(cache={"secret": before}), config(cache={"secret": after}))

    assert applied == found.applied
    assert (() if applied else ("cache.secret",)) == found.waiting


def test_what_waits_is_there_to_be_set() -> None:
    known = {each.path for each in catalogue()}

    for path in WAITING:
        assert path in known or any(each.startswith(f"{path}.") for each in known), path


def test_the_merged_config_is_one_that_could_have_been_read() -> None:
    """The parts that wait belong together: neither half has contradictions of its own."""
    held = config(server={"port": 8080, "probe_port": 9180})
    read = config(server={"port": 9180, "probe_port": 8080}, cache={"ttl_s": 9})

    found = changes(held, read)

    assert found.config == Config.model_validate(found.config.model_dump())

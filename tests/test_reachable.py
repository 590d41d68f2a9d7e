"""Who makes /readyz fail: only that nobody is left who could answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.config import Config
from gateway.reachable import Reachable
from gateway.server.probes import Check
from gateway.upstream.choice import Choice
from gateway.upstream.pools import Pools

if TYPE_CHECKING:
    from gateway.upstream.client import Call

OK, GONE = Check(ok=True, required=True), Check(ok=False, required=True)


def pool(*names: str, **more: Any) -> dict[str, Any]:
    """One whose replicas are at ports where nobody is."""
    urls = [{"name": name, "url": f"http://127.0.0.1:{1 + n}/v1"} for n, name in enumerate(names)]
    return {"engine": "vllm", "backends": urls, **more}


class World:
    def __init__(
        self, upstreams: dict[str, Any], routes: list[dict[str, Any]] | None = None
    ) -> None:
        self.now = 1000.0
        self.config = Config.model_validate({"upstreams": upstreams, "routes": routes or []})
        self.pools = Pools(
            self.config.upstreams, Choice(self.config).endpoints, _asks_nobody, lambda: self.now
        )
        self.reachable = Reachable(self.config, self.pools)

    @property
    def upstreams(self) -> Check:
        return self.reachable.checks()["upstreams"]

    def unhealthy(self, name: str) -> None:
        for backend in self.pools[name]:
            for _ in range(20):
                backend.probed("refused")

    def healthy(self, name: str) -> None:
        for backend in self.pools[name]:
            for _ in range(20):
                backend.probed(None)


def _asks_nobody(*_: Any) -> Call:
    raise AssertionError


def test_a_config_without_pools_can_always_be_asked() -> None:
    for upstreams in ({}, {"other": {"base_url": "http://127.0.0.1:1/v1"}}):
        assert World(upstreams).reachable.checks() == {"upstreams": OK}


def test_a_pool_is_there_while_one_of_its_replicas_is() -> None:
    world = World({"engines": pool("one", "two")})
    one, two = world.pools["engines"]
    for _ in range(20):
        one.probed("refused")
    assert world.upstreams == OK
    for _ in range(20):
        two.probed("status 503")
    assert world.reachable.checks() == {
        "upstreams": GONE,
        "pool engines": Check(ok=False, required=False),
    }
    world.healthy("engines")
    assert world.upstreams == OK


def test_a_dead_pool_of_several_upstreams_is_told_and_takes_nobody_away() -> None:
    world = World({"one": pool("a"), "two": pool("b"), "three": pool("c")})
    world.unhealthy("one")
    checks = world.reachable.checks()
    assert (checks["upstreams"], checks["pool one"].ok, checks["pool two"].ok) == (OK, False, True)
    world.unhealthy("two")
    world.unhealthy("three")
    assert world.upstreams == GONE


def test_a_provider_beside_a_dead_pool_can_be_asked() -> None:
    world = World({"engines": pool("one"), "other": {"base_url": "http://127.0.0.1:1/v1"}})
    world.unhealthy("engines")
    assert world.upstreams == OK


@pytest.mark.parametrize(
    ("built_in", "routes", "expected"),
    [
        ({}, [], GONE),
        ({"openai": {}}, [], GONE),
        ({"openai": {"api_key": "sk-0123456789abcdef"}}, [], OK),
        ({}, [{"path": "/v1/messages", "upstream": "anthropic"}], OK),
        ({}, [{"path": "/v1/*", "upstream": "engines"}], GONE),
    ],
)
def test_what_is_built_in_counts_where_the_config_speaks_of_it(
    built_in: dict[str, Any], routes: list[dict[str, Any]], expected: Check
) -> None:
    world = World({"engines": pool("one"), **built_in}, routes)
    world.unhealthy("engines")
    assert world.upstreams == expected


def test_a_pool_whose_replicas_are_all_drained_is_not_there() -> None:
    world = World({"engines": pool("one", "two")})
    for name in ("one", "two"):
        world.pools["engines"].drain(name)
    assert world.upstreams == GONE
    world.pools["engines"].undrain("two")
    assert world.upstreams == OK


def test_requests_that_fail_take_nobody_away_where_somebody_listens() -> None:
    world = World({"engines": pool("one")})
    (one,) = world.pools["engines"]
    for _ in range(20):
        one.failed("status 500", world.now)
    assert one.ejected
    assert world.upstreams == OK


def test_where_nobody_listens_nobody_is_until_it_is_tried_again() -> None:
    world = World({"engines": pool("one", health={"interval_s": 0})})
    (one,) = world.pools["engines"]
    for _ in range(20):
        one.failed("refused", world.now)
    assert world.upstreams == GONE
    world.now += one.ejected_for_s
    assert world.upstreams == OK
    one.succeeded(world.now)
    assert world.upstreams == OK


def test_another_config_counts_its_own() -> None:
    world = World({"engines": pool("one")})
    world.unhealthy("engines")
    other = {"engines": pool("one"), "other": {"base_url": "http://127.0.0.1:1/v1"}}
    world.reachable.turn(Config.model_validate({"upstreams": other}))
    assert world.upstreams == OK
    assert repr(world.reachable) == "<Reachable engines, other>"

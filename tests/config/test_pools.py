"""Pools in the config: what may be written, and what each contradiction is answered with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gateway.config import BackendAt, Config, load
from gateway.config.pools import MOST_REPLICAS, default_name, engine_of, provider_of
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = "http://10.0.0.1:8000/v1", "http://10.0.0.2:8000/v1"
DNS = "http://vllm.models:8000/v1"


@pytest.fixture
def faults(tmp_path: Path) -> Any:
    def of(upstreams: dict[str, Any]) -> list[tuple[str, str, str]]:
        file = tmp_path / "warmgate.yaml"
        file.write_text(yaml.safe_dump({"upstreams": upstreams}))
        try:
            load(file, {})
        except ConfigError as error:
            return [(f.path, f.problem, f.mend) for f in error.faults]
        return []

    return of


def test_a_backend_is_its_url_or_an_object_with_a_name_and_a_weight() -> None:
    named = {"url": TWO, "name": "b", "weight": 2}
    config = Config.model_validate(
        {"upstreams": {"vllm": {"engine": "vllm", "backends": [ONE, named]}}}
    )
    assert config.upstreams["vllm"].backends == (
        BackendAt(url=ONE),
        BackendAt(url=TWO, name="b", weight=2.0),
    )
    assert [each.named() for each in config.upstreams["vllm"].backends] == ["10.0.0.1:8000", "b"]


def test_more_replicas_than_a_pool_takes_are_a_fault(faults: Any) -> None:
    many = [f"http://10.0.{n // 250}.{n % 250}:8000/v1" for n in range(MOST_REPLICAS + 1)]
    assert faults({"vllm": {"engine": "vllm", "backends": many[:-1]}}) == []
    ((path, problem, _),) = faults({"vllm": {"engine": "vllm", "backends": many}})
    assert (path, problem) == (
        "upstreams.vllm.backends",
        "lists 1025 replicas, and a pool takes 1024 (line 3)",
    )


def test_backends_can_be_set_by_a_variable() -> None:
    environ = {
        "GATEWAY_UPSTREAMS__VLLM__BACKENDS": f"[{ONE}, {TWO}]",
        "GATEWAY_UPSTREAMS__VLLM__ENGINE": "vllm",
        "GATEWAY_UPSTREAMS__VLLM__ROUTING__POLICY": "session",
    }
    pool = load(None, environ).upstreams["vllm"]
    assert [each.url for each in pool.backends] == [ONE, TWO]
    assert pool.routing is not None
    assert pool.routing.policy == "session"


def test_a_pool_shows_what_holds_for_it_and_others_have_no_such_settings() -> None:
    upstreams = {"pool": {"backends": [ONE], "health": {"timeout_s": 1}}, "one": {"base_url": TWO}}
    config = Config.model_validate({"upstreams": upstreams})
    pool, one = config.upstreams["pool"], config.upstreams["one"]
    assert pool.routing is not None
    assert pool.health is not None
    assert (pool.routing.break_s, pool.health.timeout_s, pool.health.eject_s) == (10, 1, 10)
    assert (one.routing, one.health) == (None, None)


def test_a_pool_in_the_place_of_a_default_upstream_inherits_nothing() -> None:
    config = load(None, {"GATEWAY_UPSTREAMS__OPENAI__DNS": DNS})
    assert (config.upstreams["openai"].provider, config.upstreams["openai"].base_url) == (
        None,
        None,
    )


def test_statically_listed_replicas_and_those_of_dns_may_stand_together(faults: Any) -> None:
    assert faults({"vllm": {"backends": [ONE], "dns": DNS, "dns_interval_s": 5}}) == []


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (ONE, "10.0.0.1:8000"),
        ("https://gpu.example/v1", "gpu.example:443"),
        ("http://gpu/v1", "gpu:80"),
        ("http://[fd00::1]:8000/v1", "[fd00::1]:8000"),
    ],
)
def test_a_backend_is_called_by_its_host_and_port(url: str, name: str) -> None:
    assert default_name(url) == name


@pytest.mark.parametrize(
    ("engine", "provider", "expected"),
    [
        (None, None, (None, "openai")),
        (None, "vllm", ("vllm", "vllm")),
        (None, "openai", ("openai", "openai")),
        ("sglang", None, ("sglang", "sglang")),
        ("openai", None, ("unknown", "openai")),
        ("openai", "azure", ("azure", "openai")),
    ],
)
def test_engine_and_provider_complete_each_other(
    engine: str | None, provider: str | None, expected: tuple[str | None, str]
) -> None:
    assert (provider_of(engine, provider), engine_of(engine, provider, pool=True)) == expected


def test_what_is_no_pool_and_says_nothing_has_no_engine() -> None:
    assert [engine_of(*said, pool=False) for said in ((None, "anthropic"), ("vllm", None))] == [
        "",
        "vllm",
    ]


# fmt: off
CONTRADICTIONS = [
    ({"base_url": ONE, "backends": [TWO]}, "base_url", "beside backends", "keep base_url"),
    ({"base_url": ONE, "dns": DNS}, "base_url", "beside dns", "pool"),
    ({"backends": []}, "base_url", "missing", "backends"),
    ({"engine": "vllm"}, "base_url", "missing", "GATEWAY_UPSTREAMS__MINE__BASE_URL"),
    ({"backends": [ONE, TWO, f"{ONE}/"]}, "backends[2]", "address of backends[0]", "one of the two"),
    ({"backends": ["http://GPU/v1", "http://gpu:80/v1"]}, "backends[1]", "address of", "one of the two"),
    ({"backends": ["http://gpu/a", "http://gpu/b"]}, "backends[1]", "is called `gpu:80`", "`name`"),
    ({"backends": [{"url": ONE, "name": "a"}, {"url": TWO, "name": "a"}]}, "backends[1].name", "is called `a`", "`name`"),
    ({"backends": [{"url": ONE, "weight": 0}]}, "backends[0].weight", "`0` is not", "greater than 0"),
    ({"backends": [{"url": ONE, "weight": True}]}, "backends[0].weight", "not a number", "write a number"),
    ({"backends": [{"url": ONE, "name": "a b"}]}, "backends[0].name", "not a name", "a-z"),
    ({"backends": ["gpu:8000"]}, "backends[0].url", "not an absolute", "https://"),
    ({"backends": [{"name": "a"}]}, "backends[0].url", "missing", "add it"),
    ({"backends": [{"url": ONE, "wieght": 2}]}, "backends[0].wieght", "not a setting", "weight"),
    ({"backends": [ONE], "engine": "vllm", "provider": "openai"}, "provider", "contradicts engine vllm", "leave the provider out"),
    ({"backends": [ONE], "engine": "openai", "provider": "sglang"}, "provider", "contradicts engine openai", "set engine to sglang"),
    ({"base_url": ONE, "routing": {"policy": "session"}}, "routing", "without replicas", "backends"),
    ({"base_url": ONE, "health": {"interval_s": 1}}, "health", "without replicas", "backends"),
    ({"base_url": ONE, "dns_interval_s": 1}, "dns_interval_s", "no name is resolved", "dns"),
    ({"dns": "http://10.0.0.1:8000/v1"}, "dns", "nothing to resolve", "backends"),
    ({"dns": "http://[::1]:8000/v1"}, "dns", "nothing to resolve", "backends"),
    ({"backends": [ONE, TWO], "routing": {"policy": "delegate"}}, "routing.policy", "delegate", "inference gateway"),
    ({"dns": DNS, "routing": {"policy": "delegate"}}, "routing.policy", "delegate", "inference gateway"),
    ({"backends": [ONE], "routing": {"policy": "random"}}, "routing.policy", "`random` is not one of", "prefix"),
    ({"backends": [ONE], "health": {"path": "health"}}, "health.path", "not a path", "/health"),
    ({"backends": [ONE], "health": {"unhealthy_after": 0}}, "health.unhealthy_after", "`0` is not", "greater than 0"),
    ({"backends": [ONE], "metrics_interval_s": 1}, "metrics_interval_s", "can't be read", "engine"),
]
# fmt: on


@pytest.mark.parametrize(("upstream", "path", "problem", "mend"), CONTRADICTIONS)
def test_each_fault_says_where_and_how_to_mend_it(
    upstream: dict[str, Any], path: str, problem: str, mend: str, faults: Any
) -> None:
    ((where, what, how),) = faults({"mine": upstream})
    assert where == f"upstreams.mine.{path}"
    assert problem in what
    assert mend in how


def test_all_faults_of_pools_are_told_at_once(faults: Any) -> None:
    found = faults(
        {
            "a": {"base_url": ONE, "backends": [ONE, ONE], "engine": "vllm", "provider": "openai"},
            "b": {"dns": "http://10.0.0.1/v1", "routing": {"policy": "delegate", "break_s": -1}},
        }
    )
    assert {path for path, _, _ in found} == {
        "upstreams.a.base_url",
        "upstreams.a.backends[1]",
        "upstreams.a.provider",
        "upstreams.b.dns",
        "upstreams.b.routing.policy",
        "upstreams.b.routing.break_s",
    }


def test_a_config_made_without_a_file_is_held_to_the_same_rules() -> None:
    with pytest.raises(ValueError, match="stands beside backends"):
        Config.model_validate({"upstreams": {"a": {"base_url": ONE, "backends": [TWO]}}})


def test_an_engine_of_ones_own_may_be_watched_and_warmed_without_a_key() -> None:
    warm = [{"upstream": "a", "body": {"model": "m"}}]
    pool = {"engine": "vllm", "backends": [ONE], "metrics_interval_s": 5}
    config = Config.model_validate({"upstreams": {"a": pool}, "warm": warm})
    assert config.upstreams["a"].engine == "vllm"

"""Pools in metrics, on spans and in the log line."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config import Telemetry as Settings
from gateway.core.route import Branch
from gateway.telemetry.bounds import bounds
from gateway.telemetry.metrics import NULL_METRICS
from gateway.telemetry.setup import Telemetry

REPLICA = {"ready": 1, "in_flight": 2, "pending_s": 0.5, "mirror_tokens": 1000}
COUNTED = {"expected_tokens": 800, "reported_tokens": 750}


@pytest.fixture
def telemetry() -> Any:
    made = Telemetry.start(Settings(traces="off"), {}, "1")
    yield made
    made.close(5.0)


def shown(telemetry: Telemetry) -> list[str]:
    lines = telemetry.metrics.render().decode().splitlines()
    return sorted(line for line in lines if line.startswith("gateway_route"))


def test_requests_are_counted_by_why_they_went_there_and_retries_by_why_they_went_on(
    telemetry: Telemetry,
) -> None:
    route = telemetry.metrics.route
    route.sent("gpu", Branch.HOME)
    route.sent("gpu", Branch.HOME)
    route.sent("gpu", Branch.MOVED_HEALTH)
    route.retried("gpu", "503")
    assert shown(telemetry) == [
        'gateway_route_requests_total{branch="home",upstream="gpu"} 2.0',
        'gateway_route_requests_total{branch="moved-health",upstream="gpu"} 1.0',
        'gateway_route_retries_total{reason="503",upstream="gpu"} 1.0',
    ]


def test_what_is_thought_of_a_replica_is_shown_while_it_is_there(telemetry: Telemetry) -> None:
    told: dict[str, Any] = {"gpu": {"a": {**REPLICA, **COUNTED}, "b": {"in_flight": 0}}}
    telemetry.metrics.watch_pools(lambda: told)
    assert shown(telemetry) == [
        'gateway_route_expected_total{backend="a",upstream="gpu"} 800.0',
        'gateway_route_in_flight{backend="a",upstream="gpu"} 2.0',
        'gateway_route_in_flight{backend="b",upstream="gpu"} 0.0',
        'gateway_route_mirror{backend="a",upstream="gpu"} 1000.0',
        'gateway_route_pending_seconds{backend="a",upstream="gpu"} 0.5',
        'gateway_route_ready{backend="a",upstream="gpu"} 1.0',
        'gateway_route_replicas{state="ready",upstream="gpu"} 0.0',
        'gateway_route_reported_total{backend="a",upstream="gpu"} 750.0',
    ]
    del told["gpu"]["a"]
    assert shown(telemetry) == [
        'gateway_route_in_flight{backend="b",upstream="gpu"} 0.0',
        'gateway_route_replicas{state="ready",upstream="gpu"} 0.0',
    ]


def test_a_pool_of_very_many_replicas_does_not_make_very_many_series(
    telemetry: Telemetry,
) -> None:
    many = {"gpu": {f"replica{n:04d}": {"in_flight": n} for n in range(5 * bounds().backends)}}
    telemetry.metrics.watch_pools(lambda: many)
    assert sum("in_flight" in line for line in shown(telemetry)) == bounds().backends


def test_pools_share_what_there_is_and_the_states_are_counted_of_all(
    telemetry: Telemetry,
) -> None:
    each = {"in_flight": 0, "state": "ready", "requests": 7}
    pools = {name: {f"{n:04d}": each for n in range(1000)} for name in ("cpu", "gpu")}
    pools["gpu"]["0000"] = {**each, "state": "ejected"}
    pools["none"] = {}
    telemetry.metrics.watch_pools(lambda: pools)
    lines = telemetry.metrics.render().decode().splitlines()
    states = [line for line in lines if line.startswith("gateway_backend_state{")]
    assert {name: sum(f'"{name}"' in line for line in states) for name in pools} == {
        "cpu": bounds().backends // 3,
        "gpu": bounds().backends // 3,
        "none": 0,
    }
    assert 'gateway_backend_state{backend="0000",state="ejected",upstream="gpu"} 1.0' in states
    assert 'gateway_backend_requests_total{backend="0001",upstream="gpu"} 7.0' in lines
    assert sorted(line for line in lines if line.startswith("gateway_route_replicas{")) == [
        'gateway_route_replicas{state="ejected",upstream="gpu"} 1.0',
        'gateway_route_replicas{state="ready",upstream="cpu"} 1000.0',
        'gateway_route_replicas{state="ready",upstream="gpu"} 999.0',
        'gateway_route_replicas{state="ready",upstream="none"} 0.0',
    ]


def test_where_nothing_is_measured_nothing_is_counted() -> None:
    NULL_METRICS.route.sent("gpu", Branch.NEW)
    NULL_METRICS.route.retried("gpu", "503")
    NULL_METRICS.watch_pools(dict)
    assert NULL_METRICS.render() == b""

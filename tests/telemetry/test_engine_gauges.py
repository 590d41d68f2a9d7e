"""What engines tell, as Prometheus sees it: nothing that isn't known, and nothing that stands still."""

from __future__ import annotations

from typing import Any

from gateway.config import Telemetry as Settings
from gateway.telemetry.bounds import bounds
from gateway.telemetry.setup import Telemetry

KNOWN: dict[str, Any] = {
    "running": 3,
    "waiting": 0,
    "kv_usage": 0.25,
    "prefix_hit_share": {"interval": 0.5, "total": 0.75},
    "restarts": 2,
    "age_s": 1.0,
    "failing_s": None,
}
UNTOLD = KNOWN | {
    "waiting": None,
    "kv_usage": None,
    "prefix_hit_share": {"interval": None, "total": None},
}


def shown(told: dict[str, Any]) -> list[str]:
    telemetry = Telemetry.start(Settings(traces="off"), {}, "1")
    telemetry.metrics.watch_engines(lambda: told)
    try:
        lines = telemetry.metrics.render().decode().splitlines()
        return sorted(line for line in lines if line.startswith("gateway_engine"))
    finally:
        telemetry.close(5.0)


def test_an_engine_that_tells_all_has_all_series() -> None:
    assert shown({"gpu": KNOWN}) == [
        'gateway_engine_kv_usage{upstream="gpu"} 0.25',
        'gateway_engine_prefix_hits{upstream="gpu"} 0.5',
        'gateway_engine_requests{state="running",upstream="gpu"} 3.0',
        'gateway_engine_requests{state="waiting",upstream="gpu"} 0.0',
        'gateway_engine_restarts_total{upstream="gpu"} 2.0',
        'gateway_engine_up{upstream="gpu"} 1.0',
    ]


def test_what_an_engine_does_not_tell_has_no_series() -> None:
    assert shown({"gpu": UNTOLD}) == [
        'gateway_engine_requests{state="running",upstream="gpu"} 3.0',
        'gateway_engine_restarts_total{upstream="gpu"} 2.0',
        'gateway_engine_up{upstream="gpu"} 1.0',
    ]


def test_an_engine_that_cannot_be_read_is_down_and_has_no_load() -> None:
    failing, never = KNOWN | {"failing_s": 4.0}, KNOWN | {"age_s": None}

    assert shown({"a": failing, "b": never}) == [
        'gateway_engine_restarts_total{upstream="a"} 2.0',
        'gateway_engine_restarts_total{upstream="b"} 2.0',
        'gateway_engine_up{upstream="a"} 0.0',
        'gateway_engine_up{upstream="b"} 0.0',
    ]


def test_replicas_of_a_pool_have_a_label_each_and_only_so_many() -> None:
    pool = {
        f"gpu/{name:03}": KNOWN | {"upstream": "gpu", "backend": f"{name:03}"}
        for name in range(200)
    }
    lines = [line for line in shown(pool) if line.startswith("gateway_engine_up")]

    assert lines[0] == 'gateway_engine_up{backend="000",upstream="gpu"} 1.0'
    assert len(lines) == bounds().backends


def test_how_much_fits_is_shown() -> None:
    assert 'gateway_engine_kv_capacity{upstream="gpu"} 16000.0' in shown(
        {"gpu": KNOWN | {"capacity_tokens": 16_000}}
    )

"""What gateways tell each other, as Prometheus sees it."""

from __future__ import annotations

from gateway.config import Telemetry as Settings
from gateway.placements import Placements
from gateway.store.journal import NoJournal
from gateway.telemetry.setup import Telemetry


def test_what_is_told_and_heard_is_counted_by_pool_and_an_unknown_lag_has_no_series() -> None:
    told = Placements(["gpu"], lambda _: NoJournal(), 1).told()
    told["gpu"] |= {"told": 3, "heard": 2, "dropped": 1, "shares": True}
    telemetry = Telemetry.start(Settings(traces="off"), {}, "1")
    try:
        telemetry.metrics.watch_sharing(lambda: told)
        first = telemetry.metrics.render().decode().splitlines()
        told["gpu"]["lag_s"] = 0.25
        second = telemetry.metrics.render().decode().splitlines()
    finally:
        telemetry.close(5.0)
    assert sorted(line for line in first if line.startswith("gateway_route")) == [
        'gateway_route_records_total{outcome="dropped",upstream="gpu"} 1.0',
        'gateway_route_records_total{outcome="heard",upstream="gpu"} 2.0',
        'gateway_route_records_total{outcome="ignored",upstream="gpu"} 0.0',
        'gateway_route_records_total{outcome="told",upstream="gpu"} 3.0',
        'gateway_route_shared{upstream="gpu"} 1.0',
    ]
    assert 'gateway_route_lag_seconds{upstream="gpu"} 0.25' in second

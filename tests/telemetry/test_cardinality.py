"""How many series there can be, whoever makes up whatever: fewer than 2,000, as Prometheus counts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from gateway import config
from gateway.core.model import Reason, Result
from gateway.telemetry.bounds import bounds
from gateway.telemetry.instruments import Instruments
from gateway.telemetry.metrics import SCOPES
from gateway.telemetry.setup import Telemetry
from tests.helpers.metric_dice import throw, watch
from tests.helpers.records import BARE

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 2000
MANY = 10_000


@pytest.fixture(params=["latest", "both"])
def telemetry(request: pytest.FixtureRequest) -> Iterator[Telemetry]:
    settings = config.Telemetry(traces="off", genai_names=request.param)
    telemetry = Telemetry.start(settings, {}, "9.9.9")
    yield telemetry
    telemetry.close(2)


def series(telemetry: Telemetry) -> list[str]:
    lines = telemetry.metrics.render().decode().splitlines()
    return [line.rpartition(" ")[0] for line in lines if line and not line.startswith("#")]


def test_there_are_fewer_than_two_thousand_whatever_is_thrown_at_it(telemetry: Telemetry) -> None:
    watch(telemetry)
    throw(telemetry, range(MANY))
    found = series(telemetry)
    print(f"{len(found)} series after {MANY} of everything, each made up")
    assert len(set(found)) == len(found)
    assert len(found) < MOST
    # What is thrown later makes none.
    throw(telemetry, range(MANY, MANY + 1000))
    assert len(series(telemetry)) == len(found)


def test_all_of_it_is_still_counted(telemetry: Telemetry) -> None:
    throw(telemetry, range(MANY))
    counted: dict[str, float] = {}
    for line in telemetry.metrics.render().decode().splitlines():
        if not line.startswith("#"):
            name = line.partition("{")[0].partition(" ")[0]
            counted[name] = counted.get(name, 0) + float(line.rpartition(" ")[2])
    for name in (
        *("gateway_requests_total", "gateway_cache_lookups_total", "gateway_scope_requests_total"),
        *("gateway_cache_store_operations_total", "http_server_request_duration_seconds_count"),
        *("http_client_request_duration_seconds_count", "gateway_prompt_cache_plans_total"),
        "gen_ai_client_inference_duration_seconds_count",
    ):
        assert counted[name] == MANY, name


def test_a_credential_or_model_that_nobody_took_has_no_label(telemetry: Telemetry) -> None:
    for n in range(MANY):
        telemetry.metrics.request(
            BARE._replace(
                route="/v1/chat/completions",
                result=Result.PASS,
                reason=Reason.ROUTE,
                status=401,
                provider="openai",
                model=f"made-up-{n}",
                duration_s=0.01,
                scope=f"{n:08x}",
            )
        )
    scopes = [line for line in series(telemetry) if line.startswith("gateway_scope_requests")]
    assert scopes == ['gateway_scope_requests_total{outcome="refused",scope="_other"}']
    assert not [line for line in series(telemetry) if "made-up" in line]


def test_so_many_have_labels_and_the_rest_are_others(telemetry: Telemetry) -> None:
    for n in range(MANY):
        telemetry.metrics.request(
            BARE._replace(
                route="/v1/chat/completions",
                result=Result.MISS,
                reason=Reason.ABSENT,
                status=200,
                provider="openai",
                model=f"model-{n}",
                duration_s=0.01,
                scope=f"{n:08x}",
            )
        )
    found = series(telemetry)
    assert sum(line.startswith("gateway_scope_requests") for line in found) == SCOPES + 1
    assert sum(line.startswith("gateway_cache_lookups") for line in found) == bounds().models + 1


def test_each_metric_has_room_of_its_own_and_there_is_some_to_share(telemetry: Telemetry) -> None:
    metrics = telemetry.metrics
    assert isinstance(metrics, Instruments)
    watch(telemetry)
    spare = metrics._tallies.spare.left
    print(f"{spare} series to share")
    assert spare >= 75


def test_with_more_series_more_replicas_and_models_have_labels_and_no_more_than_that() -> None:
    most = 10_000
    telemetry = Telemetry.start(config.Telemetry(traces="off", max_series=most), {}, "1")
    try:
        watch(telemetry)
        throw(telemetry, range(MANY))
        found = series(telemetry)
    finally:
        telemetry.close(2)
    print(f"{len(found)} of {most} series")
    assert MOST < len(found) < most
    states = [line for line in found if line.startswith("gateway_backend_state{")]
    assert len(states) == bounds(most).backends > bounds().backends
    models = {model for line in found for model in re.findall(r'[^_]model="(model-\d+)"', line)}
    assert len(models) > bounds().models

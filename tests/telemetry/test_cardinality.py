"""How many series there can be, whoever makes up whatever: fewer than 2,000, as Prometheus counts."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from gateway import config
from gateway.core.causes import Cause, Share
from gateway.core.model import Reason, Result, Usage
from gateway.core.plan import PlanReason
from gateway.core.route import Branch
from gateway.telemetry.instruments import Instruments
from gateway.telemetry.metrics import MODELS, ROUTES, SCOPES
from gateway.telemetry.setup import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 2000
MANY = 10_000


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry.start(config.Telemetry(traces="off"), {}, "9.9.9")
    yield telemetry
    telemetry.close(2)


def series(telemetry: Telemetry) -> list[str]:
    lines = telemetry.metrics.render().decode().splitlines()
    return [line.rpartition(" ")[0] for line in lines if line and not line.startswith("#")]


def throw(telemetry: Telemetry, numbers: range) -> None:
    """Everything anew with each request, and an upstream that answers it all."""
    m = telemetry.metrics
    results, reasons = itertools.cycle(Result), itertools.cycle(Reason)
    routes = itertools.cycle([*sorted(ROUTES), "/v1/made/up"])
    plans, branches = itertools.cycle(PlanReason), itertools.cycle(Branch)
    causes = itertools.cycle(Cause)
    usage = Usage(10, 20, 3, 4, 50)
    for n in numbers:
        model, provider, status = f"model-{n}", f"provider-{n % 300}", 100 + n % 500
        result, reason, cause = next(results), next(reasons), next(causes)
        m.request(
            route=next(routes),
            result=result,
            reason=reason,
            status=status,
            provider=provider,
            model=model,
            duration_s=0.1,
            overhead_s=0.001,
            method=("POST", "GET", f"M{n}")[n % 3],
            error=None if n % 7 else f"error_{n % 50}",
            scope=f"{n:08x}",
        )
        m.lookup(0.001, result, reason)
        m.stored(reason, 0.001, 1000)
        m.saved(usage, provider, model)
        m.spared(0.1, provider, model)
        m.aborted(("client", "upstream")[n % 2])
        m.store_unavailable(("get", "put", "delete")[n % 3])
        m.called("POST", f"10.0.{n >> 8}.{n & 255}", 8000 + n % 9, status, "", 0.1)
        m.inference(
            provider=provider,
            model=model,
            operation=("chat", "embeddings", "text_completion")[n % 3],
            duration_s=1.0,
            first_chunk_s=0.1,
            usage=usage,
            error=None if n % 5 else str(status),
        )
        m.route.sent(f"pool-{n % 300}", next(branches))
        m.route.retried(f"pool-{n % 300}", str(status))
        plan = next(plans)
        m.prompt_cache.planned(plan, provider, model, 0.001, [f"rewrite-{n % 9}"])
        m.prompt_cache.marked(plan, 2, 1)
        m.prompt_cache.refused(provider, model)
        m.prompt_cache.answered({cause: Share(read=20, write_5m=3)}, provider, model)
        m.prompt_cache.paid(0.5, {cause: 0.2}, {cause: 0.1}, provider=provider, model=model)
        m.prompt_cache.warmed("start", str(status))


def watch(telemetry: Telemetry) -> None:
    """300 pools of 300 replicas each."""
    engine: dict[str, Any] = {"running": 1, "waiting": 0, "kv_usage": 0.5, "capacity_tokens": 9}
    engine |= {"prefix_hit_share": {"interval": 0.5}, "restarts": 0, "age_s": 1, "failing_s": None}
    replica = {"ready": 1, "in_flight": 0, "pending_s": 0.0, "mirror_tokens": 0, "state": "ready"}
    replica |= {"expected_tokens": 0, "reported_tokens": 0, "requests": 1}
    states = ("ready", "trial", "ejected", "unhealthy", "draining", "warming")
    pools = {
        f"pool-{pool}": {f"r{n}": {**replica, "state": states[n % 6]} for n in range(300)}
        for pool in range(300)
    }
    engines = {
        f"pool-{pool}/r{n}": {**engine, "upstream": f"pool-{pool}", "backend": f"r{n}"}
        for pool in range(300)
        for n in range(30)
    }
    told = {"told": 0, "heard": 0, "dropped": 0, "ignored": 0, "shares": True, "lag_s": 0.1}
    telemetry.metrics.watch_pools(lambda: pools)
    telemetry.metrics.watch_engines(lambda: engines)
    telemetry.metrics.watch_sharing(lambda: dict.fromkeys(pools, told))
    telemetry.metrics.watch_flights(lambda: 3)


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
            route="/v1/chat/completions",
            result=Result.PASS,
            reason=Reason.ROUTE,
            status=401,
            provider="openai",
            model=f"made-up-{n}",
            duration_s=0.01,
            scope=f"{n:08x}",
        )
    scopes = [line for line in series(telemetry) if line.startswith("gateway_scope_requests")]
    assert scopes == ['gateway_scope_requests_total{outcome="refused",scope="_other"}']
    assert not [line for line in series(telemetry) if "made-up" in line]


def test_so_many_have_labels_and_the_rest_are_others(telemetry: Telemetry) -> None:
    for n in range(MANY):
        telemetry.metrics.request(
            route="/v1/chat/completions",
            result=Result.MISS,
            reason=Reason.ABSENT,
            status=200,
            provider="openai",
            model=f"model-{n}",
            duration_s=0.01,
            scope=f"{n:08x}",
        )
    found = series(telemetry)
    assert sum(line.startswith("gateway_scope_requests") for line in found) == SCOPES + 1
    assert sum(line.startswith("gateway_cache_lookups") for line in found) == MODELS + 1


def test_each_metric_has_room_of_its_own_and_there_is_some_to_share(telemetry: Telemetry) -> None:
    metrics = telemetry.metrics
    assert isinstance(metrics, Instruments)
    watch(telemetry)
    spare = metrics._tallies.spare.left
    print(f"{spare} series to share")
    assert spare > 150

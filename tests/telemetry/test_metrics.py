"""Metrics: names, labels and bounds, as Prometheus text and over OTLP."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import timeit
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from gateway import config
from gateway.core.causes import Cause, Share
from gateway.core.miss import Miss, MissCause
from gateway.core.model import Reason, Result, Usage
from gateway.core.plan import PlanReason
from gateway.core.route import Branch
from gateway.core.steadiness import Compared
from gateway.telemetry import otlp, semconv
from gateway.telemetry.config_gauges import ConfigTold
from gateway.telemetry.instruments import Instruments
from gateway.telemetry.metrics import ProvenNames
from gateway.telemetry.setup import Telemetry
from gateway.telemetry.tallies import Tallies
from tests.helpers.otlp_collector import otlp_collector
from tests.helpers.records import BARE

if TYPE_CHECKING:
    from collections.abc import Iterator

CHAT = "/v1/chat/completions"
POSTED = "http_request_method=POST http_response_status_code="
OVER_HTTP = f"http_route={CHAT} url_scheme=http"


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry.start(config.Telemetry(traces="off"), {}, "9.9.9")
    yield telemetry
    telemetry.close(2)


def tell(telemetry: Telemetry, model: str = "gpt-5.6") -> None:
    """One miss that is stored, one hit, one broken stream, one store that is away."""
    m = telemetry.metrics
    m.inflight(+1)
    m.lookup(0.0008, Result.MISS, Reason.ABSENT)
    m.inference(
        provider="openai",
        model=model,
        operation="chat",
        duration_s=0.9,
        first_chunk_s=0.2,
        usage=Usage(10, 20, 3, 4, 50),
        reasoning_tokens=15,
        arrived_ms=(200, 230, 260),
    )
    m.stored(Reason.STORED, 0.002, 1234)
    m.stored(Reason.TRUNCATED)
    m.request(
        BARE._replace(
            route=CHAT,
            result=Result.MISS,
            reason=Reason.ABSENT,
            status=200,
            provider="openai",
            model=model,
            duration_s=0.91,
            overhead_s=0.003,
        )
    )
    m.request(
        BARE._replace(
            route=CHAT,
            result=Result.HIT,
            reason=Reason.EXACT,
            status=200,
            provider="openai",
            model=model,
            duration_s=0.001,
            overhead_s=0.001,
            scope="0badcafe",
        )
    )
    m.spared(0.25, "openai", model)
    m.called("POST", "api.example", 443, 200, "", 0.9)
    m.called("POST", "api.example", 443, 0, "TimeoutError", 9.0)
    m.lagged(0.002)
    m.prompt_cache.marked(PlanReason.PLACED, 2, 1)
    m.prompt_cache.marked(PlanReason.TOO_SHORT, 0, 0)
    m.saved(Usage(uncached_input=30, output=12), "openai", model)
    m.aborted("client")
    m.store_unavailable("get")
    m.inference(provider="openai", model=model, operation="chat", duration_s=1.0, error="502")
    m.route.sent("gpu", Branch.NEW)
    m.route.retried("gpu", "503")
    m.prompt_cache.planned(PlanReason.PLACED, "openai", model, 0.0004, ["sort-tools"])
    m.prompt_cache.refused("openai", model)
    m.prompt_cache.answered({Cause.OURS: Share(read=20, write_5m=3)}, "openai", model)
    m.prompt_cache.paid(
        0.5, {Cause.OURS: 0.25}, {Cause.OURS: 0.125}, provider="openai", model=model
    )
    m.prompt_cache.warmed("start", "ok")
    m.prompt_cache.compared(Compared.DRIFTED, "openai")
    m.prompt_cache.drifted("openai", "split")
    m.prompt_cache.missed(Miss(MissCause.COLD, 100), "openai", model)
    m.inflight(-1)


def samples(telemetry: Telemetry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = telemetry.metrics.render().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def steady(page: bytes) -> list[bytes]:
    """Its lines, without what grows by itself."""
    return [line for line in page.splitlines() if not line.startswith((b"process_", b"python_"))]


def value(telemetry: Telemetry, name: str, **labels: str) -> float:
    return samples(telemetry)[name, tuple(sorted(labels.items()))]


def test_what_is_told_is_counted_under_its_documented_name(telemetry: Telemetry) -> None:
    tell(telemetry)
    expected: dict[tuple[str, str], float] = {
        ("gateway_requests_total", "result=miss route=/v1/chat/completions status_class=2xx"): 1,
        ("gateway_requests_total", "result=hit route=/v1/chat/completions status_class=2xx"): 1,
        (
            "gateway_cache_lookups_total",
            "model=gpt-5.6 provider=openai reason=absent result=miss",
        ): 1,
        ("gateway_cache_lookups_total", "model=gpt-5.6 provider=openai reason=exact result=hit"): 1,
        ("gateway_cache_lookup_duration_seconds_count", "result=miss"): 1,
        ("gateway_cache_store_operations_total", "outcome=stored"): 1,
        ("gateway_cache_store_operations_total", "outcome=truncated"): 1,
        ("gateway_cache_store_duration_seconds_count", "outcome=stored"): 1,
        ("gateway_cache_store_entry_size_bytes_sum", ""): 1234,
        (
            "gateway_cache_saved_tokens_total",
            "direction=input model=gpt-5.6 provider=openai",
        ): 30,
        (
            "gateway_cache_saved_tokens_total",
            "direction=output model=gpt-5.6 provider=openai",
        ): 12,
        ("gateway_overhead_duration_seconds_count", "result=hit"): 1,
        ("gateway_inflight", ""): 0,
        ("gateway_cache_saved_cost_total", "model=gpt-5.6 provider=openai"): 0.25,
        ("gateway_loop_lag_seconds_sum", ""): 0.002,
        ("gateway_markers_total", "action=injected reason=placed"): 2,
        ("gateway_markers_total", "action=kept reason=placed"): 1,
        ("gateway_markers_total", "action=skipped reason=too-short"): 1,
        ("gateway_scope_requests_total", "outcome=hit scope=0badcafe"): 1,
        ("gateway_scope_requests_total", "outcome=miss scope="): 1,
        (
            "http_client_request_duration_seconds_sum",
            f"error_type=TimeoutError {POSTED} server_address=api.example server_port=443",
        ): 9,
        ("gateway_stream_aborted_total", "side=client"): 1,
        ("gateway_store_unavailable_total", "operation=get"): 1,
        (
            "http_server_request_duration_seconds_count",
            f"http_request_method=POST http_response_status_code=200 {OVER_HTTP}",
        ): 2,
    }
    inference = (
        "gen_ai_operation_name=chat gen_ai_provider_name=openai gen_ai_request_model=gpt-5.6"
    )
    for name, used in {"input": 37, "cache_read_input": 20, "cache_write_input": 7}.items():
        expected[
            f"gen_ai_client_inference_usage_{name}_tokens_total",
            inference + " gen_ai_token_modality=unknown",
        ] = used
    expected[
        "gen_ai_client_inference_usage_output_tokens_total",
        inference + " gen_ai_token_modality=unknown",
    ] = 50
    expected["gen_ai_client_inference_time_to_first_chunk_seconds_sum", inference] = 0.2
    # Prometheus gives every series of a family the same label names.
    expected["gen_ai_client_inference_duration_seconds_sum", "error_type= " + inference] = 0.9
    expected["gen_ai_client_inference_duration_seconds_sum", "error_type=502 " + inference] = 1
    found = samples(telemetry)
    for (name, labels), count in expected.items():
        pairs = tuple(sorted((k, v) for k, _, v in (p.partition("=") for p in labels.split())))
        assert found.get((name, pairs)) == count, (name, labels)
    info = [labels for name, labels in found if name == "gateway_build_info"]
    assert dict(info[0])["version"] == "9.9.9"


def test_the_text_has_help_and_type_once_for_each_family_and_no_series_twice(
    telemetry: Telemetry,
) -> None:
    tell(telemetry)
    tell(telemetry, model='odd "name"\n\\ \ud800')
    lines = telemetry.metrics.render().decode().splitlines()
    helps = [line.split()[2] for line in lines if line.startswith("# HELP")]
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert helps == types
    assert len(set(helps)) == len(helps)
    assert all(re.fullmatch(r"[a-z_][a-z0-9_]*", name) for name in helps)
    assert all(len(line.split(maxsplit=3)) == 4 for line in lines if line.startswith("# HELP"))
    series = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    assert len(set(series)) == len(series)
    kinds = {line.split()[2]: line.split()[3] for line in lines if line.startswith("# TYPE")}
    assert all(name.endswith("_total") for name, kind in kinds.items() if kind == "counter")
    # promtool check metrics: base units only, and no unit or type words elsewhere.
    assert not [name for name in helps if re.search(r"milli|_ms\b|_counter|_gauge", name)]


def test_buckets_reach_from_a_millisecond_to_ten_minutes(telemetry: Telemetry) -> None:
    tell(telemetry)
    bounds = {
        float(dict(labels)["le"])
        for name, labels in samples(telemetry)
        if name == "http_server_request_duration_seconds_bucket"
    }
    assert {0.001, 600.0} <= bounds


def test_what_a_client_made_up_makes_no_new_series(telemetry: Telemetry) -> None:
    for n in range(50):
        telemetry.metrics.request(
            BARE._replace(
                route=f"/v1/made/{n}",
                result=Result.PASS,
                reason=Reason.ROUTE,
                status=404,
                provider="openai",
                model=f"made-{n}",
                duration_s=0.01,
                method=f"M{n}",
            )
        )
    assert (
        value(
            telemetry, "gateway_requests_total", route="_other", result="pass", status_class="4xx"
        )
        == 50
    )
    assert (
        value(
            telemetry,
            "gateway_cache_lookups_total",
            result="pass",
            reason="route",
            provider="openai",
            model="_other",
        )
        == 50
    )
    methods = {
        dict(labels)["http_request_method"]
        for name, labels in samples(telemetry)
        if name == "http_server_request_duration_seconds_count"
    }
    assert methods == {"_OTHER"}


def test_a_model_gets_a_label_once_an_upstream_answered_for_it_up_to_a_limit() -> None:
    names = ProvenNames(limit=2)
    assert names.label(None, proven=True) == ""
    assert names.label("a", proven=False) == "_other"
    assert names.label("a", proven=True) == "a"
    assert names.label("a", proven=False) == "a"
    assert names.label("x" * 1000, proven=True) == "_other"
    assert names.label("b\ud800", proven=True) == "b\\ud800"
    assert names.label("c", proven=True) == "_other"
    assert names.label("b\ud800", proven=False) == "b\\ud800"


def test_a_request_that_ended_before_the_cache_had_a_say_is_counted_too(
    telemetry: Telemetry,
) -> None:
    telemetry.metrics.request(
        BARE._replace(
            route=CHAT,
            result=None,
            reason=None,
            status=413,
            provider=None,
            model=None,
            duration_s=0.01,
        )
    )
    telemetry.metrics.request(
        BARE._replace(
            route=CHAT,
            result=None,
            reason=None,
            status=500,
            provider=None,
            model=None,
            duration_s=-1e-9,
        )
    )
    assert (
        value(telemetry, "gateway_requests_total", route=CHAT, result="none", status_class="4xx")
        == 1
    )
    assert not [name for name, _ in samples(telemetry) if name == "gateway_cache_lookups_total"]
    errors = {
        dict(labels)["error_type"]
        for name, labels in samples(telemetry)
        if name == "http_server_request_duration_seconds_count"
    }
    assert errors == {"", "500"}


def test_two_scrapes_at_once_both_get_every_series_once(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(telemetry)
    expected = steady(telemetry.metrics.render())
    both = threading.Barrier(2)
    collect = PrometheusMetricReader.collect

    def collect_together(reader: PrometheusMetricReader, timeout_millis: float = 10_000) -> None:
        """Where two scrapes would meet if nothing kept them apart."""
        with suppress(threading.BrokenBarrierError):
            both.wait(0.5)
        collect(reader, timeout_millis)
        with suppress(threading.BrokenBarrierError):
            both.wait(0.5)

    # The collector took its bound method at the start, so the patch goes there.
    [collector] = telemetry.metrics._registry._collector_to_names  # type: ignore[attr-defined]
    reader = collector._callback.__self__
    monkeypatch.setattr(collector, "_callback", lambda: collect_together(reader))
    pages: list[list[bytes]] = []
    threads = [
        threading.Thread(target=lambda: pages.append(steady(telemetry.metrics.render())))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert pages == [expected, expected]


async def test_metrics_are_pushed_as_well_when_an_endpoint_is_set() -> None:
    async with otlp_collector() as collector:
        telemetry = Telemetry.start(
            config.Telemetry(traces="off", genai_names="both"),
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
                "OTEL_METRIC_EXPORT_INTERVAL": "20",
            },
            "1",
        )
        tell(telemetry)
        shares = {"interval": 0.5, "total": 0.5}
        engine = {"running": 1, "waiting": 0, "kv_usage": 0.5, "prefix_hit_share": shares}
        engine["capacity_tokens"] = 1
        known = {"restarts": 0, "age_s": 1.0, "failing_s": None}
        telemetry.metrics.watch_engines(lambda: {"gpu": engine | known})
        telemetry.metrics.watch_flights(lambda: 3)
        telemetry.metrics.watch_config(lambda: ConfigTold({"applied": 1}, refused=False, waiting=2))
        replica: dict[str, Any] = {"ready": 1, "in_flight": 0, "pending_s": 0.0, "mirror_tokens": 0}
        replica |= {"requests": 1, "state": "ready"}
        counted = {"expected_tokens": 0, "reported_tokens": 0}
        telemetry.metrics.watch_pools(lambda: {"gpu": {"a": replica | counted}})
        sharing = {"told": 0, "heard": 0, "dropped": 0, "ignored": 0, "shares": True, "lag_s": 0.1}
        telemetry.metrics.watch_sharing(lambda: {"gpu": sharing})
        await collector.wait_for(
            lambda c: {semconv.M_REQUESTS, semconv.M_ENGINE_UP} <= set(c.metrics)
        )
        await asyncio.to_thread(telemetry.close, 5)
    names = {name for key, name in vars(semconv).items() if key.startswith("M_")}
    assert set(collector.metrics) == names
    assert collector.metrics[semconv.M_USAGE_INPUT].unit == "{token}"
    assert collector.metrics[semconv.M_INFERENCE_DURATION].unit == "s"


@pytest.mark.parametrize("preference", ["", "cumulative", "delta", "lowmemory"])
async def test_the_temporality_is_the_preferred_one(preference: str) -> None:
    async with otlp_collector() as collector:
        tallies = Tallies()
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": preference,
        }
        reader = otlp.metric_reader(environ, tallies)
        assert reader is not None
        provider = MeterProvider([reader], Resource({}), shutdown_on_exit=False)
        telemetry = Telemetry(metrics=Instruments(tallies, provider, CollectorRegistry(), "1"))
        for _ in range(2):
            tell(telemetry)
            await asyncio.to_thread(provider.force_flush)
        pushed = dict(collector.metrics)
        await asyncio.to_thread(provider.shutdown)
    delta, cumulative = 1, 2
    wanted = delta if preference in {"delta", "lowmemory"} else cumulative
    requests = pushed[semconv.M_REQUESTS].sum
    duration = pushed[semconv.M_HTTP_SERVER_DURATION].histogram
    assert (requests.aggregation_temporality, requests.is_monotonic) == (wanted, True)
    assert duration.aggregation_temporality == wanted
    counts = {point.as_int or point.as_double for point in requests.data_points}
    if wanted == delta:
        assert counts == {1}
        assert sum(point.count for point in duration.data_points) == 2
    else:
        assert counts == {2}
        assert sum(point.count for point in duration.data_points) == 4
    # What goes up and down is a total in either form.
    inflight = pushed[semconv.M_INFLIGHT].sum
    assert inflight.aggregation_temporality == cumulative


def test_what_a_client_made_up_is_remembered_nowhere(telemetry: Telemetry) -> None:
    metrics = telemetry.metrics

    def size() -> int:
        assert isinstance(metrics, Instruments)
        tables = (getattr(metrics, name) for name in Instruments.__slots__)
        return sum(len(table) for table in tables if isinstance(table, dict))

    def ask(n: int, **more: str) -> None:
        told = {"route": CHAT, "model": "gpt-5.6", "method": "POST", **more}
        metrics.request(
            BARE._replace(
                result=Result.MISS,
                reason=Reason.ABSENT,
                status=404 if n else 200,
                provider="openai",
                duration_s=0.1,
                **told,  # type: ignore[arg-type]
            )
        )

    ask(0)
    before = size()
    for n in range(1, 50):
        ask(n, route=f"/v1/made/{n}")
        ask(n, model=f"made-{n}")
        ask(n, method=f"M{n}")
        metrics.inference(
            provider="openai", model=f"made-{n}", operation="chat", duration_s=0.1, error="404"
        )
    assert size() == before
    # The name of a model that is proven later takes effect at once.
    metrics.request(
        BARE._replace(
            route=CHAT,
            result=Result.HIT,
            reason=Reason.EXACT,
            status=200,
            provider="openai",
            model="made-1",
            duration_s=0.1,
        )
    )
    assert (
        value(
            telemetry,
            "gateway_cache_lookups_total",
            result="hit",
            reason="exact",
            provider="openai",
            model="made-1",
        )
        == 1
    )


def test_off_is_an_object_that_counts_nothing() -> None:
    telemetry = Telemetry.start(config.Telemetry(metrics=False), {}, "1")
    assert not telemetry.metrics.enabled
    assert telemetry.metrics.render() == b""
    each_us = min(timeit.repeat(lambda: tell(telemetry), number=1000, repeat=5)) / 1000 * 1e6
    print(f"metrics off: {each_us:.2f} us for one miss and one hit")
    assert each_us < 50


def test_on_costs_a_few_microseconds(telemetry: Telemetry) -> None:
    def hit() -> None:
        telemetry.metrics.inflight(+1)
        telemetry.metrics.lookup(0.0008, Result.HIT, Reason.EXACT)
        telemetry.metrics.request(
            BARE._replace(
                route=CHAT,
                result=Result.HIT,
                reason=Reason.EXACT,
                status=200,
                provider="openai",
                model="gpt-5.6",
                duration_s=0.001,
                overhead_s=0.001,
            )
        )
        telemetry.metrics.saved(Usage(uncached_input=30, output=12), "openai", "gpt-5.6")
        telemetry.metrics.inflight(-1)

    each_us = min(timeit.repeat(hit, number=200, repeat=5)) / 200 * 1e6
    for n in range(100):
        tell(telemetry, model=f"model-{n}")
    page_ms = min(timeit.repeat(telemetry.metrics.render, number=1, repeat=3)) * 1e3
    print(f"metrics on: {each_us:.1f} us for one hit; /metrics with 100 models {page_ms:.0f} ms")
    # About 3 on an idle core, where the SDK's own instruments took 50.
    assert each_us < 25 or sys.gettrace() is not None

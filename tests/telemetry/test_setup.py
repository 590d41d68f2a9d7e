"""What switches telemetry on, and a collector that is away: nothing waits for it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import pytest
from opentelemetry import metrics as metrics_api
from opentelemetry import trace as trace_api

from gateway import config
from gateway.core.model import Reason, Result
from gateway.telemetry.metrics import NULL_METRICS
from gateway.telemetry.setup import Telemetry
from gateway.telemetry.spans import NULL_SPANS
from tests.helpers.otlp_collector import otlp_collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

Endpoint: TypeAlias = "Callable[[], AbstractContextManager[str]]"

ON = "http://127.0.0.1:9"


def spans_of(telemetry: Telemetry, count: int) -> float:
    """Tell `count` traced requests; the seconds that the slowest took."""
    slowest = 0.0
    for _ in range(count):
        began = time.perf_counter()
        s = telemetry.spans.server(
            method="POST", route="/r", path="/r", scheme="http", host=None, port=None, headers={}
        )
        telemetry.spans.lookup(parent=s).end(Result.MISS, Reason.ABSENT, "01234567")
        s.set_status(200)
        s.end()
        slowest = max(slowest, time.perf_counter() - began)
    return slowest


@contextmanager
def black_hole() -> Iterator[str]:
    """An endpoint that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def closed_port() -> Iterator[str]:
    """An endpoint where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("traces", "environ", "on"),
    [
        ("auto", {}, False),
        ("auto", {"OTEL_EXPORTER_OTLP_ENDPOINT": ON}, True),
        ("auto", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ON}, True),
        ("auto", {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": ON}, False),
        ("auto", {"OTEL_EXPORTER_OTLP_ENDPOINT": ON, "OTEL_SDK_DISABLED": "true"}, False),
        ("auto", {"OTEL_EXPORTER_OTLP_ENDPOINT": ON, "OTEL_TRACES_EXPORTER": "none"}, False),
        ("auto", {"OTEL_EXPORTER_OTLP_ENDPOINT": ON, "OTEL_TRACES_EXPORTER": "otlp"}, True),
        ("on", {}, True),
        ("on", {"OTEL_SDK_DISABLED": " TRUE "}, False),
        ("off", {"OTEL_EXPORTER_OTLP_ENDPOINT": ON}, False),
    ],
)
def test_traces_are_on_when_somebody_said_where_they_go(
    traces: str, environ: dict[str, str], on: bool
) -> None:
    settings = config.Telemetry.model_validate({"traces": traces, "metrics": False})
    telemetry = Telemetry.start(settings, environ, "1")
    telemetry.close(2)
    assert (telemetry.spans is not NULL_SPANS) is on
    assert telemetry.metrics is NULL_METRICS
    assert repr(telemetry) == f"<Telemetry spans {'on' if on else 'off'}, metrics off>"


def test_nothing_global_is_set() -> None:
    before = trace_api.get_tracer_provider(), metrics_api.get_meter_provider()
    telemetry = Telemetry.start(config.Telemetry(traces="on"), {}, "1")
    assert (trace_api.get_tracer_provider(), metrics_api.get_meter_provider()) == before
    telemetry.close(2)


def test_when_all_is_off_opentelemetry_is_not_even_imported() -> None:
    program = (
        "import sys\n"
        "from gateway import config\n"
        "from gateway.telemetry.setup import Telemetry\n"
        "t = Telemetry.start(config.Telemetry(traces='off', metrics=False), {}, '1')\n"
        "t.close(1)\n"
        "print([m for m in sys.modules if m.startswith(('opentelemetry', 'prometheus'))])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\n"


def test_faulty_variables_are_told_and_replaced_by_their_defaults(
    caplog: pytest.LogCaptureFixture,
) -> None:
    telemetry = Telemetry.start(
        config.Telemetry(traces="on"),
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "not a url",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "zstd",
            "OTEL_EXPORTER_OTLP_HEADERS": "=;,,",
            "OTEL_TRACES_SAMPLER": "sometimes",
            "OTEL_TRACES_EXPORTER": "otlp,zipkin",
            "OTEL_BSP_MAX_QUEUE_SIZE": "-3",
            "OTEL_BSP_SCHEDULE_DELAY": "nan",
            "OTEL_METRIC_EXPORT_INTERVAL": "0",
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "sometimes",
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "base2",
            "OTEL_RESOURCE_ATTRIBUTES": "novalue,=x, team = a%20b ",
        },
        "1",
    )
    assert spans_of(telemetry, 3) < 1
    assert b"gateway_build_info" in telemetry.metrics.render()
    assert b'team="a b"' in telemetry.metrics.render()
    telemetry.close(2)
    told = "\n".join(record.getMessage() for record in caplog.records)
    for variable in (
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "OTEL_EXPORTER_OTLP_COMPRESSION",
        "OTEL_TRACES_SAMPLER",
        "OTEL_TRACES_EXPORTER",
        "OTEL_BSP_SCHEDULE_DELAY",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
    ):
        assert variable in told


async def test_signal_variables_win_and_headers_and_compression_are_sent() -> None:
    async with otlp_collector() as collector:
        telemetry = Telemetry.start(
            config.Telemetry(metrics=False),
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.endpoint}/v1/traces",
                "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=a%20b",
                "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
                "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test,service.name=other",
            },
            "1",
        )
        spans_of(telemetry, 1)
        await asyncio.to_thread(telemetry.close, 5)
        assert len(collector.spans) == 2
        assert collector.headers[0]["x-tenant"] == "a b"
        assert collector.headers[0]["Content-Encoding"] == "gzip"
        resource = collector.spans[0].resource
        assert resource["deployment.environment.name"] == "test"
        assert resource["service.name"] == "other"


@pytest.mark.parametrize("collector", [closed_port, black_hole])
def test_a_dead_collector_delays_no_request_and_no_stop(
    collector: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    before = set(threading.enumerate())
    try:
        with collector() as endpoint:
            telemetry = Telemetry.start(
                config.Telemetry(),
                {
                    "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                    "OTEL_BSP_SCHEDULE_DELAY": "1",
                    "OTEL_BSP_MAX_QUEUE_SIZE": "16",
                    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8",
                    "OTEL_METRIC_EXPORT_INTERVAL": "20",
                    "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
                },
                "1",
            )
            slowest = spans_of(telemetry, 1000)
            began = time.perf_counter()
            telemetry.close(0.5)
            took = time.perf_counter() - began
            telemetry.close(0.5)
    finally:
        for thread in set(threading.enumerate()) - before:
            thread.join(20)  # what was left behind ends by itself: it is no leak
    assert set(threading.enumerate()) <= before
    print(f"{collector}: slowest of 1000 requests {slowest * 1e3:.2f} ms, close {took:.2f} s")
    assert slowest < 0.5
    assert took < 1.0
    assert len(caplog.records) < 50


def test_a_dead_collector_costs_a_request_hardly_more_than_no_tracing() -> None:
    """Once its queue is full, a request that would be traced makes no spans at all."""

    def cost_us(telemetry: Telemetry) -> float:
        best = float("inf")
        for _ in range(10):
            began = time.thread_time()
            spans_of(telemetry, 200)
            best = min(best, (time.thread_time() - began) / 200 * 1e6)
        return best

    def start(endpoint: str, room: str) -> Telemetry:
        environ = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "0.2",
            "OTEL_BSP_MAX_QUEUE_SIZE": room,
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": room,
        }
        return Telemetry.start(config.Telemetry(), environ, "1")

    before = set(threading.enumerate())
    try:
        with black_hole() as endpoint:
            crowded, roomy = start(endpoint, "64"), start(endpoint, "100000")
            spans_of(crowded, 200)
            full_us, recorded_us = cost_us(crowded), cost_us(roomy)
            page = crowded.metrics.render().decode()
            crowded.close(0.1)
            roomy.close(0.1)
    finally:
        for thread in set(threading.enumerate()) - before:
            thread.join(20)
    [line] = [x for x in page.splitlines() if x.startswith("gateway_telemetry_spans_lost_total ")]
    assert float(line.split()[1]) > 2000
    print(f"one hit: {recorded_us:.1f} us recorded, {full_us:.1f} us when the queue is full")
    assert full_us < recorded_us / 2


def test_the_process_ends_although_the_collector_never_answers() -> None:
    program = (
        "import sys\n"
        "from gateway import config\n"
        "from gateway.telemetry.setup import Telemetry\n"
        "t = Telemetry.start(config.Telemetry(), {'OTEL_EXPORTER_OTLP_ENDPOINT': sys.argv[1],"
        " 'OTEL_BSP_SCHEDULE_DELAY': '1'}, '1')\n"
        "s = t.spans.server(method='GET', route=None, path='/', scheme='http', host=None,"
        " port=None, headers={})\n"
        "s.end()\n"
        "t.close(0.2)\n"
    )
    with black_hole() as endpoint:
        run = subprocess.run(
            [sys.executable, "-c", program, endpoint],
            capture_output=True,
            text=True,
            check=False,
            timeout=9,
        )
    assert (run.returncode, run.stdout) == (0, "")


def test_closing_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    telemetry = Telemetry.start(config.Telemetry(traces="on"), {}, "1")
    assert set(threading.enumerate()) - before
    telemetry.close(5)
    assert set(threading.enumerate()) <= before

"""OTLP over gRPC: against a real receiver, and where the extra is missing or nobody listens."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from gateway import config
from gateway.core.model import Reason, Result
from gateway.telemetry.otlp_options import options
from gateway.telemetry.setup import Telemetry
from gateway.telemetry.spans import NULL_SPANS
from tests.helpers.otlp_grpc_collector import otlp_grpc_collector

if TYPE_CHECKING:
    from collections.abc import Mapping

TLS = Path(__file__).parents[1] / "helpers" / "tls"


def one_request(telemetry: Telemetry) -> None:
    span = telemetry.spans.server(
        method="POST", route="/r", path="/r", scheme="http", host=None, port=None, headers={}
    )
    telemetry.spans.lookup(span).end(Result.MISS, Reason.ABSENT)
    span.end()


def started(environ: Mapping[str, str]) -> Telemetry:
    quick = {"OTEL_BSP_SCHEDULE_DELAY": "20", "OTEL_METRIC_EXPORT_INTERVAL": "50"}
    return Telemetry.start(config.Telemetry(), {**quick, **environ}, "9.9.9")


@pytest.mark.parametrize("scheme", ["http://", ""])
@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_spans_and_metrics_arrive_over_grpc(scheme: str, compression: str) -> None:
    async with otlp_grpc_collector() as collector:
        telemetry = started(
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"{scheme}{collector.endpoint}",
                "OTEL_EXPORTER_OTLP_INSECURE": "true",
                "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
                "OTEL_EXPORTER_OTLP_HEADERS": "X-Tenant=a%20b",
                "OTEL_SERVICE_NAME": "edge",
            }
        )
        one_request(telemetry)
        await collector.wait_for(lambda c: len(c.spans) == 2 and c.metrics)
        await asyncio.to_thread(telemetry.close, 5)
        lookup, server = collector.one("cache lookup"), collector.one("POST /r")
        assert lookup.parent_id == server.span_id
        assert server.resource["service.name"] == "edge"
        assert "gateway.build.info" in collector.metrics
        assert {headers["x-tenant"] for headers in collector.headers} == {"a b"}


async def test_each_signal_may_have_its_own_protocol() -> None:
    async with otlp_grpc_collector() as collector:
        telemetry = started(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://{collector.endpoint}",
                "OTEL_METRICS_EXPORTER": "none",
            }
        )
        one_request(telemetry)
        await collector.wait_for(lambda c: len(c.spans) == 2)
        await asyncio.to_thread(telemetry.close, 5)
        assert collector.metrics == {}


async def test_a_collector_behind_tls_is_checked_by_the_certificate_that_is_named() -> None:
    pair = ((TLS / "key.pem").read_bytes(), (TLS / "cert.pem").read_bytes())
    async with otlp_grpc_collector(grpc.ssl_server_credentials([pair])) as collector:
        telemetry = started(
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://{collector.endpoint}",
                "OTEL_EXPORTER_OTLP_CERTIFICATE": str(TLS / "cert.pem"),
                "OTEL_METRICS_EXPORTER": "none",
            }
        )
        one_request(telemetry)
        await collector.wait_for(lambda c: len(c.spans) == 2)
        await asyncio.to_thread(telemetry.close, 5)


def test_without_the_extra_it_is_said_and_the_gateway_starts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    monkeypatch.delitem(sys.modules, "gateway.telemetry.otlp_grpc", raising=False)
    telemetry = started(
        {
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317",
        }
    )
    assert telemetry.spans is NULL_SPANS
    assert b"gateway_build_info" in telemetry.metrics.render()
    telemetry.close(2)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert all("warmgate[grpc]" in line for line in told)
    assert {"traces are not sent" in line for line in told} == {True, False}


def test_a_certificate_that_can_not_be_read_is_no_reason_not_to_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    telemetry = started(
        {
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://127.0.0.1:4317",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere/ca.crt",
        }
    )
    assert telemetry.spans is NULL_SPANS
    telemetry.close(2)
    assert "/nowhere/ca.crt" in caplog.text


def test_a_dead_grpc_collector_delays_no_request_and_no_stop() -> None:
    telemetry = started(
        {
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "OTEL_BSP_MAX_QUEUE_SIZE": "16",
        }
    )
    slowest = 0.0
    for _ in range(200):
        began = time.perf_counter()
        one_request(telemetry)
        slowest = max(slowest, time.perf_counter() - began)
    began = time.perf_counter()
    telemetry.close(0.5)
    assert time.perf_counter() - began < 1.5
    assert slowest < 0.5


@pytest.mark.parametrize(
    ("environ", "endpoint", "insecure"),
    [
        ({}, "http://localhost:4317", True),
        ({"ENDPOINT": "https://c:4317"}, "https://c:4317", False),
        ({"ENDPOINT": "c:4317"}, "c:4317", False),
        ({"ENDPOINT": "c:4317", "INSECURE": "true"}, "c:4317", True),
        ({"ENDPOINT": "https://c:4317", "INSECURE": "true"}, "https://c:4317", False),
        ({"ENDPOINT": "c:1", "TRACES_ENDPOINT": "d:2", "TRACES_INSECURE": "TRUE"}, "d:2", True),
    ],
)
def test_a_scheme_says_whether_grpc_is_encrypted_and_else_the_variable(
    environ: dict[str, str], endpoint: str, insecure: bool
) -> None:
    told = {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in environ.items()}
    found = options({**told, "OTEL_EXPORTER_OTLP_PROTOCOL": "GRPC"}, "TRACES")
    assert (found.protocol, found.endpoint, found.insecure) == ("grpc", endpoint, insecure)

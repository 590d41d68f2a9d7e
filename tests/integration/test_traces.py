"""What an operator sees of a miss, a hit and a pass in a trace viewer: real OTLP, real gateway."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from gateway.app import start
from gateway.config import load
from gateway.lab.stub_provider import StubProvider
from tests.helpers.otlp_collector import Collector, Span, otlp_collector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "What is a trace?"}]}


@asynccontextmanager
async def traced(environ: dict[str, str]) -> AsyncIterator[tuple[StubProvider, Collector, str]]:
    async with StubProvider() as stub, otlp_collector() as collector:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "GATEWAY_UPSTREAMS__OPENAI__BASE_URL": stub.v1_url,
            "GATEWAY_UPSTREAMS__OPENAI__PROVIDER": "openai",
            "GATEWAY_UPSTREAMS__ANTHROPIC__BASE_URL": stub.v1_url,
            "GATEWAY_UPSTREAMS__ANTHROPIC__PROVIDER": "anthropic",
            "GATEWAY_SERVER__PORT": "0",
            "GATEWAY_SERVER__PROBE_PORT": "0",
            "GATEWAY_STORE__URL": "memory://",
            **environ,
        }
        gateway = await start(load(None, environ), environ)
        try:
            yield stub, collector, gateway.api_url
        finally:
            await gateway.stop()


async def post(
    url: str, body: dict[str, Any], trace: str = TRACE, **headers: str
) -> aiohttp.ClientResponse:
    told = {
        "authorization": "Bearer sk-marked-secret",
        "traceparent": f"00-{trace}-{PARENT}-01",
        "baggage": "user=marked-baggage",
        **headers,
    }
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=body, headers=told) as response,
    ):
        await response.read()
        return response


def of_trace(collector: Collector, trace: str) -> dict[str, Span]:
    return {span.name: span for span in collector.spans if span.trace_id == trace}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_miss_and_a_hit_arrive_as_the_conventions_name_them(stream: bool) -> None:
    hit_trace = TRACE[::-1]
    async with traced({}) as (_, collector, url):
        body = {**CHAT, "stream": stream}
        miss = await post(f"{url}/v1/chat/completions", body)
        hit = await post(f"{url}/v1/chat/completions", body, hit_trace)
        assert ("miss", "hit") == (miss.headers["x-gateway-cache"], hit.headers["x-gateway-cache"])
        name = "POST /v1/chat/completions"
        await collector.wait_for(lambda c: len(c.named(name)) == 2 and c.named("cache store"))

        spans = of_trace(collector, TRACE)
        assert {name, "cache lookup", "plan", "chat gpt-4o", "POST"} == set(spans)
        server, lookup, call, attempt = (
            spans[n] for n in (name, "cache lookup", "chat gpt-4o", "POST")
        )
        assert ("SERVER", "INTERNAL", "CLIENT", "CLIENT") == (
            server.kind,
            lookup.kind,
            call.kind,
            attempt.kind,
        )
        assert server.parent_id == PARENT
        assert (server.span_id, server.span_id, call.span_id) == (
            lookup.parent_id,
            call.parent_id,
            attempt.parent_id,
        )
        assert server.attributes["http.response.status_code"] == 200
        assert server.attributes["http.route"] == "/v1/chat/completions"
        assert server.attributes["gateway.cache.result"] == "miss"
        assert server.attributes["gateway.cache.reason"] == "absent"
        assert server.attributes["gateway.request.id"] == miss.headers["x-gateway-request-id"]
        key = lookup.attributes["gateway.cache.key"]
        assert len(key) == 8
        assert set(key) <= set("0123456789abcdef")
        assert call.attributes["gen_ai.operation.name"] == "chat"
        assert call.attributes["gen_ai.provider.name"] == "openai"
        assert call.attributes["gen_ai.request.model"] == "gpt-4o"
        assert call.attributes["gen_ai.usage.input_tokens"] > 0
        assert call.attributes["gen_ai.usage.output_tokens"] > 0
        assert list(call.attributes["gen_ai.response.finish_reasons"]) == ["stop"]
        assert stream == call.attributes.get("gen_ai.request.stream", False)
        [store] = collector.named("cache store")
        assert store.parent_id == ""
        assert (TRACE, server.span_id) in store.links

        served = of_trace(collector, hit_trace)
        assert {name, "cache lookup"} == set(served)
        assert served[name].attributes["gateway.cache.result"] == "hit"
        assert served["cache lookup"].attributes["gateway.cache.key"] == key
        assert not any(n.startswith("gen_ai.usage") for n in served[name].attributes)
        assert served[name].attributes["gateway.cache.saved.tokens"] == (
            call.attributes["gen_ai.usage.input_tokens"]
            + call.attributes["gen_ai.usage.output_tokens"]
        )


async def test_a_passed_through_request_has_a_server_span_and_its_http_call() -> None:
    async with traced({}) as (_, collector, url):
        body = {"model": "omni-moderation-latest", "input": "x"}
        await post(f"{url}/v1/moderations", body)
        await collector.wait_for(lambda c: c.named("POST /v1/moderations"))
        spans = of_trace(collector, TRACE)
        assert {"POST /v1/moderations", "POST"} == set(spans)
        server = spans["POST /v1/moderations"]
        assert spans["POST"].parent_id == server.span_id
        assert server.attributes["gateway.cache.result"] == "pass"
        assert server.attributes["gateway.cache.reason"] == "route"


async def test_no_secret_and_no_content_is_in_any_span() -> None:
    async with traced({}) as (stub, collector, url):
        body = {**CHAT, "messages": [{"role": "user", "content": "marked-content"}]}
        await post(f"{url}/v1/chat/completions?marked-query=1", body)
        await collector.wait_for(lambda c: c.named("POST /v1/chat/completions"))
        told = repr(collector.spans)
        for secret in ("sk-marked-secret", "marked-content", "marked-baggage", "marked-query"):
            assert secret not in told
        # And the trace itself stays with us, unless the upstream is configured to get it.
        for name in ("traceparent", "tracestate", "baggage"):
            assert stub.received[-1].header(name) is None


async def test_the_trace_goes_on_to_an_upstream_that_is_configured_to_get_it() -> None:
    async with traced({"GATEWAY_UPSTREAMS__OPENAI__PROPAGATE_TRACE": "true"}) as traces:
        stub, collector, url = traces
        await post(f"{url}/v1/chat/completions", CHAT)
        await collector.wait_for(lambda c: c.named("POST"))
        sent = stub.received[-1].header("traceparent")
        assert sent == f"00-{TRACE}-{collector.one('POST').span_id}-01"
        assert stub.received[-1].header("baggage") is None


async def test_an_upstream_error_is_an_error_of_the_call_and_not_of_the_server() -> None:
    async with traced({}) as (_, collector, url):
        body = {**CHAT, "messages": [{"role": "user", "content": "[error 429]"}]}
        response = await post(f"{url}/v1/chat/completions", body)
        assert response.status == 429
        await collector.wait_for(lambda c: c.named("POST /v1/chat/completions"))
        spans = of_trace(collector, TRACE)
        assert spans["POST /v1/chat/completions"].status == "UNSET"
        assert spans["chat gpt-4o"].status == "ERROR"
        assert spans["chat gpt-4o"].attributes["error.type"] == "429"

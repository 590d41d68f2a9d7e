"""Every kind of request as a trace, over real OTLP; and the names that leave: all of them are known."""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from gateway.app import start
from gateway.cache import Clock
from gateway.config import Config
from gateway.lab.stub_provider import StubProvider
from gateway.telemetry import semconv
from gateway.telemetry.tallies import OVERFLOW
from tests.helpers.gateway_here import settings
from tests.helpers.otlp_collector import Collector, Span, otlp_collector
from tests.helpers.redis_servers import RedisServer, binary, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from gateway.app import RunningGateway

CHAT = "/v1/chat/completions"
SERVER = f"POST {CHAT}"
CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


class Scene:
    """A gateway in front of a stub, whose spans go to a collector, and whose clock can be put forward."""

    def __init__(self, gateway: RunningGateway, stub: StubProvider, collector: Collector) -> None:
        self.gateway = gateway
        self.stub = stub
        self.collector = collector
        self.later_s = 0.0
        self._traces = 0

    async def ask(
        self, words: str, path: str = CHAT, headers: Mapping[str, str] | None = None, **more: Any
    ) -> str:
        """Ask once; the trace that it has."""
        self._traces += 1
        trace = f"{self._traces:032x}"
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": words}], **more}
        told = {"authorization": "Bearer k", "traceparent": f"00-{trace}-{'1' * 16}-01"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{self.gateway.api_url}{path}", json=body, headers={**told, **(headers or {})}
            ) as response,
        ):
            with suppress(aiohttp.ClientPayloadError):
                await response.read()
        return trace

    async def spans(self, trace: str, *names: str) -> dict[str, Span]:
        """The spans of a trace by name, when its server span and those named have come."""
        await self.collector.wait_for(
            lambda c: {"SERVER", *names} <= {k for s in of(c, trace) for k in (s.kind, s.name)}
        )
        return {span.name: span for span in of(self.collector, trace)}

    async def linked(self, name: str, to: Span) -> Span:
        """The root span of this name that is linked to that one."""
        link = (to.trace_id, to.span_id)
        await self.collector.wait_for(lambda c: any(link in s.links for s in c.named(name)))
        [found] = [span for span in self.collector.named(name) if link in span.links]
        return found


def of(collector: Collector, trace: str) -> list[Span]:
    return [span for span in collector.spans if span.trace_id == trace]


def below(collector: Collector, parent: Span) -> list[Span]:
    return [span for span in collector.spans if span.parent_id == parent.span_id]


@asynccontextmanager
async def scene(
    environ: Mapping[str, str] | None = None, *, stub: StubProvider | None = None, **sections: Any
) -> AsyncIterator[Scene]:
    async with stub or StubProvider() as provider, otlp_collector() as collector:
        base = provider.v1_url.removesuffix("/v1")
        told = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "20",
            "OTEL_BLRP_SCHEDULE_DELAY": "20",
            "OTEL_METRIC_EXPORT_INTERVAL": "50",
            **(environ or {}),
        }
        tree = settings(base, **{"telemetry": {"traces": "auto"}, **sections})
        clock = Clock(now=lambda: time.time() + here.later_s, monotonic=time.monotonic)
        here = Scene.__new__(Scene)
        here.later_s = 0.0
        gateway = await start(Config.model_validate(tree), told, clock)
        here.__init__(gateway, provider, collector)  # type: ignore[misc]
        try:
            yield here
        finally:
            await gateway.stop()


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    executable = binary("valkey")
    assert executable is not None
    server = RedisServer(executable)
    server.start()
    yield server
    server.close()


async def test_what_redis_is_asked_is_below_the_lookup_and_the_store(redis: RedisServer) -> None:
    # A real server's first answers may be slow; this is not about deadlines.
    store = {"url": redis.url, "memory_bytes": 0, "deadline_ms": 2000}
    async with scene(store=store) as here:
        spans = await here.spans(await here.ask("kept"), "cache lookup", "GET")
        get, lookup = spans["GET"], spans["cache lookup"]
        assert (get.kind, get.parent_id, get.status) == ("CLIENT", lookup.span_id, "UNSET")
        assert get.attributes == {
            "db.system.name": "redis",
            "db.operation.name": "GET",
            "db.operation.batch.size": 2,
            "server.address": "127.0.0.1",
            "server.port": redis.port,
        }
        assert lookup.start_ns <= get.start_ns <= get.end_ns <= lookup.end_ns
        store_span = await here.linked("cache store", spans[SERVER])
        await here.collector.wait_for(lambda c: below(c, store_span))
        [put] = below(here.collector, store_span)
        assert (put.name, put.kind, put.trace_id) == ("SET", "CLIENT", store_span.trace_id)
        assert put.attributes["db.operation.name"] == "SET"
        assert "db.operation.batch.size" not in put.attributes

        hit = await here.spans(await here.ask("kept"), "cache lookup", "GET")
        assert set(hit) == {SERVER, "cache lookup", "GET"}
        assert not any(name.startswith("gen_ai.") for name in hit[SERVER].attributes)


async def test_a_redis_that_is_away_is_an_error_of_its_span_alone() -> None:
    port = free_port()
    store = {"url": f"redis://127.0.0.1:{port}/0", "memory_bytes": 0}
    async with scene(store=store) as here:
        spans = await here.spans(await here.ask("nobody there"), "cache lookup", "GET")
        assert (spans["GET"].status, spans[SERVER].status) == ("ERROR", "UNSET")
        assert spans["GET"].attributes["error.type"] in {"unreachable", "away", "late"}
        assert spans["GET"].attributes["server.port"] == port
        assert spans["cache lookup"].attributes["gateway.cache.reason"] == "store-unavailable"


async def test_a_follower_has_no_call_of_its_own_but_a_link_to_the_leaders() -> None:
    async with scene(stub=StubProvider(latency_s=0.5)) as here:
        asked = [here.ask("together", temperature=0) for _ in range(2)]
        traces = await asyncio.gather(*asked)
        found = [await here.spans(trace) for trace in traces]
        [follower] = [each for each in found if each[SERVER].links]
        leader = await here.spans(next(t for t in traces if t != follower[SERVER].trace_id), "POST")
        assert set(follower) <= {SERVER, "cache lookup"}
        top = follower[SERVER]
        assert top.attributes["gateway.cache.result"] == "collapsed"
        assert top.attributes["gateway.cache.collapsed"] is True
        call = leader["chat gpt-4o"]
        assert top.links == ((call.trace_id, call.span_id),)


async def test_the_successor_of_a_stale_answer_is_asked_for_in_a_trace_of_its_own() -> None:
    async with scene(cache={"ttl_s": 100, "stale_while_revalidate_s": 50}) as here:
        await here.spans(await here.ask("old"), "chat gpt-4o")
        here.later_s = 110.0
        stale = await here.spans(await here.ask("old"))
        assert set(stale) == {SERVER, "cache lookup"}
        assert stale[SERVER].attributes["gateway.cache.result"] == "stale"
        # What becomes of the successor is not told of a request that is over.
        assert "gateway.cache.stored" not in stale[SERVER].attributes
        assert not any("prompt_cache" in name for name in stale[SERVER].attributes)
        root = await here.linked("cache revalidate", stale[SERVER])
        assert (root.kind, root.parent_id, root.status) == ("INTERNAL", "", "UNSET")
        assert root.trace_id != stale[SERVER].trace_id
        await here.collector.wait_for(lambda c: len(below(c, root)) == 2)
        plan, call = sorted(below(here.collector, root), key=lambda span: span.start_ns)
        assert (plan.name, call.name) == ("plan", "chat gpt-4o")
        assert root.attributes["gateway.cache.stored"] is True
        await here.linked("cache store", root)


async def test_a_retried_request_has_its_attempts_and_why_each_replica() -> None:
    async with StubProvider() as well:
        dead = f"http://127.0.0.1:{free_port()}/v1"
        pool = {
            "engine": "vllm",
            "backends": [{"url": dead, "name": "dead"}, {"url": well.v1_url, "name": "well"}],
            "routing": {"policy": "round_robin"},
        }
        async with scene(upstreams={"openai": pool}) as here:
            traces = [await here.ask(f"try {number}") for number in range(2)]
            for trace in traces:
                await here.spans(trace, "chat gpt-4o", "route")
            [retried] = [t for t in traces if len(attempts(here.collector, t)) == 2]
            first, second = attempts(here.collector, retried)
            spans = await here.spans(retried)
        assert first.status == "ERROR"
        assert "http.request.resend_count" not in first.attributes
        assert second.attributes["http.request.resend_count"] == 1
        assert (first.attributes["gateway.route.backend"], second.status) == ("dead", "UNSET")
        assert second.attributes["gateway.route.branch"] == "moved-health"
        route, call, server = spans["route"], spans["chat gpt-4o"], spans[SERVER]
        assert {first.parent_id, second.parent_id} == {call.span_id}
        assert (route.kind, route.parent_id) == ("INTERNAL", server.span_id)
        assert route.attributes == {
            "gateway.route.policy": "round_robin",
            "gateway.route.backend": "dead",
            "gateway.route.branch": "spread",
            "gateway.route.wait": 0.0,
        }
        assert server.events[0][0] == "route retry"
        assert server.attributes["gateway.route.backend"] == "well"


def attempts(collector: Collector, trace: str) -> list[Span]:
    found = [span for span in of(collector, trace) if span.name == "POST"]
    return sorted(found, key=lambda span: span.start_ns)


@pytest.mark.parametrize("first", [False, True])
async def test_an_answer_given_in_the_other_form_is_a_hit_like_any_other(first: bool) -> None:
    async with scene() as here:
        await here.spans(await here.ask("both forms", stream=first), "chat gpt-4o")
        other = await here.spans(await here.ask("both forms", stream=not first))
        assert set(other) == {SERVER, "cache lookup"}
        assert other[SERVER].attributes["gateway.cache.result"] == "hit"
        assert other[SERVER].attributes["gateway.cache.saved.tokens"] > 0


async def test_planning_has_a_span_that_says_why_and_how_much() -> None:
    system = [{"type": "text", "text": "rule " * 4000}]
    async with scene(prompt_cache={"markers": "auto"}) as here:
        asked: dict[str, Any] = {"model": "claude-sonnet-5-5", "system": system, "max_tokens": 9}
        traces = [await here.ask(f"q{number}", "/v1/messages", **asked) for number in range(3)]
        spans = await here.spans(traces[-1], "plan", "chat claude-sonnet-5-5")
        plan, server = spans["plan"], spans["POST /v1/messages"]
        assert (plan.kind, plan.parent_id) == ("INTERNAL", server.span_id)
        assert plan.attributes["gateway.prompt_cache.reason"]
        assert plan.attributes["gateway.prompt_cache.markers"] >= 1
        same = {k: v for k, v in server.attributes.items() if "prompt_cache" in k}
        assert same.items() >= plan.attributes.items()


async def test_a_call_tells_its_parameters_and_no_text() -> None:
    async with scene() as here:
        trace = await here.ask(
            "parameters",
            headers={"x-session-id": "conv-7"},
            temperature=0.5,
            max_completion_tokens=50,
            seed=7,
            n=2,
            service_tier="flex",
            reasoning_effort="low",
            response_format={"type": "json_object"},
            stop=["marked-stop"],
        )
        call = (await here.spans(trace, "chat gpt-4o"))["chat gpt-4o"]
        wanted = {
            "gen_ai.conversation.id": "conv-7",
            "gen_ai.request.temperature": 0.5,
            "gen_ai.request.max_tokens": 50,
            "gen_ai.request.seed": 7,
            "gen_ai.request.choice.count": 2,
            "gen_ai.request.reasoning.level": "low",
            "gen_ai.output.type": "json",
            "openai.request.service_tier": "flex",
            "openai.api.type": "chat_completions",
        }
        assert wanted.items() <= call.attributes.items()
        assert "marked-stop" not in repr(here.collector.spans)
        assert "gen_ai.response.time_to_first_chunk" not in call.attributes


async def test_a_stream_that_breaks_says_error_in_the_place_of_its_finish_reason() -> None:
    async with scene() as here:
        trace = await here.ask("[cut]", stream=True)
        call = (await here.spans(trace, "chat gpt-4o"))["chat gpt-4o"]
        assert call.attributes["gen_ai.response.finish_reasons"] == ["error"]
        assert call.status == "ERROR"


@pytest.mark.parametrize("mode", ["", "NO_CONTENT", "everything"])
async def test_without_being_asked_not_a_byte_of_content_leaves(mode: str) -> None:
    async with scene({CONTENT: mode}) as here:
        await here.spans(await here.ask("marked-prompt"), "chat gpt-4o")
        assert here.collector.events == []
        assert "marked-prompt" not in repr(here.collector.spans)


@pytest.mark.parametrize("mode", ["span_only", "event_only", "span_and_event", "true"])
@pytest.mark.parametrize("stream", [False, True])
async def test_content_goes_where_the_standard_variable_says(mode: str, stream: bool) -> None:
    on_spans, as_events = mode != "event_only", mode in {"event_only", "span_and_event"}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    async with scene({CONTENT: mode.upper()}) as here:
        trace = await here.ask("marked-prompt", stream=stream, tools=[tool], tool_choice="none")
        call = (await here.spans(trace, "chat gpt-4o"))["chat gpt-4o"]
        said = {k: json.loads(v) for k, v in call.attributes.items() if k in semconv_content()}
        events = here.collector.events
        if as_events:
            await here.collector.wait_for(lambda c: c.events)
            [event] = events
            assert (event.name, event.severity) == (semconv.EVENT_INFERENCE_DETAILS, 5)
            assert (event.trace_id, event.span_id) == (trace, call.span_id)
            assert event.attributes["gen_ai.request.model"] == "gpt-4o"
            assert event.attributes["gen_ai.usage.input_tokens"] > 0
            told = {k: v for k, v in event.attributes.items() if k in semconv_content()}
            assert said in ({}, told)
            said = told
        assert bool(events) is as_events
        assert any(k in semconv_content() for k in call.attributes) is on_spans
        assert said["gen_ai.input.messages"] == [
            {"role": "user", "parts": [{"type": "text", "content": "marked-prompt"}]}
        ]
        [answer] = said["gen_ai.output.messages"]
        assert (answer["role"], answer["finish_reason"]) == ("assistant", "stop")
        assert answer["parts"][0]["content"]
        assert said["gen_ai.tool.definitions"][0]["name"] == "f"
        # A hit calls no model: nothing is said again.
        again = await here.spans(await here.ask("marked-prompt", tools=[tool], tool_choice="none"))
        assert "marked-prompt" not in repr(again)


def semconv_content() -> set[str]:
    return {
        semconv.GEN_AI_INPUT_MESSAGES,
        semconv.GEN_AI_OUTPUT_MESSAGES,
        semconv.GEN_AI_SYSTEM_INSTRUCTIONS,
        semconv.GEN_AI_TOOL_DEFINITIONS,
    }


async def test_every_name_that_leaves_is_one_that_is_written_down(redis: RedisServer) -> None:
    """Names on spans, events and metrics of all kinds of requests, against the one list of them."""
    known = {v for k, v in vars(semconv).items() if k.isupper() and isinstance(v, str)}
    known |= {*semconv.V1_41.values(), *OVERFLOW}
    async with StubProvider() as well:
        dead = f"http://127.0.0.1:{free_port()}/v1"
        pool = {
            "engine": "vllm",
            "backends": [{"url": dead, "name": "dead"}, {"url": well.v1_url, "name": "well"}],
        }
        sections: dict[str, Any] = {
            "upstreams": {"pool": pool},
            "routes": [{"model": "local*", "upstream": "pool"}],
            "cache": {"ttl_s": 100, "stale_while_revalidate_s": 50},
            "store": {"url": redis.url, "deadline_ms": 2000},
            "telemetry": {"traces": "auto", "genai_names": "both"},
        }
        async with scene({CONTENT: "SPAN_AND_EVENT"}, **sections) as here:
            for words in ("one", "one", "[error 500]", "[error 429]"):
                await here.ask(words, stream=True, temperature=0, service_tier="auto")
            for number in range(3):
                await here.ask(f"local {number}", model="local-1")
            here.later_s = 110.0
            stale = await here.ask("one", stream=True, temperature=0, service_tier="auto")
            await here.ask("x", "/v1/moderations")
            await here.ask("x", "/v1/responses", input="hello")
            await here.ask("x", "/v1/messages", model="claude-sonnet-5-5", max_tokens=9)
            await here.ask("x", "/v1/embeddings", input=["a", "b"])
            await here.linked("cache revalidate", (await here.spans(stale))[SERVER])
            await here.collector.wait_for(lambda c: c.events and c.named("SET"))
            collector = here.collector
    names = {name for span in collector.spans for name in span.attributes}
    names |= {name for span in collector.spans for _, told in span.events for name in told}
    names |= {name for event in collector.events for name in event.attributes}
    names |= {event for span in collector.spans for event, _ in span.events}
    names |= {event.name for event in collector.events}
    names |= set(collector.metrics)
    for metric in collector.metrics.values():
        data = getattr(metric, metric.WhichOneof("data"))
        names |= {pair.key for point in data.data_points for pair in point.attributes}
    assert names - known == set()
    methods = "|".join(semconv.METHODS)
    operations = "chat|text_completion|embeddings"
    built = re.compile(rf"(?:{methods}|HTTP)(?: /\S+)?|(?:{operations}) \S+|SET|GET")
    assert {s.name for s in collector.spans if not built.fullmatch(s.name)} == {
        "cache lookup",
        "cache store",
        "cache revalidate",
        "plan",
        "route",
    }
    # And there was enough of everything for this to mean something.
    assert {"gen_ai.client.token.usage", "gen_ai.client.inference.duration"} <= names
    assert semconv_content() - {"gen_ai.tool.definitions", "gen_ai.system_instructions"} <= names
    assert {"db.system.name", "http.request.resend_count", "gateway.route.wait"} <= names

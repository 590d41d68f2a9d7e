"""The steps of a request as spans: planning, routing, commands of the store, revalidation."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from gateway import config
from gateway.core.model import Reason
from gateway.core.route import Branch
from gateway.store.witness import WITNESS, Witnessed
from gateway.telemetry import spans
from gateway.telemetry.setup import Telemetry
from tests.helpers.otlp_collector import Collector, otlp_collector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def traced(**environ: str) -> AsyncIterator[tuple[Telemetry, Collector]]:
    async with otlp_collector() as collector:
        told = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "20",
            **environ,
        }
        telemetry = Telemetry.start(config.Telemetry(metrics=False), told, "1")
        try:
            yield telemetry, collector
        finally:
            await asyncio.to_thread(telemetry.close, 5)


def server(telemetry: Telemetry) -> spans.ServerSpan:
    return telemetry.spans.server(
        method="POST", route="/r", path="/r", scheme="http", host=None, port=None, headers={}
    )


async def test_each_step_is_told_below_the_request_with_what_was_decided() -> None:
    async with traced() as (telemetry, collector):
        s = server(telemetry)
        plan = s.plan()
        plan.planned("placed", 2, 7700, ("date",))
        plan.end()
        route = s.route()
        route.chosen("prefix", "replica-1", Branch.HOME, 0.25)
        route.end()
        nowhere = s.route()
        nowhere.error("gateway_upstream_unreachable")
        nowhere.end()
        s.end()
        await collector.wait_for(lambda c: c.named("POST /r"))
    top = collector.one("POST /r")
    assert {span.parent_id for span in collector.spans} == {"", top.span_id}
    assert {span.kind for span in collector.spans} == {"SERVER", "INTERNAL"}
    assert collector.one("plan").attributes == {
        "gateway.prompt_cache.reason": "placed",
        "gateway.prompt_cache.markers": 2,
        "gateway.prompt_cache.expected_tokens": 7700,
        "gateway.prompt_cache.rewrites": ["date"],
    }
    found, failed = collector.named("route")
    assert found.attributes == {
        "gateway.route.policy": "prefix",
        "gateway.route.backend": "replica-1",
        "gateway.route.branch": "home",
        "gateway.route.wait": 0.25,
    }
    assert (failed.status, failed.attributes["error.type"]) == (
        "ERROR",
        "gateway_upstream_unreachable",
    )


async def test_a_revalidation_is_a_root_that_is_linked_and_has_its_own_children() -> None:
    async with traced() as (telemetry, collector):
        s = server(telemetry)
        s.end()
        again = s.revalidation()
        assert again is not s
        again.plan().end()
        telemetry.spans.store(again).end(Reason.STORED)
        again.end()
        await collector.wait_for(lambda c: len(c.spans) == 4)
    top, root = collector.one("POST /r"), collector.one("cache revalidate")
    assert (root.parent_id, root.links) == ("", ((top.trace_id, top.span_id),))
    assert collector.one("plan").parent_id == root.span_id
    assert collector.one("cache store").links == ((root.trace_id, root.span_id),)


async def test_what_is_not_kept_opens_no_spans_at_all() -> None:
    async with traced(OTEL_TRACES_SAMPLER="always_off") as (telemetry, collector):
        s = server(telemetry)
        assert not s.recorded
        assert s.plan() is spans.NULL_PLAN
        assert s.route() is spans.NULL_ROUTE
        assert s.revalidation() is s
        lookup = telemetry.spans.lookup(s)
        assert lookup is spans.NULL_LOOKUP
        with Witnessed(lookup):
            assert WITNESS.get() is None
        s.end()
    assert collector.spans == []


@pytest.mark.parametrize("nested", [False, True])
async def test_a_witness_is_asked_for_as_long_as_its_operation_lasts(nested: bool) -> None:
    async with traced() as (telemetry, _):
        s = server(telemetry)
        outer, inner = telemetry.spans.lookup(s), telemetry.spans.lookup(s)
        with Witnessed(outer):
            if nested:
                with Witnessed(inner):
                    assert WITNESS.get() is inner
            assert WITNESS.get() is outer
        assert WITNESS.get() is None
        for span in (outer, inner):
            span.end()
        s.end()

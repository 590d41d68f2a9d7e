"""The ledger of whole gateways, held to the bill of a simulated provider: nothing twice, nothing lost."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest

from gateway.core.savings import KEYS, summary
from gateway.lab.provider_sim import ProviderSim
from gateway.store.ledger_sqlite import FORM, SqliteLedger
from tests.helpers.doorway import CHAT, EMBEDDINGS, MESSAGES, Canned, Doorway, chat, doorway
from tests.helpers.engine_pool import pool as engine_pool
from tests.helpers.fault_proxy import FaultProxy
from tests.helpers.gateway_process import GatewayProcess
from tests.helpers.ledger_traffic import Fleet, ToldTime, Traffic, directly
from tests.helpers.redis_servers import RedisServer, binary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TIDES = "You know the harbour and its tides. " * 200
QUIET = {"telemetry": {"traces": "off"}, "cache": {"ttl_s": 40, "stale_while_revalidate_s": 600}}


@asynccontextmanager
async def lasting_server() -> AsyncIterator[RedisServer]:
    """A Valkey that still knows after a kill what it was told."""
    executable = binary("valkey")
    assert executable is not None
    server = RedisServer(executable, persist=True)
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.close)


def held_to_the_bill(fleet: Fleet, told: dict[str, Any]) -> None:
    """To the picodollar, call by call."""
    bill, seen, total = fleet.sim.meter, fleet.seen, told["total"]
    rows = {row["cause"]: row for row in told["rows"]}
    assert int(total["paid_pd"]) == bill.paid_pd
    unknown = total["unknown"]
    assert (unknown["calls"], unknown["unpriced_calls"]) == (bill.cut, bill.unpriced)
    assert total["calls"] == fleet.sim.total_calls
    answered = total["calls"] - total["failed_calls"]
    assert answered == bill.answers + bill.cut + bill.unpriced
    # Nothing cached at all: by the formula, and by the provider's own usages.
    own = rows.get("revalidate", {"paid_pd": 0})
    paid_by_requests = int(total["paid_pd"]) - int(own["paid_pd"])
    by_marks = int(rows["ours"]["saved_pd"]) + int(total["others_pd"])
    assert paid_by_requests == seen.paid_pd
    # (Each gateway told its clients' requests what they saved, and the store has the sum.)
    assert int(rows["response_hit"]["saved_pd"]) == seen.saved_pd
    if "revalidate" not in rows:
        assert paid_by_requests + by_marks == bill.without_pd


async def everything_adds_up(fleet: Fleet) -> None:
    total = (await fleet.savings())["total"]
    for name in KEYS:
        rows = (await fleet.savings(name))["rows"]
        for amount in ("paid_pd", "saved_pd", "others_pd"):
            assert sum(int(row[amount]) for row in rows) == int(total[amount]), (name, amount)


@pytest.mark.slow
@pytest.mark.redis
async def test_paid_is_the_providers_bill_over_gateways_and_restarts() -> None:
    """`python -m bench.ledger` does the same with 10,000 requests."""
    async with (
        lasting_server() as server,
        Fleet(server.url, 4, ToldTime(), **QUIET) as fleet,
    ):
        await fleet.run(Traffic(7), 1500, restarts=5)
        told = await fleet.savings("cause")
        await everything_adds_up(fleet)

    held_to_the_bill(fleet, told)
    seen, total = fleet.seen, told["total"]
    assert seen.restarts == 5
    for kind in ("hit", "miss", "stale", "collapsed"):
        assert seen.caches[kind] > 10
    assert total["unknown"]["calls"] > 10
    assert total["unknown"]["unpriced_answers"] > 0
    assert total["failed_calls"] > fleet.sim.meter.cut
    # What it would really have cost: the formula is near, and errs for what it says it does.
    direct = directly(seen.asked).paid_pd
    formula = int(total["paid_pd"]) + int(total["saved_pd"])
    print(f"without us: ${formula / 1e12:.6f} by formula, ${direct / 1e12:.6f} simulated")
    assert formula / direct == pytest.approx(1.0, abs=0.15)


@pytest.mark.slow
@pytest.mark.redis
async def test_paid_and_what_reading_spared_are_the_providers_price_without_a_cache() -> None:
    cacheless = {"telemetry": {"traces": "off"}, "cache": {"ttl_s": 1_000_000}}
    async with (
        lasting_server() as server,
        Fleet(server.url, 2, ToldTime(), **cacheless) as fleet,
    ):
        await fleet.run(Traffic(11), 300, restarts=1)
        told = await fleet.savings("cause")

    assert "revalidate" not in {row["cause"] for row in told["rows"]}
    held_to_the_bill(fleet, told)


@pytest.mark.slow
@pytest.mark.redis
async def test_while_redis_is_killed_and_back_nothing_is_counted_twice_or_lost() -> None:
    sections = {**QUIET, "store": {"deadline_ms": 100}, "ledger": {"flush_interval_s": 0.05}}
    async with lasting_server() as server, FaultProxy(server.port) as proxy:
        async with Fleet(proxy.url, 3, ToldTime(), **sections) as fleet:
            traffic = Traffic(3)
            await fleet.run(traffic, 150)
            # Connections break again and again: of some batches nobody knows whether they arrived.
            for _ in range(5):
                proxy.drop()
                await fleet.run(traffic, 30)
            await asyncio.to_thread(server.kill)
            await fleet.run(traffic, 150)
            waiting = [each._assembled.accounts.waiting for each in fleet.gateways]
            assert all(waiting)
            await asyncio.to_thread(server.start)
            proxy.drop()
            await fleet.run(traffic, 100, restarts=1)
            told = await settled(fleet)
        held_to_the_bill(fleet, told)


async def settled(fleet: Fleet) -> dict[str, Any]:
    """The ledger, once the store takes what waits."""
    async with asyncio.timeout(20):
        for gateway in fleet.gateways:
            flush = gateway._assembled.accounts.flush
            while not await flush():  # noqa: ASYNC110 - a foreign process comes back
                await asyncio.sleep(0.05)
    return await fleet.savings("cause")


# --- one thing at a time --------------------------------------------------------------------------


async def total(door: Doorway) -> dict[str, Any]:
    url = f"{door.gateway.admin_url}/admin/savings?by=cause"
    await door.gateway._calls.idle()
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        told: dict[str, Any] = await response.json()
    return {**told["total"], "rows": {row["cause"]: row for row in told["rows"]}}


async def test_known_inputs_of_a_batch_are_saved_and_the_others_paid() -> None:
    def body(*texts: str) -> dict[str, Any]:
        return {"model": "text-embedding-3-small", "input": list(texts)}

    async with doorway(stub=(sim := ProviderSim())) as door:
        await door.ask(EMBEDDINGS, body("one text"))
        await door.ask(EMBEDDINGS, body("one text", "and another one"))
        await door.ask(EMBEDDINGS, body("one text"))
        told = await total(door)

    assert int(told["paid_pd"]) == sim.meter.paid_pd
    assert (told["calls"], told["answers"]) == (2, 2)
    first = told["rows"]["response_hit"]["spared_tokens"]["response_hit"]
    assert int(told["saved_pd"]) == first * 20_000


async def test_what_a_client_did_not_wait_for_is_counted_once() -> None:
    async with doorway(stub=(sim := ProviderSim())) as door:
        sim.gap_s = 0.02
        raw = orjson.dumps(chat("[long 40] a story", temperature=0, stream=True))
        headers = {"content-type": "application/json", "authorization": "Bearer sk-1"}
        url = f"{door.gateway.api_url}{CHAT}"
        async with aiohttp.ClientSession() as session:
            response = await session.post(url, data=raw, headers=headers)
            await response.content.readany()
            response.close()
            async with asyncio.timeout(10):
                await sim.hang_up.wait()
        await door.gateway._calls.idle()
        told = await total(door)

    assert told["calls"] == 1
    assert told["unknown"]["calls"] == 1
    assert told["paid_usd"] is None


async def test_a_prompt_that_the_config_warms_is_paid_and_counts_against_what_is_saved() -> None:
    def question(text: str) -> dict[str, Any]:
        said = [{"role": "user", "content": text}]
        return {"model": "claude-sonnet-4-5", "max_tokens": 50, "system": TIDES, "messages": said}

    warm = [{"upstream": "anthropic", "path": MESSAGES, "body": question("Which?")}]
    async with ProviderSim() as sim:
        configured = {"base_url": sim.v1_url, "provider": "anthropic", "api_key": "sk-ours"}
        upstreams = {"anthropic": configured}
        async with doorway(upstreams=upstreams, warm=warm) as door:
            async with asyncio.timeout(10):
                gateway = door.gateway
                while gateway.readiness.status != "ready":  # noqa: ASYNC110 - nobody is told
                    await asyncio.sleep(0.01)
            before = await total(door)
            await door.ask(MESSAGES, question("Which ship leaves first?"))
            after = await total(door)

    assert int(before["paid_pd"]) == -int(before["saved_pd"]) > 0
    assert list(before["rows"]) == ["warm_up"]
    assert int(after["paid_pd"]) == sim.meter.paid_pd
    # Without us: the one request, and nothing cached.
    request = after["rows"]["request"]["tokens"]
    prompt = sum(request.values()) - request["output"]
    without = prompt * 3_000_000 + request["output"] * 15_000_000
    assert sum(int(after[name]) for name in ("paid_pd", "saved_pd", "others_pd")) == without
    assert request["read"] > 1024


async def test_an_answer_of_a_service_tier_is_saved_at_its_price() -> None:
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "service_tier": "flex",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    }
    async with doorway(stub=Canned(answer)) as door:
        assert await door.caches(CHAT, chat(), chat()) == ["miss", "hit"]
        told = await total(door)

    half = (1000 * 2_500_000 + 100 * 10_000_000) // 2
    assert (int(told["paid_pd"]), int(told["saved_pd"])) == (half, half)


async def test_metrics_and_ledger_are_the_same_numbers() -> None:
    async with doorway(stub=(sim := ProviderSim())) as door:
        for number in range(6):
            await door.ask(CHAT, chat(f"{number // 2} " + TIDES, model="gpt-5-mini"))
        told = await total(door)
        page = await door.metrics()

    def summed(name: str) -> float:
        lines = [each for each in page.splitlines() if each.startswith(name + "{")]
        return sum(float(each.rpartition(" ")[2]) for each in lines)

    assert int(told["paid_pd"]) == sim.meter.paid_pd > 0
    assert summed("gateway_inference_cost_total") == pytest.approx(told["paid_usd"])
    assert summed("gateway_cache_saved_cost_total") == pytest.approx(told["saved_by"]["served"])
    assert summed("gateway_prompt_cache_spared_total") == pytest.approx(told["others_usd"])


async def test_what_an_engine_had_in_its_cache_is_tokens_and_seconds() -> None:
    routing = {"prefill_tokens_per_s": 1000}
    async with engine_pool(2, routing=routing, tells_cached=True) as pool:
        cached = 0
        for number in range(3):
            said = [{"role": "system", "content": TIDES}, {"role": "user", "content": str(number)}]
            body = {"model": "simulated", "max_tokens": 2, "messages": said}
            answer = await pool.ask(body, **{"x-gateway-session": "one"})
            cached += answer.cached
        books = pool.gateway._assembled.accounts
        told = summary(list(books._cells.sums().items()))[0]

    assert told["spared_tokens"]["engine"] == cached > 0
    assert 0 < told["engine_s"] < cached
    assert (told["calls"], told["paid_usd"], told["unknown"]["unpriced_calls"]) == (3, 0.0, 0)


@pytest.mark.slow
async def test_what_was_written_survives_a_kill_and_goes_on(tmp_path: Path) -> None:
    store = tmp_path / "cache.sqlite"
    ledger = SqliteLedger(FORM.path(store))

    async def calls() -> int:
        kept = await ledger.read("2000-01-01", "2999-12-31")
        return sum(amounts.times for line, amounts in kept.rows if line.cause == "request")

    async def written(least: int) -> int:
        async with asyncio.timeout(20):
            while (count := await calls()) < least:  # noqa: ASYNC110 - another process writes
                await asyncio.sleep(0.05)
        return count

    async def ask(gateway: GatewayProcess, numbers: range) -> None:
        async with aiohttp.ClientSession() as session:
            for number in numbers:
                body = chat(f"question {number}")
                async with session.post(f"{gateway.api_url}{CHAT}", json=body) as got:
                    assert got.status == 200
                    await got.read()

    async with ProviderSim() as sim:
        upstream = {"base_url": f"{sim.url}/v1", "provider": "openai", "api_key": "sk-test"}
        config = {"upstreams": {"openai": upstream}, "store": {"url": f"sqlite:///{store}"}}
        async with GatewayProcess(config) as gateway:
            await ask(gateway, range(5))
            assert await written(5) == 5
            await ask(gateway, range(5, 10))
            await gateway.kill()
        # Of the last second what was not written yet is gone, and nothing else.
        after = await calls()
        assert 5 <= after <= 10
        async with GatewayProcess(config) as gateway:
            await ask(gateway, range(10, 13))
            assert await written(after + 3) == after + 3
    assert await calls() == after + 3

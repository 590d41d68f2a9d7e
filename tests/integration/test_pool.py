"""A pool of simulated engines behind the gateway: who gets what, and what is told of it."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from gateway.lab.engine_faults import Mishap
from gateway.lab.engine_server import EngineServer
from tests.helpers.gateway_here import gateway_here
from tests.helpers.scripted_upstream import ScriptedUpstream, Seen, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.app import RunningGateway

HEAD = "You are a careful assistant of a large shop. " * 100


class Shop:
    """Engines, the gateway in front of them, and a client."""

    def __init__(
        self, gateway: RunningGateway, engines: list[EngineServer], client: aiohttp.ClientSession
    ) -> None:
        self.gateway = gateway
        self.engines = engines
        self.client = client

    def engine(self, name: str) -> EngineServer:
        return next(each for each in self.engines if each.name == name)

    def told(self) -> dict[str, dict[str, Any]]:
        told: dict[str, dict[str, Any]] = self.gateway._assembled.routing.told()["gpu"]
        return told

    def in_flight(self) -> int:
        return sum(each["in_flight"] for each in self.told().values())

    def counted(self, what: str) -> dict[str, int]:
        """Counters of routing by their reason."""
        found = re.findall(
            rf'gateway_route_{what}_total{{reason="([^"]+)",upstream="gpu"}} (\d+)', self.page()
        )
        return {reason: int(count) for reason, count in found}

    def warmed(self) -> dict[tuple[str, str], int]:
        found = re.findall(
            r'gateway_warm_requests_total{outcome="(\w+)",reason="(\w+)"} (\d+)', self.page()
        )
        return {(reason, outcome): int(count) for outcome, reason, count in found}

    def page_of_routes(self) -> list[str]:
        return [line for line in self.page().splitlines() if "gateway_route_" in line]

    def page(self) -> str:
        return self.gateway._telemetry.metrics.render().decode()

    async def chat(
        self,
        *said: str,
        path: str = "/u/gpu/v1/chat/completions",
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        roles = ("user", "assistant")
        messages = [{"role": "system", "content": HEAD}]
        messages += [{"role": roles[n % 2], "content": text} for n, text in enumerate(said)]
        body = {"model": "simulated", "max_tokens": 4, "messages": messages, **more}
        url = f"{self.gateway.api_url}{path}"
        async with self.client.post(url, json=body, headers=headers) as answer:
            return answer, await answer.read()


@asynccontextmanager
async def shop(
    count: int = 2,
    *,
    engine: str = "vllm",
    routing: dict[str, Any] | None = None,
    cache: dict[str, Any] | None = None,
    **upstream: Any,
) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as stack:
        engines = [
            await stack.enter_async_context(
                EngineServer(name=f"e{n}", engine=engine, prefill_rate=1e6, decode_s=0.0)
            )
            for n in range(count)
        ]
        backends = [{"url": each.v1_url, "name": each.name} for each in engines]
        pool = {
            "engine": engine,
            "backends": backends,
            "health": {"interval_s": 0},
            "routing": routing or {},
            **upstream,
        }
        gateway = await stack.enter_async_context(
            gateway_here(engines[0].url, upstreams={"gpu": pool}, cache=cache or {"when": "off"})
        )
        client = await stack.enter_async_context(aiohttp.ClientSession())
        yield Shop(gateway, engines, client)


def posted(upstream: ScriptedUpstream) -> Seen:
    """What was asked of a model, and not of the engine's own pages."""
    [found] = [each for each in upstream.seen if each.request_line.startswith(b"POST")]
    return found


def went(answer: aiohttp.ClientResponse) -> tuple[str, str]:
    return answer.headers["x-gateway-backend"], answer.headers["x-gateway-affinity"]


async def test_a_conversation_stays_where_it_began_and_is_read_from_the_cache_there() -> None:
    async with shop(4) as s:
        said = ["Hello, I need help with my order."]
        first, _ = await s.chat(*said)
        home, why = went(first)
        assert why == "new"
        for turn in range(5):
            said += [f"Answer {turn}. " * 40, f"Question {turn}? " * 40]
            answer, body = await s.chat(*said)
            assert went(answer) == (home, "extended")
            assert answer.headers["x-engine"] == home
            usage = json.loads(body)["usage"]
            if turn:
                cached = usage["prompt_tokens_details"]["cached_tokens"]
                assert cached > 0.7 * usage["prompt_tokens"]


async def test_a_named_conversation_lives_where_it_is_named_whatever_its_prompt() -> None:
    async with shop(4) as s:
        named = {"x-gateway-session": "a conversation"}
        first, _ = await s.chat("One thing.", headers=named)
        home, _ = went(first)
        for n in range(4):
            answer, _ = await s.chat(f"Quite another thing {n}.", headers=named)
            assert went(answer) == (home, "home")


async def test_new_conversations_with_one_head_are_spread() -> None:
    async with shop(4) as s:
        answers = [await s.chat(f"Conversation {n} begins. " * 30) for n in range(40)]
        homes = [went(answer)[0] for answer, _ in answers]
        assert all(5 <= homes.count(each.name) <= 16 for each in s.engines)


async def test_a_stream_s_usage_is_asked_for_and_kept_from_who_did_not_ask() -> None:
    async with shop() as s:
        for _ in range(2):
            answer, body = await s.chat("Hello", stream=True)
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            assert b'"usage":{' not in body.replace(b" ", b"")
        told = s.told()
        assert sum(each["reported_tokens"] for each in told.values()) > 500


async def test_what_the_mirror_expects_is_what_the_engines_report() -> None:
    async with shop(3) as s:
        said = [[f"Conversation {n} about its own things. " * 20] for n in range(6)]
        for turn in range(6):
            for each in said:
                await s.chat(*each)
                each += [f"Answer {turn}. " * 50, f"And what of {turn}? " * 50]
        told = s.told()
        expected = sum(each["expected_tokens"] for each in told.values())
        reported = sum(each["reported_tokens"] for each in told.values())
        assert expected > 10_000
        assert abs(expected - reported) < 0.1 * reported


NO_EJECTION = {"interval_s": 0, "eject_after": 0}


@pytest.mark.parametrize("mishap", [Mishap.FAIL, Mishap.DROP])
@pytest.mark.parametrize("stream", [False, True])
async def test_who_fails_before_answering_is_gone_round(mishap: Mishap, stream: bool) -> None:
    async with shop(2, health=NO_EJECTION) as s:
        answer, _ = await s.chat("Hello")
        home, _ = went(answer)
        other = next(each.name for each in s.engines if each.name != home)
        # (On kept connections it is asked again: they may have ended for reasons of their own.)
        s.engine(home).faults.expect(mishap, times=5)
        answer, body = await s.chat("Hello", "Well?", "So?", stream=stream)
        assert answer.status == 200
        assert body
        assert went(answer) == (other, "moved-health")
        assert s.in_flight() == 0
        assert s.counted("retries") == {
            "503" if mishap is Mishap.FAIL else "gateway_upstream_broken": 1
        }


async def test_whoever_is_not_there_is_gone_round_and_no_request_fails() -> None:
    async with shop(4, health=NO_EJECTION) as s:
        for engine in s.engines[:3]:
            await engine.stop()
        for n in range(8):
            answer, _ = await s.chat(f"Conversation {n}")
            assert answer.status == 200
            assert went(answer)[0] == s.engines[3].name
        assert s.in_flight() == 0


async def test_where_nobody_is_there_the_client_hears_of_it() -> None:
    async with shop(2, health=NO_EJECTION) as s:
        for engine in s.engines:
            await engine.stop()
        answer, body = await s.chat("Hello")
        assert answer.status == 502
        assert json.loads(body)["error"]["code"] == "gateway_upstream_unreachable"
        assert "x-gateway-backend" not in answer.headers
        assert s.in_flight() == 0


async def test_an_answer_that_has_begun_is_never_asked_for_again() -> None:
    async with shop(2, health=NO_EJECTION) as s:
        for engine in s.engines:
            engine.faults.expect(Mishap.CUT)
        with pytest.raises(aiohttp.ClientError):
            await s.chat("Hello", stream=True, max_tokens=50)
        assert sum(engine.faults.next()[0] is Mishap.CUT for engine in s.engines) == 1
        assert s.in_flight() == 0
        assert s.counted("retries") == {}


async def test_a_pool_that_refuses_everything_is_not_asked_ever_more() -> None:
    async with shop(2, health=NO_EJECTION) as s:
        for engine in s.engines:
            engine.faults.expect(Mishap.FAIL, times=1000)
        for n in range(30):
            answer, body = await s.chat(f"Conversation {n}")
            # What the last one said, as it said it.
            assert answer.status == 503
            assert b"gateway" not in body
        # A fifth of the requests, or three in ten seconds.
        assert s.counted("retries") == {"503": 6}


async def test_who_hangs_is_gone_round_as_soon_as_probes_say_so() -> None:
    probes = {"interval_s": 0.05, "timeout_s": 0.2, "unhealthy_after": 2}
    async with shop(2, health=probes) as s:
        answer, _ = await s.chat("Hello")
        home, _ = went(answer)
        s.engine(home).faults.hang()
        async with asyncio.timeout(8):
            answer, _ = await s.chat("Hello", "Well?", "So?")
        assert answer.status == 200
        assert went(answer)[0] != home
        assert went(answer)[1] == "moved-health"
        assert s.in_flight() == 0
        s.engine(home).faults.go()


async def test_what_has_no_prompt_goes_where_there_is_least_to_do() -> None:
    async with shop(3) as s:
        async with asyncio.TaskGroup() as group:
            gate = s.engines[0]
            gate.faults.hang(everywhere=False)
            session = {"x-gateway-session": "one that hangs"}
            held = group.create_task(s.chat("Hello", headers=session))
            while not s.in_flight():  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
            busy = next(n for n, each in s.told().items() if each["in_flight"])
            for _ in range(9):
                async with s.client.get(f"{s.gateway.api_url}/u/gpu/v1/models") as answer:
                    assert answer.status == 200
                    name, why = went(answer)
                    assert why == "spread"
                    assert name != busy or busy != gate.name
            gate.faults.go()
            await held
        assert s.in_flight() == 0


async def test_an_answer_from_the_cache_names_no_replica() -> None:
    async with shop(2, cache={"when": "always"}) as s:
        first, _ = await s.chat("Hello", temperature=0)
        again, _ = await s.chat("Hello", temperature=0)
        assert first.headers["x-gateway-cache"] == "miss"
        assert "x-gateway-backend" in first.headers
        assert again.headers["x-gateway-cache"] == "hit"
        assert "x-gateway-backend" not in again.headers
        assert "x-gateway-affinity" not in again.headers


async def test_what_continues_a_response_goes_to_who_made_it() -> None:
    async with shop(4) as s:
        url = f"{s.gateway.api_url}/u/gpu/v1/responses"
        for n in range(4):
            asked = {"model": "simulated", "input": f"Question {n}", "store": True}
            async with s.client.post(url, json=asked) as answer:
                home, _ = went(answer)
                made = (await answer.json())["id"]
            for _ in range(3):
                more = {**asked, "input": "And?", "previous_response_id": made}
                async with s.client.post(url, json=more) as answer:
                    assert went(answer) == (home, "home")
                    made = (await answer.json())["id"]
            async with s.client.get(f"{url}/{made}") as answer:
                assert went(answer) == (home, "home")


async def test_a_client_s_conversation_headers_are_its_own_and_go_on_but_ours_stay() -> None:
    async with ScriptedUpstream() as upstream:
        upstream.otherwise(response(b'{"object":"chat.completion"}'))
        pool = {"engine": "vllm", "backends": [f"{upstream.url}/v1"], "health": {"interval_s": 0}}
        async with (
            gateway_here(upstream.url, upstreams={"gpu": pool}) as gateway,
            aiohttp.ClientSession() as client,
        ):
            sent = {"x-gateway-session": "a", "x-session-id": "b", "thread-id": "c"}
            url = f"{gateway.api_url}/u/gpu/v1/chat/completions"
            async with client.post(url, json={"messages": []}, headers=sent) as answer:
                await answer.read()
            seen = posted(upstream).headers()
            assert "x-gateway-session" not in seen
            assert (seen["x-session-id"], seen["thread-id"]) == ("b", "c")


@pytest.mark.parametrize(
    ("headers", "more", "pinned"),
    [
        ({}, {}, True),
        ({"Cache-Control": "no-transform"}, {}, False),
        ({}, {"id_slot": 7}, False),
    ],
)
async def test_llamacpp_is_told_the_slot_where_nobody_else_says_one(
    headers: dict[str, str], more: dict[str, Any], pinned: bool
) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.otherwise(response(b'{"object":"chat.completion"}'))
        pool = {
            "engine": "llamacpp",
            "backends": [{"url": f"{upstream.url}/v1", "name": "one"}],
            "health": {"interval_s": 0},
            "routing": {"pin_slots": True},
        }
        async with (
            gateway_here(upstream.url, upstreams={"gpu": pool}) as gateway,
            aiohttp.ClientSession() as client,
        ):
            gateway._assembled.routing.pools["gpu"].router.affinity.joined("one", slots=4)
            url = f"{gateway.api_url}/u/gpu/v1/chat/completions"
            asked = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], **more}
            async with client.post(url, json=asked, headers=headers) as answer:
                await answer.read()
            sent = json.loads(posted(upstream).body)
            if pinned:
                assert 0 <= sent.pop("id_slot") < 4
            assert sent == asked


async def test_a_replica_that_joins_is_given_what_everybody_begins_with_before_its_share() -> None:
    async with shop(1) as s:
        for n in range(4):
            await s.chat(f"Conversation {n}")
        async with EngineServer(name="new", prefill_rate=1e6, decode_s=0.0) as late:
            pools = s.gateway._assembled.pools
            backend = pools.add("gpu", "new", late.v1_url)
            async with asyncio.timeout(5):
                while not backend.ready:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0.01)
            assert s.warmed() == {("replica", "ok"): 1}
            s.engines.append(late)
            pools.drain("gpu", "e0")
            answer, body = await s.chat("Yet another conversation")
            assert went(answer)[0] == "new"
            usage = json.loads(body)["usage"]
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            assert cached > 0.9 * (usage["prompt_tokens"] - 20)


async def test_with_keys_of_clients_alone_no_replica_is_warmed() -> None:
    async with shop(1) as s:
        for n in range(4):
            await s.chat(f"Conversation {n}", headers={"Authorization": "Bearer of-a-client"})
        assert repr(s.gateway._assembled.routing.pools["gpu"].hot) == "<Hot 0 prefixes, 0 B>"


async def test_explaining_says_where_a_request_would_go_and_changes_nothing() -> None:
    async with shop(3) as s:
        said = ["Hello, I need help."]
        first, _ = await s.chat(*said)
        home, _ = went(first)
        messages = [
            {"role": "system", "content": HEAD},
            {"role": "user", "content": said[0]},
            {"role": "assistant", "content": "Of course."},
            {"role": "user", "content": "So?"},
        ]
        asked = {
            "route": "/u/gpu/v1/chat/completions",
            "body": {"model": "simulated", "messages": messages},
        }
        before = s.page_of_routes(), s.told()
        for _ in range(3):
            assert s.gateway.admin_url is not None
            url = f"{s.gateway.admin_url}/admin/explain"
            async with s.client.post(url, json=asked) as answer:
                assert answer.status == 200, await answer.text()
                told = (await answer.json())["routing"]
            assert (told["backend"], told["affinity"]) == (home, "extended")
            assert told["held_tokens"] >= told["tokens"] - 10
            assert set(told["backends"]) == {"e0", "e1", "e2"}
        assert (s.page_of_routes(), s.told()) == before

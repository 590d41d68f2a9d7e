"""The provider's prompt cache, through a whole gateway and before a simulated provider: markers that
pay are placed, nobody's request fails for them, and what may not be touched isn't.
"""

from __future__ import annotations

import asyncio
import io
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from gateway.core.planner import CachePlanner
from gateway.lab.provider_sim import ProviderSim
from gateway.lab.stub_provider import Received, StubProvider
from gateway.wire import rewriting
from tests.helpers.doorway import CHAT, MESSAGES, Doorway, Told, doorway

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL = "claude-sonnet-4-5"
SYSTEM = "You answer questions about the harbour, its ships and its tides. " * 200
TOOLS = [
    {
        "name": f"tool_{number}",
        "description": "Looks something up in the harbour's books. " * 10,
        "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}},
    }
    for number in range(4)
]


def conversation(turns: int, **more: Any) -> dict[str, Any]:
    """An agent's request after so many turns of a tool each."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Which ship leaves first? " * 40}]
    for turn in range(turns):
        use = {"type": "tool_use", "id": f"toolu_{turn}", "name": "tool_0", "input": {"q": turn}}
        result = {
            "type": "tool_result",
            "tool_use_id": f"toolu_{turn}",
            "content": f"The book says for {turn}: " + "a ship, and another ship. " * 60,
        }
        messages += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    body = {"model": MODEL, "max_tokens": 64, "system": SYSTEM, "tools": TOOLS}
    return {**body, "messages": messages, **more}


def usage(told: Told) -> dict[str, Any]:
    found: dict[str, Any] = told.document["usage"]
    return found


def bodies(door: Doorway) -> list[bytes]:
    return [each.body for each in door.stub.received]


async def post(door: Doorway, raw: bytes, **headers: str) -> Mapping[str, str]:
    """A request with just these headers; those of its response."""
    url = f"{door.gateway.api_url}{MESSAGES}"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=io.BytesIO(raw), headers=headers) as response,
    ):
        assert response.status == 200, await response.read()
        return response.headers


async def talk(door: Doorway, turns: int, **headers: str) -> list[Told]:
    told = []
    for turn in range(turns):
        raw = orjson.dumps(conversation(turn))
        told.append(await door.ask(MESSAGES, raw, **headers))
        assert told[-1].status == 200, told[-1].raw
    return told


# --- what it is for -----------------------------------------------------------------------------


async def test_an_agents_next_turn_reads_what_the_one_before_has_written() -> None:
    async with doorway(stub=ProviderSim()) as door:
        told = await talk(door, 3)

    assert usage(told[0])["cache_creation_input_tokens"] > 1024
    for before, after in pairwise(told):
        wrote = usage(before)["cache_creation_input_tokens"]
        assert usage(after)["cache_read_input_tokens"] >= wrote
    assert told[0].headers["x-gateway-markers"].startswith("placed; n=")
    assert "ttl=" in told[0].headers["x-gateway-markers"]


async def test_what_was_read_and_written_is_counted_as_our_doing_and_in_dollars() -> None:
    async with doorway(stub=ProviderSim()) as door:
        told = await talk(door, 3)
        page = await door.metrics()

    read = sum(usage(each)["cache_read_input_tokens"] for each in told)
    line = next(
        line
        for line in page.splitlines()
        if line.startswith("gateway_prompt_cache_tokens_total")
        and 'operation="read"' in line
        and 'cause="ours"' in line
    )
    assert float(line.rpartition(" ")[2]) == read
    assert f'model="{MODEL}"' in line
    assert "gateway_prompt_cache_plans_total{" in page
    spared = [each for each in page.splitlines() if "prompt_cache_spared_total{" in each]
    assert len(spared) == 1
    # 3 dollars a million, read at a tenth.
    assert float(spared[0].rpartition(" ")[2]) == pytest.approx(read * 2.7e-6)


async def test_a_stream_teaches_as_much_as_a_document() -> None:
    async with doorway(stub=ProviderSim()) as door:
        told = [await door.ask(MESSAGES, conversation(turn, stream=True)) for turn in range(3)]
        start = next(each for each in told[-1].events if each["type"] == "message_start")

    assert start["message"]["usage"]["cache_read_input_tokens"] > 1024


async def test_markers_are_placed_where_the_response_cache_is_off_as_well() -> None:
    async with doorway(stub=ProviderSim(), cache={"when": "off"}) as door:
        told = await talk(door, 2)

    assert told[1].cache == "pass"
    assert usage(told[1])["cache_read_input_tokens"] > 1024


async def test_a_hit_of_the_response_cache_says_nothing_of_markers() -> None:
    async with doorway(stub=ProviderSim()) as door:
        told = [await door.ask(MESSAGES, conversation(1)) for _ in range(2)]

    assert told[1].cache == "hit"
    assert "x-gateway-markers" in told[0].headers
    assert "x-gateway-markers" not in told[1].headers


async def test_a_crowd_that_shares_a_call_is_planned_once() -> None:
    async with doorway(stub=ProviderSim(ttft_s=0.2)) as door:
        body = conversation(1, temperature=0)
        told = await asyncio.gather(*(door.ask(MESSAGES, body) for _ in range(5)))
        page = await door.metrics()

    assert door.calls == 1
    assert sorted("x-gateway-markers" in each.headers for each in told) == [False] * 4 + [True]
    plans = [line for line in page.splitlines() if line.startswith("gateway_prompt_cache_plans_t")]
    assert [line.rpartition(" ")[2] for line in plans] == ["1.0"]


async def test_openais_newer_models_get_breakpoints_and_streams_their_usage() -> None:
    told: list[Told] = []
    async with doorway(stub=ProviderSim()) as door:
        for turn in range(3):
            messages = [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": "Which ship leaves first?"},
            ]
            for past in range(turn):
                messages += [
                    {"role": "assistant", "content": f"Ship {past}. " * 50},
                    {"role": "user", "content": f"And after {past}? " * 50},
                ]
            body = {"model": "gpt-5.6-sol", "messages": messages, "stream": True}
            told.append(await door.ask(CHAT, body))
        assert isinstance(door.stub, ProviderSim)
        reads = [each.cache_read for each in door.stub.usages]

    assert reads[1] > 1024
    # The client asked for no usage event, and gets none.
    events = [event for each in told for event in each.events]
    assert events
    assert not [event for event in events if event.get("usage") is not None]


# --- what is not to be touched ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "config", "reason"),
    [
        ({"x_gateway_markers": "off"}, {}, "off"),
        ({}, {"markers": "off"}, "off"),
        ({"x_gateway_markers": "auto"}, {"markers": "off"}, "off"),
        ({"cache_control": "no-transform"}, {}, "no-transform"),
    ],
)
async def test_where_it_is_forbidden_the_bytes_are_the_clients_own(
    headers: Mapping[str, str], config: Mapping[str, Any], reason: str
) -> None:
    async with doorway(stub=ProviderSim(), prompt_cache=config) as door:
        told = await talk(door, 3, **headers)

        assert bodies(door) == [orjson.dumps(conversation(turn)) for turn in range(3)]
    assert {each.headers["x-gateway-markers"] for each in told} == {f"none; reason={reason}"}


async def test_a_route_says_what_holds_for_its_models() -> None:
    routes = [{"model": "claude-sonnet-*", "prompt_cache": {"markers": False}}]
    async with doorway(stub=ProviderSim(), routes=routes) as door:
        await talk(door, 2)

        assert bodies(door) == [orjson.dumps(conversation(turn)) for turn in range(2)]


async def test_our_header_is_not_forwarded() -> None:
    async with doorway(stub=ProviderSim()) as door:
        await talk(door, 1, x_gateway_markers="auto")

        names = {name.lower() for name, _ in door.stub.received[0].headers}
    assert not [name for name in names if name.startswith("x-gateway")]


async def test_the_clients_markers_stay_where_they_are() -> None:
    body = conversation(2)
    body["system"] = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}]
    async with doorway(stub=ProviderSim()) as door:
        told = await door.ask(MESSAGES, body)
        sent = orjson.loads(bodies(door)[0])

    assert told.status == 200
    assert sent["system"] == body["system"]


async def test_a_client_that_asks_for_it_has_its_markers_replaced() -> None:
    body = conversation(2)
    body["messages"][0]["content"] = [
        {"type": "text", "text": "Hm?", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ]
    async with doorway(stub=ProviderSim()) as door:
        told = await door.ask(MESSAGES, body, x_gateway_markers="strip")
        sent = bodies(door)[0]

    assert told.status == 200
    assert b'"ttl":"1h"' not in sent
    assert "stripped" in told.headers["x-gateway-markers"]


async def test_respect_leaves_a_client_that_marks_alone() -> None:
    body = conversation(2)
    body["system"] = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}]
    async with doorway(stub=ProviderSim()) as door:
        told = await door.ask(MESSAGES, body, x_gateway_markers="respect")

        assert bodies(door) == [orjson.dumps(body)]
    assert told.headers["x-gateway-markers"] == "none; reason=client-marks"


async def test_a_signed_request_is_not_planned() -> None:
    raw = orjson.dumps(conversation(1))
    async with doorway(stub=ProviderSim()) as door:
        told = await post(door, raw, authorization="AWS4-HMAC-SHA256 Credential=x")

        assert bodies(door) == [raw]
    assert told["x-gateway-markers"] == "none; reason=signed"


async def test_an_unknown_provider_and_an_unknown_model_get_nothing() -> None:
    raw = orjson.dumps(conversation(1, model="claude-of-tomorrow"))
    async with doorway(stub=ProviderSim()) as door:
        model = await door.ask(MESSAGES, raw)
        assert bodies(door) == [raw]
    async with doorway("unknown") as door:
        provider = await door.ask(CHAT, question(model="gpt-5.6"))
        assert bodies(door) == [orjson.dumps(question(model="gpt-5.6"))]

    told = [each.headers["x-gateway-markers"] for each in (model, provider)]
    assert told == ["none; reason=unknown-model"] * 2


async def test_json_that_nobody_can_be_sure_of_goes_as_it_came() -> None:
    raw = orjson.dumps(conversation(1))[:-1] + b',"max_tokens":65}'
    async with doorway(stub=ProviderSim()) as door:
        told = await door.ask(MESSAGES, raw)

        assert bodies(door) == [raw]
    assert told.headers["x-gateway-markers"] == "none; reason=not-understood"


# --- when things go wrong -----------------------------------------------------------------------


class Refusing(StubProvider):
    """Knows nothing of prompt caches: refuses requests that say something of them."""

    def __init__(self, *, named: bool = True, always: bool = False) -> None:
        super().__init__()
        self.named = named
        self.always = always
        self.knows = False
        """It does know them."""
        self.afterwards = 0
        """The status of all that it doesn't refuse."""

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._refusing])
        app.add_routes([web.post("/v1/messages", self._asked)])
        return app

    @web.middleware
    async def _refusing(self, request: web.Request, handler: Any) -> web.StreamResponse:
        body = await request.read()
        if (b"cache_control" in body and not self.knows) or self.always:
            what = "system.0.cache_control: Extra inputs are not permitted"
            error = {"type": "invalid_request_error", "message": what if self.named else "no " * 99}
            told = orjson.dumps({"type": "error", "error": error})
            self.calls[request.path] += 1
            self.received.append(Received(request.method, request.path_qs, (), body))
            return web.Response(status=400, body=told, content_type="application/json")
        if self.afterwards:
            return web.json_response({"type": "error"}, status=self.afterwards)
        response: web.StreamResponse = await self._observed(request, handler)
        return response


async def test_what_a_provider_refuses_for_our_markers_is_sent_again_as_it_came() -> None:
    async with doorway(stub=Refusing()) as door:
        told = [await door.ask(MESSAGES, conversation(turn)) for turn in range(3)]
        page = await door.metrics()

        sent = bodies(door)
    assert [each.status for each in told] == [200, 200, 200]
    # Refused once, and left alone from then on.
    assert len(sent) == 4
    assert b"cache_control" in sent[0]
    assert sent[1:] == [orjson.dumps(conversation(turn)) for turn in range(3)]
    assert {each.headers["x-gateway-markers"] for each in told} == {"none; reason=refused"}
    assert "gateway_prompt_cache_refusals_total{" in page
    assert told[0].cache == "miss"


async def test_the_answer_to_the_second_attempt_is_kept_like_any_other() -> None:
    async with doorway(stub=Refusing()) as door:
        told = [await door.ask(MESSAGES, conversation(1)) for _ in range(2)]

    assert [each.cache for each in told] == ["miss", "hit"]


async def test_a_refusal_that_names_nothing_of_ours_is_the_clients_byte_for_byte() -> None:
    stub = Refusing(named=False)
    stub.knows = True
    async with doorway(stub=stub) as door:
        assert (await door.ask(MESSAGES, conversation(1))).status == 200
        assert b"cache_control" in bodies(door)[0]
        stub.always = True
        told = await door.ask(MESSAGES, conversation(2))

        assert door.calls == 2
    assert told.status == 400
    assert told.document["error"]["message"] == "no " * 99


async def test_who_never_took_our_markers_need_not_say_what_is_wrong() -> None:
    async with doorway(stub=Refusing(named=False)) as door:
        told = [await door.ask(MESSAGES, conversation(turn)) for turn in range(3)]

        assert door.calls == 4
    assert [each.status for each in told] == [200, 200, 200]


@pytest.mark.parametrize("status", [429, 529])
async def test_only_who_takes_the_request_as_it_came_has_refused_our_markers(status: int) -> None:
    stub = Refusing()
    async with doorway(stub=stub) as door:
        stub.afterwards = status
        assert (await door.ask(MESSAGES, conversation(1))).status == status
        stub.afterwards = 0
        stub.knows = True
        told = await door.ask(MESSAGES, conversation(1))

    assert told.headers["x-gateway-markers"].startswith("placed")


async def test_a_request_that_is_refused_either_way_is_told_so_and_nothing_is_given_up() -> None:
    stub = Refusing(always=True)
    async with doorway(stub=stub) as door:
        first = await door.ask(MESSAGES, conversation(1))
        assert door.calls == 2
        stub.always = False
        stub.named = False
        second = await door.ask(MESSAGES, conversation(2))

    assert first.status == 400
    assert b"cache_control" in first.raw
    # What was refused either way says nothing of markers: they are placed again.
    assert second.status == 200
    assert b"cache_control" in bodies(door)[2]


class NoUsage(Refusing):
    """Streams, and refuses to be asked for their usage."""

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._strict])
        app.add_routes([web.post("/v1/chat/completions", self._asked)])
        return app

    @web.middleware
    async def _strict(self, request: web.Request, handler: Any) -> web.StreamResponse:
        body = await request.read()
        if b"stream_options" in body:
            self.calls[request.path] += 1
            told = b'{"error":{"message":"Unrecognized request argument: stream_options"}}'
            return web.Response(status=400, body=told, content_type="application/json")
        response: web.StreamResponse = await self._observed(request, handler)
        return response


async def test_asking_for_usage_fails_no_request_either() -> None:
    body = question(stream=True, prompt_cache_key="mine")
    async with doorway(stub=NoUsage()) as door:
        told = [await door.ask(CHAT, {**body, "seed": seed}) for seed in range(2)]

    assert [each.status for each in told] == [200, 200]
    # Nothing is held against markers and keys for that.
    assert "refused" in told[0].headers["x-gateway-markers"]
    assert door.calls == 4


async def test_a_planner_that_fails_fails_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("the planner is broken")

    monkeypatch.setattr(CachePlanner, "plan", broken)
    async with doorway(stub=ProviderSim()) as door:
        told = await talk(door, 2)
        page = await door.metrics()

        assert bodies(door) == [orjson.dumps(conversation(turn)) for turn in range(2)]
    assert {each.headers["x-gateway-markers"] for each in told} == {"none; reason=failed"}
    assert 'reason="failed"' in page


@pytest.mark.parametrize("method", ["begun", "learn"])
async def test_learning_that_fails_fails_no_request(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("it can't learn")

    monkeypatch.setattr(CachePlanner, method, broken)
    async with doorway(stub=ProviderSim()) as door:
        told = await talk(door, 2)

    assert [each.status for each in told] == [200, 200]


async def test_marking_that_fails_fails_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ValueError("not the body that was planned for")

    monkeypatch.setattr("gateway.planning.marked", broken)
    async with doorway(stub=ProviderSim()) as door:
        await talk(door, 2)

        assert bodies(door) == [orjson.dumps(conversation(turn)) for turn in range(2)]


async def test_after_a_restart_the_next_turn_is_marked_again() -> None:
    stub = ProviderSim()
    async with doorway(stub=stub) as door:
        await talk(door, 2)
    async with doorway(stub=stub) as door:
        after = await door.ask(MESSAGES, conversation(2))
        last = await door.ask(MESSAGES, conversation(3))

    # What the first gateway wrote is read by a marker of the second's, which knows nothing of it.
    assert usage(after)["cache_read_input_tokens"] > 1024
    assert usage(last)["cache_read_input_tokens"] >= usage(after)["cache_read_input_tokens"]


async def test_a_body_of_megabytes_is_planned_beside_the_loop() -> None:
    long = conversation(1)
    long["messages"][0]["content"] = "Which ship leaves first? " * 60_000
    async with doorway(stub=ProviderSim()) as door:
        told = await post(door, orjson.dumps(long))

    assert told["x-gateway-markers"].startswith("placed")


# --- hints --------------------------------------------------------------------------------------


def question(text: str = "Which?", **more: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    return {"model": "gpt-4.1", "messages": messages, **more}


async def test_older_models_of_openai_get_a_key_for_what_they_share() -> None:
    async with doorway() as door:
        told = [await door.ask(CHAT, question(f"Which ship {n}?")) for n in range(3)]
        sent = [orjson.loads(each) for each in bodies(door)]

    assert len({each["prompt_cache_key"] for each in sent}) == 1
    assert told[0].headers["x-gateway-markers"] == "none; reason=no-markers; hint=prompt_cache_key"
    assert [{k: v for k, v in each.items() if k != "prompt_cache_key"} for each in sent] == [
        question(f"Which ship {n}?") for n in range(3)
    ]


@pytest.mark.parametrize(
    ("body", "config"),
    [
        (question(prompt_cache_key="mine"), {}),
        (question(), {"hints": False}),
        ({**question(), "messages": [{"role": "user", "content": "Hi"}]}, {}),
    ],
)
async def test_no_key_is_added_where_there_is_one_or_none_is_wanted_or_nothing_to_cache(
    body: dict[str, Any], config: dict[str, Any]
) -> None:
    async with doorway(prompt_cache=config) as door:
        await door.ask(CHAT, body)

        assert bodies(door) == [orjson.dumps(body)]


async def test_tenants_are_kept_apart_in_a_shared_engine_where_that_is_wanted() -> None:
    body = {"model": "llama", "messages": [{"role": "user", "content": "Hi"}]}
    async with doorway("vllm", prompt_cache={"isolate": True}) as door:
        for key in ("sk-1", "sk-2", "sk-1"):
            await door.ask(CHAT, body, key=key, cache_control="no-store, no-cache")
        salts = [orjson.loads(each)["cache_salt"] for each in bodies(door)]
    async with doorway("vllm") as door:
        await door.ask(CHAT, body)
        assert bodies(door) == [orjson.dumps(body)]

    assert salts[0] == salts[2] != salts[1]


# --- rewrites -----------------------------------------------------------------------------------


async def test_a_rewrite_that_the_config_lists_is_made_and_told() -> None:
    body = {
        "model": "llama",
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [
            {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
            for name in ("b", "a")
        ],
    }
    async with doorway("vllm", prompt_cache={"rewrites": ["sort-tools"]}) as door:
        told = await door.ask(CHAT, body)
        sent = orjson.loads(bodies(door)[0])
        untouched = await door.ask(CHAT, {**body, "seed": 1}, x_gateway_markers="off")

    assert [each["function"]["name"] for each in sent["tools"]] == ["a", "b"]
    assert told.headers["x-gateway-rewrites"] == "sort-tools"
    assert "x-gateway-rewrites" not in untouched.headers


async def test_a_rewriter_that_fails_fails_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("it can't rewrite")

    monkeypatch.setattr(rewriting.Rewriter, "rewrite", broken)
    async with doorway("vllm", prompt_cache={"rewrites": ["sort-tools"]}) as door:
        told = await door.ask(CHAT, question())

    assert told.status == 200
    assert told.headers["x-gateway-markers"] == "none; reason=failed"

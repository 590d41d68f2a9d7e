"""`POST /admin/explain` of a whole gateway: what it says of a prompt that begins with the time."""

from __future__ import annotations

import re
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest

from gateway import explaining
from gateway.app import start
from gateway.config import Config
from gateway.core import identity
from gateway.core.model import Form
from gateway.core.planner import CachePlanner
from gateway.core.prompt_shown import prompt_shown
from tests.helpers.dice import Dice
from tests.helpers.gateway_here import gateway_here, settings
from tests.helpers.odd_json import odd
from tests.helpers.otlp_collector import otlp_collector
from tests.helpers.raw_client import fetch
from tests.helpers.rewriting import APIS, request
from tests.helpers.scripted_upstream import ScriptedUpstream, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.app import RunningGateway
    from gateway.core.prefix import CachePrompt

ROUTE = "/v1/messages"
RULES = "Answer in the user's language. Be brief, be kind, and say what you don't know. " * 60
ANSWER = orjson.dumps(
    {
        "id": "msg_01A",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1200, "output_tokens": 5},
    }
)


def asked(second: int, question: str = "hello") -> dict[str, Any]:
    return {
        "model": "claude-sonnet-4-5",
        "max_tokens": 64,
        "metadata": {"user_id": f"u{second}"},
        "system": f"Current time: 2026-11-22T10:00:{second:02d}Z\n{RULES}",
        "messages": [{"role": "user", "content": question}],
    }


@dataclass
class World:
    gateway: RunningGateway
    upstream: ScriptedUpstream
    session: aiohttp.ClientSession

    async def send(self, body: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
        given = [("x-api-key", "k"), *(headers or {}).items()]
        got = await fetch(self.gateway.api_url, "POST", ROUTE, orjson.dumps(body), given)
        assert got.status == 200
        return got

    async def sent(self) -> dict[str, Any]:
        """The body of the latest request that the provider saw."""
        body: dict[str, Any] = orjson.loads(self.upstream.seen[-1].body)
        return body

    async def explain(self, body: Any, query: str = "") -> tuple[int, Any]:
        url = f"{self.gateway.admin_url}/admin/explain{query}"
        async with self.session.post(url, json=body) as answer:
            return answer.status, orjson.loads(await answer.read())


@asynccontextmanager
async def world(**sections: Any) -> AsyncIterator[World]:
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url, **sections) as gateway,
        aiohttp.ClientSession() as session,
    ):
        upstream.otherwise(response(ANSWER))
        yield World(gateway, upstream, session)


async def test_the_time_at_the_head_of_the_system_prompt_is_named_with_what_it_costs() -> None:
    async with world() as there:
        for second in range(6):
            await there.send(asked(second))
        status, told = await there.explain({"route": ROUTE, "body": asked(59)})
        assert status == 200
        (finding,) = told["volatile"]
        assert finding["path"] == "$.system"
        assert (finding["kind"], finding["changes_with"]) == ("timestamp", "request")
        assert finding["at_character"] == len("Current time: ")
        assert finding["sample"] == "2026-11-22T10:00:59Z"
        assert finding["tokens_behind"] == pytest.approx(len(RULES) / 4, abs=2)
        assert (finding["requests_seen"], finding["changes_seen"]) == (6, 5)
        # Five of six requests read it all anew; none other came within the hour.
        rate = finding["requests_per_day"]
        assert 6 <= rate <= 6 * 24.6
        lost = finding["tokens_lost_per_day"]
        assert lost == pytest.approx(rate * 5 / 6 * finding["tokens_behind"], rel=0.01)
        assert finding["rewrites"] == ["round-time", "move-volatile"]
        assert finding["rewritten_already"] is False
        assert told["rewrites"]["configured"] == []
        assert "move-volatile" not in told["rewrites"]["would_change"]
        assert told["rewrites"]["would_change"] == ["round-time"]


async def test_a_prompt_that_nobody_has_sent_yet_has_lost_nothing() -> None:
    async with world() as there:
        _, told = await there.explain({"route": ROUTE, "body": asked(1)})
        (finding,) = told["volatile"]
        assert (finding["requests_seen"], finding["tokens_lost_per_day"]) == (0, 0)
        assert finding["tokens_behind"] > 1000


async def test_it_tells_the_identity_the_blocks_and_the_plan() -> None:
    async with world() as there:
        got = await there.send(asked(1))
        headers = {"x-api-key": "k", "anthropic-version": "2023-06-01", "user-agent": "curl"}
        body = {"route": ROUTE, "body": asked(1), "headers": headers}
        _, told = await there.explain(body)
        assert (told["upstream"], told["provider"]) == ("anthropic", "anthropic")
        assert got.head.get("x-gateway-cache") == "miss"
        members = {each["name"]: each["treated"] for each in told["identity"]["members"]}
        assert (members["system"], members["max_tokens"]) == ("keyed", "folded")
        treated = {
            how: [each["name"] for each in found]
            for how, found in told["identity"]["headers"].items()
        }
        assert treated["scope"] == ["x-api-key"]
        assert treated["keyed"] == ["anthropic-version"]
        assert treated["excluded"] == ["user-agent"]
        assert "2023-06-01" not in repr(told["identity"]["headers"])
        canonical = told["identity"]["canonical"]
        assert orjson.loads(canonical["text"])["model"] == "claude-sonnet-4-5"
        assert canonical["bytes"] == len(canonical["text"].encode())
        assert canonical["cut"] is False
        blocks = told["prompt"]["blocks"]
        assert blocks[0]["section"] == "system"
        assert blocks[-1]["path"].startswith("$.messages[0]")
        assert told["prompt"]["tokens"] == pytest.approx(blocks[-1]["tokens_to_here"], abs=1)
        assert len({block["fingerprint"] for block in blocks}) == len(blocks)
        assert told["plan"]["markers"] == "auto"
        assert told["plan"]["reason"]


async def test_explaining_twice_teaches_nothing() -> None:
    async with world() as there:
        first = [await there.explain({"route": ROUTE, "body": asked(n % 2)}) for n in range(6)]
        assert all(status == 200 for status, _ in first)
        assert first[0] == first[4]
        assert there.upstream.seen == []


async def test_the_key_is_that_of_the_entry_which_the_request_makes() -> None:
    async with world() as there:
        await there.send(asked(3))
        await there.gateway.background.idle()
        body = {"route": ROUTE, "body": asked(3), "headers": {"x-api-key": "k"}}
        _, told = await there.explain(body)
        url = f"{there.gateway.admin_url}/admin/cache/entries"
        async with there.session.get(url) as answer:
            (entry,) = (await answer.json())["entries"]
        key = bytes.fromhex(told["identity"]["key"])
        assert bytes.fromhex(entry["key"]) in identity.entry_keys([key], Form.BODY)
        (lies,) = told["cache"]["entries"]
        assert lies["ttl_left_s"] == pytest.approx(told["cache"]["ttl_s"], abs=30)
        assert lies["refused"] is None
        body["body"] = asked(4)
        _, other = await there.explain(body)
        assert other["cache"]["entries"] == []


@pytest.mark.parametrize(
    ("directive", "reads", "writes"),
    [("no-cache", False, True), ("no-store", True, False), ("max-age=5", True, True)],
)
async def test_what_the_client_wishes_is_counted_in(
    directive: str, reads: bool, writes: bool
) -> None:
    async with world() as there:
        body = {"route": ROUTE, "body": asked(1), "headers": {"Cache-Control": directive}}
        _, told = await there.explain(body)
        assert (told["cache"]["reads"], told["cache"]["writes"]) == (reads, writes)


async def test_a_long_canonical_form_is_cut() -> None:
    async with world() as there:
        _, told = await there.explain({"route": ROUTE, "body": asked(1, "é" * 100_000)})
        canonical = told["identity"]["canonical"]
        assert canonical["cut"] is True
        assert canonical["bytes"] > 200_000
        assert 65_000 < len(canonical["text"].encode()) <= 65_536


def in_two(first: str) -> dict[str, Any]:
    """A request whose first words change, with rules behind them that don't."""
    system = [{"type": "text", "text": first}, {"type": "text", "text": RULES * 3}]
    return {**asked(1), "system": system}


async def test_the_nearest_earlier_prompt_is_named_with_what_is_another_here() -> None:
    async with world(**own()) as there:
        got = await there.send(in_two("You speak to Ada."))
        sent = {"route": ROUTE, "headers": {"x-api-key": "k"}}
        _, told = await there.explain({**sent, "body": in_two("You speak to Bob.")})
        nearest = told["neighbour"]
        assert nearest["request_id"] == got.head.get("x-gateway-request-id")
        assert (nearest["path"], nearest["kind"]) == ("$.system[0]", "system")
        assert nearest["recurring_tokens"] > 3000
        assert "Ada" not in repr(told)
        # It was not remembered: the same again has the same one, and so has who sends it.
        again = await there.explain({**sent, "body": in_two("You speak to Bob.")})
        assert again == (200, told)
        _, by_header = await ask(there, in_two("You speak to Bob."), x_api_key="k")
        assert by_header["neighbour"] == nearest
        _, other = await ask(there, in_two("You speak to Bob."), x_api_key="another")
        assert other["neighbour"] is None


async def test_nobody_has_a_neighbour_in_a_cache_of_many() -> None:
    upstreams = {"anthropic": {"base_url": "http://127.0.0.1:9/v1", "api_key": "sk-ours"}}
    async with world(**own(), upstreams=upstreams) as there:
        _, told = await ask(there, in_two("You speak to Bob."), x_api_key="k")
        assert "neighbour" in told["withheld"]
        assert told["neighbour"] is None


def members_of(told: Any) -> set[str]:
    """Every member's name, those of lists of objects included."""
    if isinstance(told, list):
        return {name for each in told for name in members_of(each)}
    if not isinstance(told, dict):
        return set()
    inner = {name for value in told.values() for name in members_of(value)}
    return set(told) | inner


async def test_the_page_names_every_member_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "explain.md").read_text()
    rows = re.findall(r"^\| (`[^|]+`) \| (.+) \|$", page, re.MULTILINE)
    named = {name for first, _ in rows for name in re.findall(r"`([a-z_]+)`", first)}
    prose = set(re.findall(r"`([a-z_]+)`", page))
    async with world(prompt_cache={"rewrites": ["round-time"]}) as there:
        await there.send(asked(1))
        await there.gateway.background.idle()
        headers = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
        metadata = {"tools": [{"name": "a", "input_schema": {"type": "object"}}]}
        _, told = await there.explain({"route": ROUTE, "body": asked(1), "headers": headers})
        _, more = await there.explain({"route": ROUTE, "body": {**asked(1), **metadata}})
        _, odd = await there.explain({"route": ROUTE, "body": {"model": 5, "messages": 5}})
        await there.send(in_two("You speak to Ada."))
        _, near = await there.explain(
            {"route": ROUTE, "body": in_two("Bob."), "headers": {"x-api-key": "k"}}
        )
        assert near["neighbour"]
    found = members_of([told, more, odd, near])
    assert found <= prose, "not on the page"
    of_pools = {"policy", "usable", "backend", "affinity", "steps", "tokens", "shared_tokens"}
    of_pools |= {"held_tokens", "session", "backends"}
    assert named - {"post"} <= found | of_pools, "on the page alone"


def own(**more: Any) -> dict[str, Any]:
    return {"server": {"explain_to": ["127.0.0.0/8"], **more}}


async def ask(
    there: World, body: Any, path: str = ROUTE, **headers: str
) -> tuple[int, dict[str, Any]]:
    given = [("x-gateway-explain", "1")]
    given += [(name.replace("_", "-"), value) for name, value in headers.items()]
    got = await fetch(there.gateway.api_url, "POST", path, orjson.dumps(body), given)
    told: dict[str, Any] = orjson.loads(got.body)
    assert got.status != 200 or got.head.get("x-gateway-explain") == "1"
    return got.status, told


async def test_a_request_that_says_so_is_explained_and_not_sent() -> None:
    async with world(**own()) as there:
        await there.send(asked(3))
        await there.gateway.background.idle()
        before = len(there.upstream.seen)
        status, told = await ask(there, asked(3), x_api_key="k")
        assert status == 200
        assert len(there.upstream.seen) == before
        (lies,) = told["cache"]["entries"]
        assert lies["age_s"] < 30
        assert told["plan"]["reason"]
        # Its own credential, whose cache it is: only what all traffic says is withheld.
        assert {each.partition("[")[0] for each in told["withheld"]} == {"volatile"}
        (finding,) = told["volatile"]
        assert finding["sample"] == "2026-11-22T10:00:03Z"
        assert finding["requests_seen"] is None
        # The same in one shape with the admin port.
        sent = {"route": ROUTE, "body": asked(3), "headers": {"x-api-key": "k"}}
        _, by_admin = await there.explain(sent)
        assert by_admin.keys() == told.keys()
        assert by_admin["identity"]["key"] == told["identity"]["key"]
        assert by_admin["withheld"] == []


async def test_explaining_by_header_teaches_nothing() -> None:
    async with world(**own()) as there:
        found = [await ask(there, asked(n % 2), x_api_key="k") for n in range(6)]
        assert found[0] == found[4]
        assert there.upstream.seen == []
        again = await there.send(asked(0))
        assert again.head.get("x-gateway-cache") == "miss"


@pytest.mark.parametrize("peers", [[], ["10.0.0.0/8"]])
async def test_who_is_not_named_gets_neither_explanation_nor_answer(peers: list[str]) -> None:
    async with world(server={"explain_to": peers}) as there:
        status, told = await ask(there, asked(1), x_api_key="k")
        assert status == 403
        assert told["error"]["type"]
        assert "gateway_not_allowed" in repr(told)
        assert there.upstream.seen == []


@pytest.mark.parametrize("value", ["0", "false", ""])
async def test_a_header_that_says_no_says_nothing(value: str) -> None:
    async with world() as there:
        got = await there.send(asked(1), {"x-gateway-explain": value})
        assert got.head.get("x-gateway-cache") == "miss"
        lines = there.upstream.seen[-1].header_lines
        assert not any(line.lower().startswith(b"x-gateway-explain") for line in lines)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/models", {}, 400),
        ("/v1/messages", [1], 200),
        ("/u/nobody/v1/messages", {}, 404),
        ("/v1/messages", {"model": "m", "messages": [{"content": "x" * 4_300_000}]}, 413),
    ],
)
async def test_what_can_not_be_explained_by_header_is_an_error(
    path: str, body: Any, status: int
) -> None:
    async with world(**own()) as there:
        assert (await ask(there, body, path, x_api_key="k"))[0] == status
        assert there.upstream.seen == []


WITHHELD = {"cache.entries", "plan"}


@pytest.mark.parametrize("scope", ["tenant", "shared"])
async def test_in_a_scope_of_many_nobody_learns_what_others_asked(scope: str) -> None:
    async with world(**own(), cache={"scope": scope, "secret": ["s" * 32]}) as there:
        await there.send(asked(3))
        await there.gateway.background.idle()
        _, told = await ask(there, asked(3), x_api_key="k")
        assert set(told["withheld"]) >= WITHHELD
        assert (told["cache"]["entries"], told["plan"]) == (None, None)


async def test_who_shows_no_credential_learns_nothing_of_others_who_show_none() -> None:
    async with world(**own()) as there:
        _, told = await ask(there, asked(3))
        assert set(told["withheld"]) >= WITHHELD


async def test_a_credential_that_is_not_passed_on_is_none() -> None:
    """`Connection` names it: it stays here, and the request is anybody's."""
    async with world(**own()) as there:
        given = {"x_api_key": "k", "connection": "x-api-key"}
        _, told = await ask(there, asked(3), **given)
        assert set(told["withheld"]) >= WITHHELD


async def test_with_a_credential_of_the_config_the_plan_is_everybodys() -> None:
    upstreams = {"anthropic": {"base_url": "http://127.0.0.1:9/v1", "api_key": "sk-ours"}}
    async with world(**own(), upstreams=upstreams) as there:
        _, told = await ask(there, asked(3), x_api_key="k")
        assert "plan" in told["withheld"]
        assert told["cache"]["entries"] == []


async def test_the_request_itself_may_be_sent_with_its_path_beside_it() -> None:
    async with world() as there:
        status, told = await there.explain(asked(1), f"?route={ROUTE}")
        assert status == 200
        assert [each["kind"] for each in told["volatile"]] == ["timestamp"]


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ({"route": ROUTE}, ""),
        ({"body": {}}, ""),
        ({"route": "/v1/models", "body": {}}, ""),
        ({"route": "elsewhere", "body": {}}, ""),
        ({"route": ROUTE, "body": {}, "more": 1}, ""),
        ({"route": ROUTE, "body": {}, "headers": {"a": 1}}, ""),
        ({}, "?route=/u/nobody/v1/messages"),
    ],
)
async def test_what_cannot_be_explained_is_refused_with_a_reason(body: Any, query: str) -> None:
    async with world() as there:
        status, told = await there.explain(body, query)
        assert status == 400
        assert told["error"]["message"]


async def test_any_json_is_explained_or_refused() -> None:
    dice = Dice(7)
    async with world(prompt_cache={"rewrites": ["sort-tools", "move-volatile"]}) as there:
        for number in range(150):
            api = dice.one(APIS)
            route = {"anthropic_messages": ROUTE, "openai_chat": "/v1/chat/completions"}
            path = route.get(api, "/v1/responses")
            body = odd(dice, request(dice, api, number))
            if dice.yes(0.3):
                body[dice.one(tuple(body))] = dice.one((5, "x", [], {}, [5], [["x"]], None))
            status, told = await there.explain({"route": path, "body": body})
            assert status in {200, 400}, (body, told)
            assert "plan" in told or "error" in told


async def test_with_the_rewrite_on_the_prefix_is_the_same_and_nothing_is_lost_any_more() -> None:
    async with world(prompt_cache={"rewrites": ["move-volatile"]}) as there:
        systems = set()
        for second in range(6):
            got = await there.send(asked(second))
            assert got.head.get("x-gateway-rewrites") == "move-volatile"
            sent = await there.sent()
            system = sent["system"]
            text = system if isinstance(system, str) else "".join(p["text"] for p in system)
            systems.add(text)
            said = sent["messages"][-1]["content"]
            assert said[0]["text"] == "hello"
            assert f"timestamp-1: 2026-11-22T10:00:{second:02d}Z" in said[-1]["text"]
        assert len(systems) == 1
        _, told = await there.explain({"route": ROUTE, "body": asked(59)})
        (finding,) = told["volatile"]
        assert finding["rewritten_already"] is True
        assert finding["tokens_lost_per_day"] == 0
        # The answers are remembered by what was asked, not by what was sent.
        again = await there.send(asked(5))
        assert again.head.get("x-gateway-cache") == "hit"


async def test_a_client_may_forbid_it() -> None:
    async with world(prompt_cache={"rewrites": ["move-volatile", "sort-tools"]}) as there:
        got = await there.send(asked(1), {"cache-control": "no-transform"})
        assert got.head.get("x-gateway-rewrites") == ""
        assert await there.sent() == asked(1)


async def test_a_trace_names_the_time_at_the_head_of_the_system_prompt_but_not_its_text() -> None:
    async with ScriptedUpstream() as upstream, otlp_collector() as collector:
        upstream.otherwise(response(ANSWER))
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        tree = settings(upstream.url, telemetry={"traces": "on"})
        gateway = await start(Config.model_validate(tree), environ)
        try:
            for second in range(3):
                body = orjson.dumps(asked(second))
                await fetch(gateway.api_url, "POST", ROUTE, body, [("x-api-key", "k")])
            await collector.wait_for(lambda c: len(c.named(f"POST {ROUTE}")) == 3)
        finally:
            await gateway.stop()
        *_, last = collector.named(f"POST {ROUTE}")
        told = last.attributes
        assert told["gateway.prompt.volatile.path"] == "$.system"
        assert told["gateway.prompt.volatile.kind"] == "timestamp"
        assert told["gateway.prompt.volatile.behind.tokens"] > 1000
        assert told["gateway.prompt.volatile.lost.tokens_per_day"] > 1000
        assert "2026-11-22T10:00" not in repr(collector.spans)


@pytest.mark.parametrize("blocks", [2001, 32_769])
async def test_a_prompt_of_very_many_blocks_is_neither_planned_nor_compared(
    monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    compared = 0

    def counting(*_: object) -> None:
        nonlocal compared
        compared += 1

    monkeypatch.setattr(explaining, "nearest", counting)
    async with world() as there:
        parts = [{"type": "text", "text": str(n % 10)} for n in range(blocks)]
        body = {"model": "claude-sonnet-4-5", "max_tokens": 9}
        body["messages"] = [{"role": "user", "content": parts}]
        status, told = await there.explain({"route": ROUTE, "body": body})
        assert status == 200
        assert len(told["prompt"]["blocks"]) + told["prompt"]["blocks_left_out"] == blocks
        assert (told["plan"]["reason"] == "not-understood") is (blocks > 32_768)
        assert (told["neighbour"], compared) == (None, 0)


@pytest.mark.parametrize(("times", "beside"), [(1, False), (6, True)])
async def test_a_long_prompt_is_looked_at_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch, times: int, *, beside: bool
) -> None:
    here: list[bool] = []
    plan = CachePlanner.plan

    def planning(*args: Any) -> Any:
        here.append(threading.current_thread() is threading.main_thread())
        return plan(*args)

    def showing(prompt: CachePrompt) -> Any:
        here.append(threading.current_thread() is threading.main_thread())
        return prompt_shown(prompt)

    monkeypatch.setattr(CachePlanner, "plan", planning)
    monkeypatch.setattr(explaining, "prompt_shown", showing)
    async with world() as there:
        body = asked(1) | {"system": RULES * times}
        status, _ = await there.explain({"route": ROUTE, "body": body})
        assert status == 200
        assert here == [not beside] * 2

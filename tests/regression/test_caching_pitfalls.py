"""Pitfalls of prompt caching that users of others report, each by its number in our survey: where
markers are placed, and what the prefix is made of. Through a whole gateway, before a simulated
provider that refuses what the real one refuses.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from gateway.lab import sim_prompt
from gateway.lab.provider_sim import ProviderSim
from tests.helpers.caching import HOUR, MARK, WORDS, agent, behind, marks, tool
from tests.helpers.doorway import CHAT, MESSAGES
from tests.helpers.gateway_here import gateway_here
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = "claude-sonnet-4-5"


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def billed(number: int, **more: Any) -> dict[str, Any]:
    """As Claude Code asks: a block at the head that is another one each time."""
    head = f"x-anthropic-billing-header: cc_version=2.1.258; cc_entrypoint=cli; cch={number:05x};"
    body: dict[str, Any] = agent(number, system=[text(head), text(WORDS * 100)], **more)
    return body


async def test_pitfall_01_a_billing_header_that_changes_does_not_cost_the_prefix() -> None:
    """vllm#36829, claude-code#68900: `cch` changes per request, in front of everything."""
    async with behind() as door:
        for turn in range(4):
            await door.tell(MESSAGES, billed(turn))
        reads = [used.cache_read for used in door.stub.usages]
        sent = door.sent
    async with behind(anthropic="vllm", prompt_cache={"rewrites": ["strip-billing"]}) as engine:
        for turn in range(2):
            await engine.tell(MESSAGES, billed(turn, model="llama"))
        stripped = engine.sent

    assert all(read > 1500 for read in reads[1:])
    # Anthropic gets it: it is what its clients are billed by.
    assert all("cch=" in body["system"][0]["text"] for body in sent)
    assert b"billing" not in orjson.dumps(stripped)
    assert all(WORDS in orjson.dumps(body["system"]).decode() for body in stripped)


async def test_pitfall_02_tools_in_another_order_are_sorted_from_the_first_turn_on() -> None:
    """openai/codex#2611, opencode#18215: the order of a map, a set or a discovery."""
    names = ["look", "touch", "ask", "write"]

    def asked(turn: int) -> Any:
        shifted = names[turn:] + names[:turn]
        return agent(turn, tools=[tool(name) for name in shifted])

    async with behind(prompt_cache={"rewrites": ["sort-tools"]}) as door:
        for turn in range(4):
            await door.tell(MESSAGES, asked(turn))
        sorted_reads = [used.cache_read for used in door.stub.usages]
        orders = [[each["name"] for each in body["tools"]] for body in door.sent]
    async with behind() as door:
        for turn in range(4):
            await door.tell(MESSAGES, asked(turn))
        reads = [used.cache_read for used in door.stub.usages]
        kept = [[each["name"] for each in body["tools"]] for body in door.sent]

    assert orders == [sorted(names)] * 4
    assert all(read > 1500 for read in sorted_reads[1:])
    # Without being asked for nothing is sorted, and nothing can be read.
    assert kept == [names[turn:] + names[:turn] for turn in range(4)]
    assert reads == [0] * 4


async def test_pitfall_03_history_is_forwarded_as_it_was_spelled() -> None:
    """dspy#10216, hermes-agent#7988: key order, spacing, escapes and floats of what was said."""
    use = (
        '{"input": {"z": 1.0, "a": 1e2, "n": 12345678901234567, "s": "caf\\u00e9 \\/"},'
        ' "type":"tool_use",  "name": "look", "id": "toolu_0"}'
    )
    schema = '{"type": "object", "properties": {"b": {}, "a": {"default": 0.10}}}'
    raw = (
        f'{{ "model": "{MODEL}", "max_tokens": 50,\n "tools": [{{"input_schema": {schema}, '
        f'"name": "look"}}], "system": [{{"text": "{WORDS * 100}", "type": "text"}}],\n'
        f' "messages": [{{"role": "user", "content": [{{"type": "text", "text": "Na\\u00efve?"}}]}},'
        f' {{"role": "assistant", "content": [{use}]}}, {{"content": [{{"type": "tool_result",'
        f' "tool_use_id": "toolu_0", "content": "{WORDS * 30}"}}], "role": "user"}}]}}'
    ).encode()
    async with behind() as door:
        for _ in range(2):
            await door.tell(MESSAGES, raw)
        forwarded = door.raw

    added = b',"cache_control":{"type":"ephemeral"}'
    assert all(added in body for body in forwarded)
    assert [body.replace(added, b"") for body in forwarded] == [raw, raw]


async def test_pitfall_04_schemas_keep_what_can_steer_the_answer() -> None:
    """DeepSeek-Reasonix#2189: canonicalising too eagerly changes what the model writes."""
    schema = {
        "type": "object",
        "required": ["z", "a"],
        "properties": {"z": {"enum": ["two", "one"], "type": "string"}, "a": {"oneOf": [{}, {}]}},
        "additionalProperties": False,
    }
    body = agent(1, tools=[tool("look", input_schema=schema)])
    async with behind() as door:
        await door.tell(MESSAGES, body)
        plain = door.sent[0]["tools"][0]["input_schema"]
    async with behind(prompt_cache={"rewrites": ["sort-schemas"]}) as door:
        await door.tell(MESSAGES, body)
        tidied = door.sent[0]["tools"][0]["input_schema"]

    assert orjson.dumps(plain) == orjson.dumps(schema)
    assert tidied == schema
    assert list(tidied["properties"]) == ["z", "a"]
    assert tidied["properties"]["z"]["enum"] == ["two", "one"]
    assert tidied["required"] == ["z", "a"]


async def test_pitfall_05_a_clock_in_the_system_prompt_does_not_cost_the_prefix() -> None:
    """pi-mono#1873, kilocode#13003: reads resume where the time is rounded."""

    def asked(turn: int) -> Any:
        clock = f"Current time: 2026-11-20T08:{10 + turn}:09Z\n"
        return agent(turn, system=clock + WORDS * 100)

    async with behind() as door:
        for turn in range(5):
            await door.tell(MESSAGES, asked(turn))
        without = [used.cache_read for used in door.stub.usages]
    async with behind(prompt_cache={"rewrites": ["round-time"]}) as door:
        for turn in range(5):
            await door.tell(MESSAGES, asked(turn))
        rounded = [used.cache_read for used in door.stub.usages]
        systems = {orjson.dumps(body["system"]).split(b"\\n")[0][-20:] for body in door.sent}

    assert max(without) < 500
    assert all(read > 1500 for read in rounded[-2:])
    assert len(systems) == 1


POSITIONS: dict[str, Any] = {
    "tools": ("tools", 0),
    "system": ("system", 0),
    "text": ("messages", 0, "content", 0),
    "image": ("messages", 0, "content", 1),
    "tool_use": ("messages", 1, "content", 0),
    "tool_result": ("messages", 2, "content", 0),
}


def with_every_position() -> Any:
    image = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    body = agent(1, system=[text(WORDS * 100)])
    body["messages"][0]["content"] = [text(WORDS), {"type": "image", "source": image}]
    return body


@pytest.mark.parametrize("mark", [MARK, HOUR, {"type": "ephemeral", "ttl": "5m"}])
@pytest.mark.parametrize("name", POSITIONS)
async def test_pitfall_06_the_clients_marker_arrives_in_every_position(
    name: str, mark: dict[str, str]
) -> None:
    """envoy ai-gateway#2477, bifrost#3942: markers were lost on the way."""
    body = with_every_position()
    holder: Any = body
    for step in POSITIONS[name]:
        holder = holder[step]
    holder["cache_control"] = mark
    async with behind() as door:
        for _ in range(2):
            await door.tell(MESSAGES, body)
        sent = door.sent
        refused = list(door.stub.refused)

    for each in sent:
        arrived: Any = each
        for step in POSITIONS[name]:
            arrived = arrived[step]
        assert arrived["cache_control"] == mark
    assert not refused


@pytest.mark.parametrize("markers", ["auto", "respect"])
async def test_pitfall_07_the_clients_markers_are_never_replaced_by_others(markers: str) -> None:
    """opencode#45750: client markers discarded, an hour injected at twice the price."""

    def asked(turn: int) -> Any:
        body = agent(turn, system=[text(WORDS * 100, cache_control=MARK)])
        body["messages"][-1]["content"] = (
            [text(WORDS * 5)]
            if not turn
            else [{**body["messages"][-1]["content"][0], "cache_control": MARK}]
        )
        return body

    async with behind(prompt_cache={"markers": markers}) as door:
        for turn in range(6):
            await door.tell(MESSAGES, asked(turn))
        sent = door.sent

    for turn, body in enumerate(sent):
        # Where a text was split, the marker stands at the same place of the prompt.
        assert ends(asked(turn)) <= ends(body)
        if markers == "respect":
            assert body == asked(turn)


def ends(body: Any) -> set[tuple[int, int]]:
    """How much of the prompt is in front of each marker, and its lifetime."""
    prompt = sim_prompt.anthropic(body)
    return {(prompt.tokens[block], ttl_s) for block, ttl_s in prompt.marks}


@pytest.mark.parametrize("blank", ["", " ", "\n\t \n"])
async def test_pitfall_08_a_blank_end_is_not_marked_and_bricks_no_session(blank: str) -> None:
    """vscode-copilot-chat#4839, dario#1066: the marked blank block is refused ever after."""
    async with behind(sim=ProviderSim(blank_text=True)) as door:
        for turn in range(4):
            body = agent(turn)
            body["messages"][-1]["content"] = [
                *([text(WORDS)] if not turn else body["messages"][-1]["content"]),
                text(blank),
            ]
            await door.tell(MESSAGES, body)
        reads = [used.cache_read for used in door.stub.usages]
        refused = list(door.stub.refused)

    assert not refused
    assert all(read > 1500 for read in reads[1:])


def five_ways() -> dict[str, Callable[[int], Any]]:
    def marked(turn: int, places: int, **more: Any) -> Any:
        """As many marks as a client may have set, the last ones on parallel results."""
        body = agent(turn, parallel=5, system=[text(WORDS * 100)], **more)
        holders = [*body["system"], *body["tools"]]
        last = body["messages"][-1]["content"]
        holders += last if isinstance(last, list) else []
        for holder in holders[:places]:
            holder["cache_control"] = MARK
        return body

    return {
        "none": lambda turn: marked(turn, 0),
        "one": lambda turn: marked(turn, 1),
        "three": lambda turn: marked(turn, 3),
        "four": lambda turn: marked(turn, 4),
        "automatic": lambda turn: marked(turn, 0, cache_control=MARK),
        "three and automatic": lambda turn: marked(turn, 3, cache_control=MARK),
        "two of an hour and automatic": lambda turn: orjson.loads(
            orjson.dumps(marked(turn, 2, cache_control=HOUR)).replace(
                b'{"type":"ephemeral"}', b'{"type":"ephemeral","ttl":"1h"}'
            )
        ),
    }


@pytest.mark.parametrize("way", five_ways())
async def test_pitfall_09_never_more_than_four_marks_whatever_is_marked_already(way: str) -> None:
    """deer-flow#2448, claude-agent-sdk-typescript#432: tools, automatic and fanned-out marks."""
    async with behind() as door:
        for turn in range(6):
            await door.tell(MESSAGES, five_ways()[way](turn))
        sent, refused = door.sent, list(door.stub.refused)

    assert max(len(marks(body)) for body in sent) <= 4
    assert not refused


async def test_pitfall_10_marks_stand_on_tool_results_and_not_inside_of_them() -> None:
    """litellm#41958, hermes-agent#89886."""
    async with behind() as door:
        for turn in range(6):
            await door.tell(MESSAGES, agent(turn))
        where = [place for body in door.sent for place, _ in marks(body)]
        refused = list(door.stub.refused)

    assert not refused
    assert not [place for place in where if ".content." in place]
    assert [place for place in where if place.startswith("messages.")]


@pytest.mark.parametrize("theirs", [MARK, HOUR])
@pytest.mark.parametrize("place", ["tools", "system", "end"])
async def test_pitfall_11_an_hour_never_comes_after_five_minutes(
    place: str, theirs: dict[str, str]
) -> None:
    """Our own five minutes before a client's hour, or our hour behind its five minutes."""
    async with behind() as door:
        for turn in range(8):
            body = agent(turn, system=[text(WORDS * 100)])
            if place == "end":
                said = body["messages"][-1]
                said["content"] = [text(WORDS)] if not turn else said["content"]
                said["content"][-1]["cache_control"] = theirs
            else:
                body[place][0]["cache_control"] = theirs
            # Far apart, so that an hour is worth its price.
            await door.tell(MESSAGES, body, after_s=400)
        sent, refused = door.sent, list(door.stub.refused)

    assert not refused
    for body in sent:
        lifetimes = [ttl for _, ttl in marks(body)]
        assert lifetimes == sorted(lifetimes, key=lambda ttl: ttl != "1h")


@pytest.mark.parametrize("names", ["new", "old", "both"])
async def test_pitfall_24_metrics_of_vllm_are_read_by_their_new_names_and_their_old_ones(
    names: str,
) -> None:
    """vLLM production-stack: a dashboard that reads the old name shows nothing after an upgrade."""
    pages = count(1)
    new = (
        "# TYPE vllm:num_requests_running gauge\n"
        'vllm:num_requests_running{engine="0",model_name="m"} 3.0\n'
        'vllm:num_requests_waiting{engine="0",model_name="m"} 1.0\n'
        'vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25\n'
        'vllm:prefix_cache_queries_total{engine="0",model_name="m"} Q\n'
        'vllm:prefix_cache_hits_total{engine="0",model_name="m"} H\n'
    )
    old = new.replace(":kv_cache_", ":gpu_cache_").replace(":prefix_cache_", ":gpu_prefix_cache_")
    both = new + "".join(line for line in old.splitlines(True) if ":gpu_" in line)
    page = {"new": new, "old": old, "both": both}[names]

    async def tell(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer sk-gpu"
        at = next(pages)
        return web.Response(text=page.replace("Q", f"{1000 * at}").replace("H", f"{800 * at}.0"))

    app = web.Application()
    app.router.add_get("/metrics", tell)
    gpu = {"provider": "vllm", "api_key": "sk-gpu", "metrics_interval_s": 0.1}
    async with (
        serve_app(app) as base,
        gateway_here(base, upstreams={"gpu": {"base_url": f"{base}/v1", **gpu}}) as gateway,
        aiohttp.ClientSession() as session,
        asyncio.timeout(20),
    ):
        told: Any = None
        while told is None or told["prefix_hit_share"]["interval"] is None:
            async with session.get(f"{gateway.admin_url}/admin/stats") as answer:
                told = (await answer.json())["engines"]["gpu"]
        async with session.get(f"{gateway.probe_url}/metrics") as answer:
            metrics = await answer.text()

    assert told.pop("age_s") < 20
    assert told == {
        "upstream": "gpu",
        "backend": None,
        "engine": "vllm",
        "running": 3,
        "waiting": 1,
        "kv_usage": 0.25,
        "capacity_tokens": None,
        "slots": None,
        "awake": None,
        "prefix_hit_share": {"interval": 0.8, "total": 0.8},
        "restarts": 0,
        "failing_s": None,
        "failure": None,
    }
    for line in (
        'gateway_engine_up{upstream="gpu"} 1.0',
        'gateway_engine_requests{state="running",upstream="gpu"} 3.0',
        'gateway_engine_requests{state="waiting",upstream="gpu"} 1.0',
        'gateway_engine_kv_usage{upstream="gpu"} 0.25',
        'gateway_engine_prefix_hits{upstream="gpu"} 0.8',
        'gateway_engine_restarts_total{upstream="gpu"} 0.0',
    ):
        assert line in metrics


@pytest.mark.parametrize("deferred", [1, 2])
async def test_pitfall_26_deferred_tools_are_never_marked(deferred: int) -> None:
    """CLIProxyAPI#4561, 9router#3567: a request without any mark was refused for ours."""
    numbers = count()
    tools = [tool("look"), tool("rare", defer_loading=True)]
    search = {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}
    tools = [search, tools[1]] if deferred == 2 else tools
    async with behind() as door:
        for _ in range(6):
            said = [{"role": "user", "content": f"{next(numbers)}?"}]
            await door.tell(MESSAGES, agent(0, tools=tools, messages=said))
        sent, refused = door.sent, list(door.stub.refused)
        reads = [used.cache_read for used in door.stub.usages]

    assert not refused
    assert all("tools.1" not in dict(marks(body)) for body in sent)
    assert max(reads) > 1500


async def test_chat_completions_are_not_marked_in_another_providers_words() -> None:
    """Between the numbers: what marks one provider is refused by the other."""
    async with behind() as door:
        for turn in range(3):
            said = [{"role": "system", "content": WORDS * 100}]
            said += [{"role": "user", "content": WORDS}] * (1 + turn)
            await door.tell(CHAT, {"model": "gpt-6-sol", "messages": said})
        sent, refused = door.raw, list(door.stub.refused)

    assert not refused
    assert not [body for body in sent if b"cache_control" in body]

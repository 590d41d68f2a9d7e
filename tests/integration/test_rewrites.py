"""Rewritten prompts before a simulated provider: with a timestamp at the head of the system prompt
nothing is read; with the rewrite on, reads resume.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from gateway.lab.provider_sim import ProviderSim
from tests.helpers.doorway import MESSAGES, Doorway, Told, doorway
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL = "claude-sonnet-4-5"
RULES = "You answer questions about the harbour, its ships and its tides. " * 200
TOOLS = [
    {
        "name": name,
        "description": "Looks something up in the harbour's books. " * 10,
        "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}},
    }
    for name in ("tides", "berths", "ships")
]


def turn_of(turns: int, second: int) -> dict[str, Any]:
    """An agent's request after so many turns of a tool each; only its clock goes on."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Which ship leaves first? " * 40}]
    for turn in range(turns):
        use = {"type": "tool_use", "id": f"toolu_{turn}", "name": "ships", "input": {"q": turn}}
        result = {
            "type": "tool_result",
            "tool_use_id": f"toolu_{turn}",
            "content": f"The book says for {turn}: " + "a ship, and another ship. " * 60,
        }
        messages += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    clock = f"Current time: 2026-11-22T10:{second // 60:02d}:{second % 60:02d}Z\n"
    tools = TOOLS[second % 3 :] + TOOLS[: second % 3]
    system = clock + RULES
    return {
        "model": MODEL,
        "max_tokens": 64,
        "system": system,
        "tools": tools,
        "messages": messages,
    }


async def talk(door: Doorway, turns: int) -> list[Told]:
    told = []
    for turn in range(turns):
        told.append(await door.ask(MESSAGES, orjson.dumps(turn_of(turn, 7 * turn))))
        assert told[-1].status == 200, told[-1].raw
    return told


def reads(told: Sequence[Told]) -> list[float]:
    """The share of each prompt that was read from the provider's cache."""
    shares = []
    for each in told:
        usage = each.document["usage"]
        read = usage["cache_read_input_tokens"]
        total = usage["input_tokens"] + usage["cache_creation_input_tokens"] + read
        shares.append(read / total)
    return shares


async def test_with_a_clock_at_the_head_nothing_is_ever_read() -> None:
    async with doorway(stub=ProviderSim()) as door:
        told = await talk(door, 6)
    assert reads(told) == [0] * 6


@pytest.mark.parametrize("time", ["move-volatile", "round-time"])
async def test_with_the_rewrites_on_reads_resume(time: str) -> None:
    rewrites = {"rewrites": ["sort-tools", time]}
    async with doorway(stub=ProviderSim(), prompt_cache=rewrites) as door:
        told = await talk(door, 6)
        sent = [orjson.loads(each.body) for each in door.stub.received]
    made = [each.headers["x-gateway-rewrites"] for each in told]
    # In some turns the tools come in order.
    assert set(made) == {f"sort-tools, {time}", time}
    assert len({orjson.dumps([body["tools"], _texts(body["system"])]) for body in sent}) == 1
    first, *later = reads(told)
    assert first == 0
    assert min(later) > 0.85


EVERY = ["strip-billing", "sort-tools", "sort-schemas", "round-time", "move-volatile"]


async def test_where_thinking_is_bound_no_rewrite_is_made() -> None:
    async with doorway(stub=ProviderSim(), prompt_cache={"rewrites": EVERY}) as door:
        for turn in range(3):
            asked = {**turn_of(turn, turn + 1), "model": "claude-opus-5-5"}
            told = await door.ask(MESSAGES, orjson.dumps(asked))
            assert told.status == 200, told.raw
            assert "x-gateway-rewrites" not in told.headers
            sent = orjson.loads(door.stub.received[-1].body)
            assert _texts(sent["system"]) == asked["system"]
            assert [tool["name"] for tool in sent["tools"]] == [t["name"] for t in asked["tools"]]


async def test_an_engine_gets_no_billing_header_whether_or_not_the_request_thinks() -> None:
    upstreams = {"anthropic": {"base_url": "", "provider": "vllm"}}
    stub = ProviderSim()
    async with serve_app(stub.app()) as base:
        upstreams["anthropic"]["base_url"] = f"{base}/v1"
        config: dict[str, Any] = {
            "prompt_cache": {"rewrites": ["strip-billing"]},
            "upstreams": upstreams,
        }
        async with doorway(**config) as door:
            for number in range(2):
                header = f"x-anthropic-billing-header: cc_version=2.1; cch=0000{number};"
                system = [{"type": "text", "text": text} for text in (header, RULES)]
                asked = {**turn_of(0, 0), "system": system, "thinking": {"type": "adaptive"}}
                told = await door.ask(MESSAGES, orjson.dumps(asked))
                assert told.headers["x-gateway-rewrites"] == "strip-billing"
    sent = [orjson.loads(each.body)["system"] for each in stub.received]
    assert sent == [[{"type": "text", "text": RULES}]] * 2


async def test_a_route_may_have_rewrites_of_its_own_or_none() -> None:
    routes = [
        {"path": MESSAGES, "model": "*-haiku-*", "prompt_cache": {"rewrites": []}},
        {"path": MESSAGES, "model": MODEL, "prompt_cache": {"rewrites": ["sort-tools"]}},
    ]
    general = {"rewrites": ["round-time"]}
    async with doorway(stub=ProviderSim(), routes=routes, prompt_cache=general) as door:
        made = []
        for model in ("claude-haiku-4-5", MODEL, "claude-sonnet-5"):
            body = {**turn_of(0, 2), "model": model}
            told = await door.ask(MESSAGES, orjson.dumps(body))
            made.append(told.headers.get("x-gateway-rewrites"))
    assert made == [None, "sort-tools", "round-time"]


def _texts(system: Any) -> str:
    if isinstance(system, str):
        return system
    return "".join(part["text"] for part in system)

"""What reaches the provider of recorded traffic, in odd spellings: the client's own bytes, and between
them markers and nothing else.
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from gateway.lab.trace import Times
from gateway.lab.trace_read import Wanted, read
from tests.helpers.caching import WORDS, behind
from tests.helpers.dice import Dice
from tests.helpers.doorway import CHAT, MESSAGES, RESPONSES
from tests.helpers.inserted import Changed, inserted

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).parents[1] / "data"
TRACES = {
    "arena-hard": ("traces/arena_hard_40_questions.jsonl.gz", 40),
    "BFCL": ("traces/bfcl_live_multiple_60.jsonl.gz", 60),
    "pi-mono": ("traces/pi_mono_first_120_rows.jsonl.gz", 25),
    "SWE-agent": ("traces/swe_agent_3_trajectories.jsonl.gz", 14),
    "tau-bench": ("taubench_airline_gpt4o.json.gz", 40),
}
MODELS = {MESSAGES: "claude-sonnet-4-5", CHAT: "gpt-5.6-sol", RESPONSES: "gpt-5.6-sol"}
FLOATS = ("1.0", "1e0", "0.70", "7E-1", "0.10000000000000001", "5.0e-1")
RULES = "".join(
    f'Rule {n}: "caf\u00e9" \u2028 \\ / \U0001f6a2 is written down.\t{WORDS}\n' for n in range(80)
)


def spelled(dice: Dice, body: dict[str, Any]) -> bytes:
    """The request as some client would write it: members in any order, any spaces and escapes,
    numbers as they come.
    """
    body = dice.order(body)
    body["temperature"] = "@float@"
    for tool in body.get("tools", []):
        schema = (tool.get("function") or tool).get("parameters") or tool.get("input_schema")
        if schema is not None:
            schema["x-odd"] = {"z": "@float@", "a": ["@float@", 12345678901234567]}
    text = json.dumps(
        body,
        ensure_ascii=dice.yes(),
        indent=dice.one((None, None, 1)),
        separators=dice.one(((",", ":"), (", ", ": "), (" ,", " :"))),
    )
    if dice.yes():
        text = text.replace("/", "\\/")
    while '"@float@"' in text:
        text = text.replace('"@float@"', dice.one(FLOATS), 1)
    return text.encode()


def bodies(name: str, path: str, dice: Dice) -> Iterator[dict[str, Any]]:
    """The trace's requests to this API; some with a long system prompt of their own."""
    file, most = TRACES[name]
    api = "anthropic_messages" if path == MESSAGES else "openai_chat"
    wanted = Wanted(api, MODELS[path], Times(1, 120.0), limit=3 if name == "tau-bench" else None)
    for call in islice(read(str(DATA / file), wanted).calls, most):
        body = orjson.loads(orjson.dumps(call.body))
        if "system" not in body and name in {"arena-hard", "BFCL"}:
            own = f"{RULES}You speak to somebody from {dice.one(('Hamburg', 'Kiel', 'Brest'))}."
            part = dice.order({"type": "text", "text": own})
            content: Any = dice.one((own, [part]))
            if path == MESSAGES:
                body["system"] = content
            else:
                body["messages"].insert(0, {"role": "developer", "content": content})
        yield as_responses(body) if path == RESPONSES else body


def as_responses(body: dict[str, Any]) -> dict[str, Any]:
    """A chat request, said to the Responses API."""
    items: list[dict[str, Any]] = []
    for message in body.pop("messages"):
        content = message.get("content")
        if message["role"] == "tool":
            made = {"type": "function_call_output", "call_id": message["tool_call_id"]}
            items.append({**made, "output": content})
            continue
        kind = "output_text" if message["role"] == "assistant" else "input_text"
        if isinstance(content, list):
            content = [{**part, "type": kind} for part in content]
        if content:
            items.append({"role": message["role"], "content": content})
        for call in message.get("tool_calls") or []:
            made = {"type": "function_call", "call_id": call["id"]}
            items.append({**made, **call["function"]})
    tools = [{"type": "function", **tool["function"]} for tool in body.pop("tools", [])]
    return {**body, "input": items, **({"tools": tools} if tools else {})}


@pytest.mark.parametrize("path", MODELS)
@pytest.mark.parametrize("name", TRACES)
async def test_between_the_clients_own_bytes_there_are_markers_and_nothing_else(
    name: str, path: str
) -> None:
    dice = Dice(sum(name.encode() + path.encode()))
    added = untouched = split = 0
    async with behind() as door:
        for body in bodies(name, path, dice):
            raw = spelled(dice, body)
            door.time.now += dice.one((5.0, 60.0, 400.0))
            told = await door.ask(path, raw)
            assert told.status == 200, told.raw[:500]
            received = door.raw[-1]
            spans = inserted(raw, received)
            said = told.headers["x-gateway-markers"]
            assert bool(spans) == (received != raw)
            assert said.startswith("placed") or not [s for s in spans if b"cache_control" in s]
            added += bool(spans)
            untouched += not spans
            split += any(b'","' in span and b'"text":"' in span for span in spans)
        calls = len(door.raw)
    print(f"{name} {path}: {added} with markers, {split} split, {untouched} untouched")
    assert calls == added + untouched > 10
    if name == "arena-hard" and path != RESPONSES:
        assert split > 10


@pytest.mark.parametrize("path", MODELS)
async def test_where_no_markers_are_wanted_not_a_byte_is_changed(path: str) -> None:
    dice = Dice(7)
    async with behind() as door:
        for name in TRACES:
            for body in islice(bodies(name, path, dice), 8):
                raw = spelled(dice, body)
                await door.tell(path, raw, x_gateway_markers="off")
                assert door.raw[-1] == raw


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (b'{"a":1.0}', b'{"a":1}'),
        (b'{"a":"\\u00e9"}', '{"a":"\u00e9"}'.encode()),
        (b'{"a":1,"b":2}', b'{"b":2,"a":1}'),
        (b'{"a": 1}', b'{"a":1}'),
        (b'{"a":"xy"}', b'{"a":"x"}'),
    ],
)
def test_any_other_change_would_be_found(sent: bytes, received: bytes) -> None:
    with pytest.raises(Changed):
        inserted(sent, received)

"""The LLM calls of 200 recorded tau-bench conversations, and guises of them that mean the same."""

from __future__ import annotations

import gzip
import string
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    import random

TRACE = Path(__file__).parents[1] / "data" / "taubench_airline_gpt4o.json.gz"
MODEL = "gpt-4o"


@dataclass(frozen=True, slots=True)
class Call:
    """One LLM call: the request as it was sent, and the assistant message that came back."""

    conversation: int
    turn: int
    """Counts assistant turns of the conversation, from 0."""
    body: dict[str, Any]
    """A Chat Completions request. Messages are shared between calls: don't change them."""
    answer: dict[str, Any]

    def raw(self) -> bytes:
        """The body as an SDK would spell it."""
        return orjson.dumps(self.body)


@cache
def conversations() -> list[list[dict[str, Any]]]:
    """The messages of each conversation."""
    return [each["traj"] for each in orjson.loads(gzip.decompress(TRACE.read_bytes()))]


@cache
def calls() -> list[Call]:
    """Every LLM call, in order of conversation and turn: 2,454 of them."""
    found = []
    tools = tool_list()
    for number, messages in enumerate(conversations()):
        turn = 0
        for position, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            body = {
                "model": MODEL,
                "messages": messages[:position],
                "temperature": 0,
                "tools": tools,
            }
            found.append(Call(number, turn, body, message))
            turn += 1
    return found


@cache
def tool_list() -> list[dict[str, Any]]:
    """The tools, as far as the recorded calls show them: names, and their arguments' shapes."""
    seen: dict[str, dict[str, Any]] = {}
    for messages in conversations():
        for message in messages:
            for call in message.get("tool_calls") or ():
                shapes = seen.setdefault(call["function"]["name"], {})
                for name, value in orjson.loads(call["function"]["arguments"]).items():
                    shapes.setdefault(name, _shape(value))
    return [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": f"{name.replace('_', ' ').capitalize()}.",
                "parameters": {
                    "type": "object",
                    "properties": shapes,
                    "required": list(shapes),
                },
            },
        }
        for name, shapes in sorted(seen.items())
    ]


def shuffled(body: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The body with its envelope's members in another order.

    The envelope: the body itself, messages, tool calls and definitions with their function
    objects. Parameter schemas and argument strings are prompt, and stay as they are.
    """

    def mixed(value: dict[str, Any]) -> dict[str, Any]:
        return dict(rng.sample(list(value.items()), len(value)))

    def with_function(owner: dict[str, Any]) -> dict[str, Any]:
        return mixed({**owner, "function": mixed(owner["function"])})

    out = {**body, "messages": [mixed(m) for m in body["messages"]]}
    for message in out["messages"]:
        if message.get("tool_calls"):
            message["tool_calls"] = [with_function(c) for c in message["tool_calls"]]
    if body.get("tools"):
        out["tools"] = [with_function(t) for t in body["tools"]]
    return mixed(out)


def renamed(body: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The body with its tool-call ids replaced by others, one to one."""
    names: dict[str, str] = {}

    def other(original: str) -> str:
        if original not in names:
            tail = rng.choices(string.ascii_letters + string.digits, k=24)
            names[original] = "call_" + "".join(tail)
        return names[original]

    messages = []
    for message in body["messages"]:
        changed = dict(message)
        if message.get("tool_calls"):
            changed["tool_calls"] = [{**c, "id": other(c["id"])} for c in message["tool_calls"]]
        if "tool_call_id" in message:
            changed["tool_call_id"] = other(message["tool_call_id"])
        messages.append(changed)
    return {**body, "messages": messages}


def flipped(body: dict[str, Any]) -> dict[str, Any]:
    """The body asking for the other form: a stream instead of a body, or the reverse."""
    if body.get("stream"):
        return {k: v for k, v in body.items() if k not in {"stream", "stream_options"}}
    return {**body, "stream": True, "stream_options": {"include_usage": True}}


def _shape(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case float():
            return {"type": "number"}
        case list():
            return {"type": "array", "items": _shape(value[0]) if value else {"type": "object"}}
        case dict():
            members = {k: _shape(v) for k, v in value.items()}
            return {"type": "object", "properties": members, "required": list(members)}
        case _:
            return {"type": "string"}

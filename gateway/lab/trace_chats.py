"""Recorded conversations of four benchmarks and a coding agent, in OpenAI's chat form."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson

from gateway.lab.trace_bodies import Conversation, chat_tool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.lab.trace import Document


def tau_bench(rows: list[Document]) -> list[Conversation]:
    """`{traj: [messages]}`. The tools are not in the data: they are derived from the calls."""
    conversations = [row["traj"] for row in rows]
    tools = _tools_seen(conversations)
    return [Conversation(messages, tools) for messages in conversations]


def _tools_seen(conversations: Iterable[list[Document]]) -> list[Document]:
    seen: dict[str, dict[str, Any]] = {}
    for messages in conversations:
        for message in messages:
            for call in message.get("tool_calls") or ():
                function = call["function"]
                shapes = seen.setdefault(function["name"], {})
                for name, value in orjson.loads(function["arguments"]).items():
                    shapes.setdefault(name, {"type": _type(value)})
    return [
        chat_tool(
            name,
            f"{name.replace('_', ' ').capitalize()}.",
            {"type": "object", "properties": shapes, "required": sorted(shapes)},
        )
        for name, shapes in sorted(seen.items())
    ]


def _type(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, list):
        return "array"
    return "object" if isinstance(value, dict) else "string"


def swe_agent(rows: list[Document]) -> list[Conversation]:
    """`{history: [messages]}`, some with tool calls, some with commands in the text."""
    return [Conversation([_stepped(message) for message in row["history"]]) for row in rows]


def _stepped(message: Document) -> Document:
    found: Document = {"role": message["role"], "content": message.get("content") or ""}
    if message.get("tool_calls"):
        found["tool_calls"] = message["tool_calls"]
    if message["role"] == "tool":
        found["tool_call_id"] = (message.get("tool_call_ids") or [""])[0]
    return found


def arena_hard(rows: list[Document]) -> list[Conversation]:
    """`{prompt}`: one question each."""
    return [Conversation([{"role": "user", "content": row["prompt"]}]) for row in rows]


def bfcl(rows: list[Document]) -> list[Conversation]:
    """`{question: [[messages]], function: [schemas]}`: the first turn, with its tools."""
    return [Conversation(row["question"][0], [_tool(f) for f in row["function"]]) for row in rows]


def _tool(function: Document) -> Document:
    # As the benchmark's own client spells them: names without dots, JSON Schema's `object`.
    return chat_tool(
        function["name"].replace(".", "_"),
        function.get("description", ""),
        _schema(function["parameters"]),
    )


def _schema(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: "object" if name == "type" and inner == "dict" else _schema(inner)
            for name, inner in value.items()
        }
    return [_schema(inner) for inner in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Session:
    """A recorded session."""

    messages: list[Document]
    answered: dict[int, tuple[float, float]]
    """By the index of the answer's message: seconds since the first request, and how long the
    answer took. Without those that were aborted before they were billed."""
    notes: list[str] = field(default_factory=list)


def pi_mono(rows: list[Document]) -> Session:
    """A session log: rows of `{type, timestamp, message: {role, content, usage, timestamp}}`."""
    messages: list[Document] = []
    answered: dict[int, tuple[float, float]] = {}
    read = total = 0
    first: float | None = None
    for row in rows:
        message = row.get("message")
        if row["type"] != "message" or not isinstance(message, dict):
            continue
        if message["role"] != "assistant":
            messages.append(_heard(message))
            continue
        usage = message["usage"]
        spent = usage["input"] + usage["cacheRead"] + usage["cacheWrite"]
        if not spent:
            continue
        read += usage["cacheRead"]
        total += spent
        at = message["timestamp"] / 1000
        first = at if first is None else first
        ended = datetime.fromisoformat(row["timestamp"]).timestamp()
        answered[len(messages)] = (at - first, max(0.1, ended - at))
        messages.append(_answer(message))
    notes = []
    if total:
        notes.append(
            f"recorded: {len(answered)} answers, {total:,} input tokens, {read / total:.1%} read; "
            "system prompt and tools were not recorded"
        )
    return Session(messages, answered, notes)


def _heard(message: Document) -> Document:
    content = message["content"]
    if message["role"] != "toolResult":
        return {"role": "user", "content": content}
    text = content if isinstance(content, str) else "".join(p.get("text", "") for p in content)
    return {"role": "tool", "tool_call_id": message["toolCallId"], "content": text}


def _answer(message: Document) -> Document:
    parts = message["content"]
    found: Document = {
        "role": "assistant",
        "content": "".join(part["text"] for part in parts if part["type"] == "text") or None,
    }
    calls = [
        {
            "id": part["id"],
            "type": "function",
            "function": {
                "name": part["name"],
                "arguments": orjson.dumps(part["arguments"]).decode(),
            },
        }
        for part in parts
        if part["type"] == "toolCall"
    ]
    if calls:
        found["tool_calls"] = calls
    return found

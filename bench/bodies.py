"""Chat bodies as agents send them: tools with schemas, a system prompt, a long history with calls
and their results. The same bytes in every run.
"""

from __future__ import annotations

import random
from typing import Any

import orjson

SIZES = {"1k": 1024, "32k": 32 * 1024, "256k": 256 * 1024}
MARK = "@@@@@@@@@@@@"
"""Where a body is told apart from the next: twelve digits take its place."""

_WORDS = [
    "the",
    "a",
    "of",
    "to",
    "and",
    "in",
    "is",
    "it",
    "that",
    "for",
    "on",
    "with",
    "as",
    "was",
    "at",
    "by",
    "from",
    "this",
    "be",
    "are",
    "or",
    "an",
    "have",
    "not",
    "which",
    "cache",
    "request",
    "stream",
    "token",
    "model",
    "prompt",
    "answer",
    "engine",
    "header",
    "value",
    "field",
    "response",
    "latency",
    "function",
    "returns",
    "error",
    "while",
    "handler",
    "buffer",
    "client",
    "server",
    "socket",
    "retry",
    "deadline",
    "because",
    "should",
    "would",
    "could",
    "please",
    "check",
    "whether",
    "file",
    "line",
    "number",
    "test",
    "fails",
    "when",
    "empty",
    "list",
    "given",
]


def chat(size: int, *, stream: bool = False) -> bytes:
    """A body for /v1/chat/completions of `size` bytes, to some per cent; `MARK` is in it once."""
    dice = random.Random(size)
    tools = [_tool(dice, number) for number in range(2 if size < 4096 else 12)]
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": f"You are a careful assistant. {_prose(dice, 20)}"},
    ]
    body: dict[str, Any] = {
        "model": "gpt-5.6",
        "temperature": 0,
        "messages": messages,
        "tools": tools if size >= 2048 else tools[:1],
    }
    if stream:
        body["stream"] = True
    last = {"role": "user", "content": f"Go on, please. ({MARK})"}
    turn = 0
    while (left := size - len(orjson.dumps({**body, "messages": [*messages, last]}))) > 40:
        if left < 1800:
            messages.append({"role": "user", "content": _prose(dice, left)[: left - 32]})
            break
        turn += 1
        messages.extend(_turn(dice, turn))
    messages.append(last)
    return orjson.dumps(body)


def _turn(dice: random.Random, number: int) -> list[dict[str, Any]]:
    call = f"call_{number:06d}"
    arguments = {"path": f"src/module_{number}.py", "start": number, "query": _prose(dice, 60)}
    result = "\n".join(f"{line:4d}  {_prose(dice, 60)}" for line in range(8))
    return [
        {"role": "user", "content": _prose(dice, 160)},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": call,
                    "type": "function",
                    "function": {
                        "name": "tool_1",
                        "arguments": orjson.dumps(arguments).decode(),
                    },
                }
            ],
        },
        {"role": "tool", "tool_call_id": call, "content": result},
        {"role": "assistant", "content": f'{_prose(dice, 200)} "quoted" \u2013 \u00fcber\n'},
    ]


def _tool(dice: random.Random, number: int) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": f"tool_{number}",
            "description": _prose(dice, 120),
            "parameters": {
                "type": "object",
                "properties": {
                    "path": {"type": "string", "description": _prose(dice, 50)},
                    "start": {"type": "integer", "minimum": 0},
                    "query": {"type": "string"},
                },
                "required": ["path"],
                "additionalProperties": False,
            },
        },
    }


def _prose(dice: random.Random, length: int) -> str:
    words: list[str] = []
    size = 0
    while size < length:
        word = dice.choice(_WORDS)
        words.append(word)
        size += len(word) + 1
    return " ".join(words)


ANSWER = orjson.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1790000000,
        "model": "gpt-5.6",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": _prose(random.Random(7), 1200),
                    "refusal": None,
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 9000,
            "completion_tokens": 250,
            "total_tokens": 9250,
            "prompt_tokens_details": {"cached_tokens": 8192},
        },
    }
)
"""What the stub answers: a chat completion of some 1.6 kB."""

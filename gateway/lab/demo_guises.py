"""The demo's script: one question in many guises, and what the cache should make of each.

Imports the official SDKs: only `gateway demo` imports this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import openai
import orjson
from anthropic import AsyncAnthropic
from anthropic import DefaultAsyncHttpxClient as AnthropicHttp
from openai import AsyncOpenAI
from openai import DefaultAsyncHttpxClient as OpenAIHttp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

FAILURES = (openai.APIError, anthropic.APIError, httpx2.HTTPError)
"""How a request of the demo can fail."""
QUESTION = "In one sentence: why does a cache make an agent cheaper?"
OTHER_QUESTION = "In one sentence: why does a cache make an agent faster?"
WEATHER = "Is it raining in Oslo?"
_GPT = "gpt-4o"
_CLAUDE = "claude-sonnet-5-5"
_KEY = "demo-key-that-no-provider-knows"
_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_outside",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@dataclass(frozen=True, slots=True)
class Sent:
    """What came back: the cache's word, the answer without its fresh ids, its tokens."""

    cache: str
    """`x-gateway-cache`; empty when there was none."""
    answer: str
    tokens: int
    """Input and output, as the answer's usage tells."""


@dataclass(frozen=True, slots=True)
class Clients:
    """Both SDKs, pointed at the gateway."""

    openai: AsyncOpenAI
    anthropic: AsyncAnthropic

    @classmethod
    def towards(cls, url: str) -> Clients:
        """Clients of the gateway at `url`: no retries, and no proxy from the environment."""
        return cls(
            AsyncOpenAI(
                base_url=f"{url}/v1",
                api_key=_KEY,
                max_retries=0,
                http_client=OpenAIHttp(trust_env=False),
            ),
            AsyncAnthropic(
                base_url=url,
                api_key=_KEY,
                max_retries=0,
                http_client=AnthropicHttp(trust_env=False),
            ),
        )

    async def close(self) -> None:
        """Close their connections."""
        await self.openai.close()
        await self.anthropic.close()


@dataclass(frozen=True, slots=True)
class Guise:
    """One request of the demo: `what` it is, what the cache should say, how to send it."""

    api: str
    what: str
    expected: str
    question: str
    """Guises of one question must get one answer."""
    send: Callable[[Clients], Awaitable[Sent]]


def guises() -> list[Guise]:
    """The requests, in the order in which they make sense."""
    chat, messages = "openai", "anthropic"
    return [
        Guise(chat, "a question", "miss", "chat", _chat()),
        Guise(chat, "the same again", "hit", "chat", _chat()),
        Guise(chat, "streamed", "hit", "chat", _chat(stream=True)),
        Guise(chat, "other member order and escapes", "hit", "chat", _raw_chat),
        Guise(chat, "temperature 0.0 instead of 0", "hit", "chat", _chat(temperature=0.0)),
        Guise(chat, "text as a content part", "hit", "chat", _chat(_part(QUESTION))),
        Guise(chat, "another question", "miss", "other", _chat(OTHER_QUESTION)),
        Guise(chat, "another temperature", "miss", "warm", _chat(temperature=0.7)),
        Guise(chat, "a tool's result", "miss", "tools", _tools("call_Jx3Qe0aZtY7mWcVb9LkD2RfS")),
        Guise(chat, "other tool-call ids", "hit", "tools", _tools("call_8hNwP5uGzM1oKsTy6BqXe4Ai")),
        Guise(
            chat,
            "other ids, streamed",
            "hit",
            "tools",
            _tools("call_Zr7vC2nFjL9dEiUg4HpYx0Ob", stream=True),
        ),
        Guise(messages, "a question", "miss", "claude", _claude()),
        Guise(messages, "streamed", "hit", "claude", _claude(stream=True)),
        Guise(messages, "with cache_control markers", "hit", "claude", _claude(marked=True)),
        Guise(chat, "Cache-Control: no-cache", "miss", "chat", _chat(fresh=True)),
        Guise(chat, "the same after that", "hit", "chat", _chat(stream=True)),
    ]


def _part(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _chat(
    content: Any = QUESTION, *, temperature: float = 0, stream: bool = False, fresh: bool = False
) -> Callable[[Clients], Awaitable[Sent]]:
    body = {
        "model": _GPT,
        "temperature": temperature,
        "messages": [
            {"role": "system", "content": "You are brief."},
            {"role": "user", "content": content},
        ],
    }
    headers = {"Cache-Control": "no-cache"} if fresh else {}
    return lambda clients: _openai(clients.openai, body, stream=stream, headers=headers)


def _tools(call_id: str, *, stream: bool = False) -> Callable[[Clients], Awaitable[Sent]]:
    function = {"name": "look_outside", "arguments": '{"city":"Oslo"}'}
    call = {"id": call_id, "type": "function", "function": function}
    body = {
        "model": _GPT,
        "temperature": 0,
        "tools": [_TOOL],
        "messages": [
            {"role": "user", "content": WEATHER},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call_id, "content": "Rain, 7 degrees."},
        ],
    }
    return lambda clients: _openai(clients.openai, body, stream=stream, headers={})


async def _openai(
    client: AsyncOpenAI, body: dict[str, Any], *, stream: bool, headers: Mapping[str, str]
) -> Sent:
    # The bodies are plain JSON on purpose: they are what the table talks about.
    create: Any = client.chat.completions.with_raw_response.create
    if not stream:
        raw = await create(**body, extra_headers=headers)
        return _completion(raw.headers, raw.parse())
    options = {"include_usage": True}
    raw = await create(**body, extra_headers=headers, stream=True, stream_options=options)
    text, tokens = "", 0
    async for chunk in raw.parse():
        text += "".join(c.delta.content or "" for c in chunk.choices)
        tokens = chunk.usage.total_tokens if chunk.usage else tokens
    return Sent(raw.headers.get("x-gateway-cache", ""), text, tokens)


async def _raw_chat(clients: Clients) -> Sent:
    # No SDK spells a body like this one; a client in another language may.
    escaped = "".join(f"\\u{ord(c):04x}" for c in QUESTION)
    body = (
        '{ "temperature": 0.00,\n  "messages": [ {"content": "You are brief.", "role": "system"},\n'
        f'    {{"content": "{escaped}", "role": "user"}} ],\n  "model": "{_GPT}" }}'
    )
    response = await clients.openai.post(
        "/chat/completions", content=body.encode(), cast_to=httpx2.Response
    )
    completion = openai.types.chat.ChatCompletion.model_validate(orjson.loads(response.content))
    return _completion(response.headers, completion)


def _completion(headers: Mapping[str, str], completion: openai.types.chat.ChatCompletion) -> Sent:
    text = completion.choices[0].message.content or ""
    tokens = completion.usage.total_tokens if completion.usage else 0
    return Sent(headers.get("x-gateway-cache", ""), text, tokens)


def _claude(*, stream: bool = False, marked: bool = False) -> Callable[[Clients], Awaitable[Sent]]:
    marker = {"cache_control": {"type": "ephemeral"}} if marked else {}
    body: dict[str, Any] = {
        "model": _CLAUDE,
        "max_tokens": 1024,
        "system": [{"type": "text", "text": "You are brief.", **marker}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION, **marker}]}],
    }

    async def send(clients: Clients) -> Sent:
        create = clients.anthropic.messages.with_raw_response.create
        if not stream:
            raw = await create(**body)
            message = await raw.parse()
            text = "".join(b.text for b in message.content if b.type == "text")
            tokens = message.usage.input_tokens + message.usage.output_tokens
            return Sent(raw.headers.get("x-gateway-cache", ""), text, tokens)
        raw = await create(**body, stream=True)
        text, read, written = "", 0, 0
        async for event in await raw.parse():
            if event.type == "message_start":
                read = event.message.usage.input_tokens
            elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                text += event.delta.text
            elif event.type == "message_delta":
                written = event.usage.output_tokens
        return Sent(raw.headers.get("x-gateway-cache", ""), text, read + written)

    return send

"""A question in the words of an API, and what the events of its answer say.

What a server doesn't understand is left out from then on: `yields` reads that from its refusal.
"""

# ruff: noqa: D102 - the methods are documented in Dialect

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.core.usage import from_anthropic, from_openai

Json = dict[str, Any]

_ANTHROPIC_VERSION = "2023-06-01"


class Message(NamedTuple):
    """One turn."""

    role: str
    text: str


@dataclass(slots=True)
class Heard:
    """What the events of one answer came to so far."""

    text: list[str] = field(default_factory=list)
    pieces: int = 0
    """Events that carried a part of the answer."""
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    """None where the server doesn't say, which some do for 0."""
    error: str = ""
    stated: list[Json] = field(default_factory=list)
    """Usage, as it came."""


class Dialect(ABC):
    """One API."""

    path: str

    @abstractmethod
    def headers(self, key: str | None) -> dict[str, str]:
        """What says who asks."""

    @abstractmethod
    def body(self, model: str, messages: list[Message], max_tokens: int) -> Json:
        """A request for a streamed answer."""

    @abstractmethod
    def hear(self, event: Json, heard: Heard) -> bool:
        """Take in one event (or a whole document); whether it carried a part of the answer."""

    def yields(self, refusal: str) -> bool:
        """Leave out what this refusal (a 400's text) is about; False where it is about none of it."""
        del refusal
        return False


class OpenAIChat(Dialect):
    """Chat Completions."""

    path = "/chat/completions"

    def __init__(self) -> None:
        self._limit = "max_tokens"
        self._extras: Json = {"temperature": 0, "stream_options": {"include_usage": True}}

    def headers(self, key: str | None) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"} if key else {}

    def body(self, model: str, messages: list[Message], max_tokens: int) -> Json:
        said = [{"role": role, "content": text} for role, text in messages]
        return {
            "model": model,
            "messages": said,
            self._limit: max_tokens,
            "stream": True,
            **self._extras,
        }

    def yields(self, refusal: str) -> bool:
        names = ("max_completion_tokens", "'max_tokens'")
        if self._limit == "max_tokens" and all(name in refusal for name in names):
            self._limit = "max_completion_tokens"
            return True
        for name in self._extras:
            if name in refusal:
                del self._extras[name]
                return True
        # Not every server says what it doesn't know: the newest member is the likeliest.
        return "extra" in refusal.lower() and self._extras.pop("stream_options", None) is not None

    def hear(self, event: Json, heard: Heard) -> bool:
        _error(event, heard)
        usage, timings = event.get("usage"), event.get("timings")
        if isinstance(usage, dict) or isinstance(timings, dict):
            _tokens(usage, timings, heard)
        spoke = False
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            delta = choice.get("delta") or choice.get("message") or {}
            text = delta.get("content")
            if isinstance(text, str):
                heard.text.append(text)
            # Thoughts and calls are computed like text.
            names = ("content", "reasoning_content", "reasoning", "tool_calls")
            spoke = spoke or any(delta.get(name) for name in names)
        heard.pieces += spoke
        return spoke


class AnthropicMessages(Dialect):
    """Messages, with the markers that Anthropic's own prompt cache wants."""

    path = "/messages"

    def headers(self, key: str | None) -> dict[str, str]:
        version = {"anthropic-version": _ANTHROPIC_VERSION}
        return version | ({"x-api-key": key} if key else {})

    def body(self, model: str, messages: list[Message], max_tokens: int) -> Json:
        system = [_block(text) for role, text in messages if role == "system"]
        turns = [(role, _block(text)) for role, text in messages if role != "system"]
        for block in (*system[-1:], *(block for _, block in turns[-1:])):
            block["cache_control"] = {"type": "ephemeral"}
        said = [{"role": role, "content": [block]} for role, block in turns]
        body: Json = {
            "model": model,
            "max_tokens": max_tokens,
            "messages": said,
            "stream": True,
        }
        return body | ({"system": system} if system else {})

    def hear(self, event: Json, heard: Heard) -> bool:
        _error(event, heard)
        message = event.get("message") if event.get("type") == "message_start" else event
        usage = message.get("usage") if isinstance(message, dict) else None
        if isinstance(usage, dict):
            heard.stated.append(usage)
            if (spent := from_anthropic(*heard.stated)) is not None:
                heard.prompt_tokens = spent.input
                heard.output_tokens = spent.output
                if any(each.get("cache_read_input_tokens") is not None for each in heard.stated):
                    heard.cached_tokens = spent.cache_read
        parts = [event.get("delta")] if event.get("type") == "content_block_delta" else []
        if isinstance(whole := event.get("content"), list):
            parts += whole
        spoke = False
        for part in parts:
            if isinstance(part, dict):
                if isinstance(text := part.get("text"), str):
                    heard.text.append(text)
                spoke = spoke or any(part.get(n) for n in ("text", "thinking", "partial_json"))
        heard.pieces += spoke
        return spoke


def _block(text: str) -> Json:
    return {"type": "text", "text": text}


def _error(event: Json, heard: Heard) -> None:
    if error := event.get("error"):
        told = error.get("message") if isinstance(error, dict) else error
        heard.error = str(told or error)


def _tokens(usage: object, timings: object, heard: Heard) -> None:
    spent = from_openai(usage, timings)
    if spent is None:
        return
    heard.prompt_tokens, heard.output_tokens = spent.input, spent.output
    stated = usage if isinstance(usage, dict) else {}
    details = stated.get("prompt_tokens_details")
    told = (
        isinstance(details, dict) and details.get("cached_tokens") is not None,
        isinstance(timings, dict) and "cache_n" in timings,
        "prompt_cache_hit_tokens" in stated,
    )
    if spent.cache_read or any(told):
        heard.cached_tokens = spent.cache_read


DIALECTS: dict[str, type[Dialect]] = {"openai": OpenAIChat, "anthropic": AnthropicMessages}

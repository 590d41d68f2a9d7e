"""What a self-hosted engine makes of a request's body: one text, its tokens, its chain of blocks.

Rendered by a template of our own, apart from how the gateway reads a body: who judges where the
gateway sends a prompt must not share its reading. A token is four bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import xxhash

if TYPE_CHECKING:
    from collections.abc import Iterable

Json = dict[str, Any]

BYTES_PER_TOKEN = 4
BLOCK_TOKENS = 16
"""Of vLLM's default; only full blocks are cached."""
_BLOCK_BYTES = BLOCK_TOKENS * BYTES_PER_TOKEN
_OPENED = "<|im_start|>"
_CLOSED = "<|im_end|>\n"


class Prompt(NamedTuple):
    """A prompt as the engine's cache sees it."""

    text: bytes
    seed: int = 0
    """Of the chain: another model, or another `cache_salt`, shares nothing."""

    @property
    def tokens(self) -> int:
        """Of the whole."""
        return count(self.text)

    def chain(self) -> list[int]:
        """Fingerprint of all up to the end of each full block."""
        fingerprint, out = self.seed, []
        for end in range(_BLOCK_BYTES, len(self.text) + 1, _BLOCK_BYTES):
            block = self.text[end - _BLOCK_BYTES : end]
            fingerprint = xxhash.xxh3_64_intdigest(block, seed=fingerprint)
            out.append(fingerprint)
        return out

    def with_answer(self, answer: str) -> Prompt:
        """What is in the cache once it has answered: the next turn begins with the same bytes."""
        return self._replace(text=self.text + answer.encode())


def count(text: bytes) -> int:
    """Tokens of a text."""
    return -(-len(text) // BYTES_PER_TOKEN)


def of_chat(body: Json) -> Prompt:
    """The prompt of a chat completion, up to where the answer begins."""
    return _prompt(body, [_tools(body), *map(_message, body["messages"])])


def of_completion(body: Json) -> Prompt:
    """The prompt of the old endpoint: a text, or tokens."""
    given = body.get("prompt") or ""
    if isinstance(given, list):
        given = "".join(given) if all(isinstance(each, str) for each in given) else _dumped(given)
    return Prompt(given.encode("utf-8", "surrogatepass"), _seed(body))


def of_response(body: Json) -> Prompt:
    """The prompt of the Responses API; nothing of earlier answers is kept."""
    given = body.get("input") or ""
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    told = body.get("instructions")
    opening = [_message({"role": "system", "content": told})] if told else []
    said = [_message(item) if "content" in item else _dumped(item) for item in items]
    return _prompt(body, [_tools(body), *opening, *said])


def _prompt(body: Json, parts: Iterable[str]) -> Prompt:
    text = "".join((*parts, _OPENED, "assistant\n"))
    return Prompt(text.encode("utf-8", "surrogatepass"), _seed(body))


def _seed(body: Json) -> int:
    named = f"{body.get('model')}\0{body.get('cache_salt') or ''}"
    return xxhash.xxh3_64_intdigest(named.encode("utf-8", "surrogatepass"))


def _tools(body: Json) -> str:
    tools = body.get("tools")
    return f"{_OPENED}tools\n{_dumped(tools)}{_CLOSED}" if tools else ""


def _message(message: Json) -> str:
    calls = message.get("tool_calls")
    said = _content(message.get("content")) + (_dumped(calls) if calls else "")
    return f"{_OPENED}{message.get('role')}\n{said}{_CLOSED}"


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(
        part["text"]
        if isinstance(part, dict) and isinstance(part.get("text"), str)
        else _dumped(part)
        for part in parts
    )


def _dumped(value: Any) -> str:
    return orjson.dumps(value).decode()

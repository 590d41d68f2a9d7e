"""What the stub answers: a pure function of what a request means, whatever API asks.

Text in the last user message steers it:

    [error 429]        that status, in the API's own error body
    [error in stream]  an error event after some deltas (without a stream: a server error)
    [cut]              the connection is closed in the middle of the answer
    [refuse] [filter] [pause] [empty]   a refusal; a filtered, paused or empty answer
    [long 300]         an answer of about that many tokens
    weather            the first tool is called; `two`, `three`, `four`: that often, in parallel
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import orjson
from blake3 import blake3

from gateway.lab.stub_schema import WORDS, instance

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOKEN = re.compile(r"\s*\S{1,4}|\s+$")
_DIRECTIVE = re.compile(
    r"\[(error in stream|cut|refuse|filter|pause|empty|(?:error|long) \d{1,4})\]"
)
_COUNTS = {"two": 2, "three": 3, "four": 4}
_BOOKKEEPING = frozenset(
    {
        *("stream", "stream_options", "metadata", "user", "safety_identifier", "service_tier"),
        *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "store"),
        *("user_profile_id", "workspace_id", "diagnostics"),
    }
)
_MARKERS = frozenset({"cache_control", "prompt_cache_breakpoint"})
_RENDERED = frozenset({"parameters", "schema", "input_schema", "input", "arguments"})
"""JSON in here goes into the prompt as it is spelled, so its member order may matter."""
_EMPTY: Mapping[str, str] = MappingProxyType({})


class Ending(StrEnum):
    """Why the stub stopped, before an API spells it."""

    STOP = "stop"
    LENGTH = "length"
    STOP_SEQUENCE = "stop_sequence"
    TOOLS = "tools"
    REFUSED = "refused"
    FILTERED = "filtered"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that may be called, with the JSON Schema of its arguments."""

    name: str
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """A request, as far as the answer depends on it."""

    digest: bytes
    """Of the meaning: 32 bytes."""
    question: str
    """Text of the last user message."""
    prompt_tokens: int
    images: int = 0
    tools: tuple[Tool, ...] = ()
    forced: bool = False
    parallel: bool = True
    has_results: bool = False
    """The last message brings tool results."""
    schema: dict[str, Any] | None = None
    json_mode: bool = False
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()

    @property
    def directives(self) -> frozenset[str]:
        """What stands in square brackets."""
        return frozenset(_DIRECTIVE.findall(self.question))

    @property
    def error_status(self) -> int | None:
        """The status of `[error 429]`."""
        return self._number("error")

    def _number(self, word: str) -> int | None:
        found = [d.split()[1] for d in self.directives if re.fullmatch(rf"{word} \d+", d)]
        return int(found[0]) if found else None

    @property
    def length(self) -> int | None:
        """The number of `[long 300]`."""
        return self._number("long")


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer, before an API writes it down."""

    text: str
    ending: Ending
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    """Tool name and arguments of each call."""
    stop_sequence: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back over HTTP: a body, or the events of a stream one by one."""

    body: bytes = b""
    events: tuple[bytes, ...] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    content_type: str = "application/json"
    cut: bool = False
    """Close the connection after half of it."""
    billed: Mapping[str, Any] | None = None
    """Of a simulation: the answer's model, usage and terms, which its stream may leave out."""


def tokens(text: str) -> list[str]:
    """The text in pieces of at most four visible characters; joined they are the text again."""
    return _TOKEN.findall(text)


def pieces(text: str, size: int = 2) -> list[str]:
    """The text as a model would stream it: `size` tokens at a time."""
    all_tokens = tokens(text)
    return ["".join(all_tokens[i : i + size]) for i in range(0, len(all_tokens), size)]


def meaning(body: Mapping[str, Any]) -> bytes:
    """A digest that differs when the answer of a model might.

    Independent of the gateway's own identity on purpose: a gateway that takes two requests for
    the same shows up here as a wrong answer.
    """
    names: dict[str, str] = {}

    def rename(original: Any) -> str:
        return names.setdefault(str(original), f"call {len(names)}")

    def walk(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            if key in _RENDERED:
                return orjson.dumps(value).decode()
            is_call = value.get("type") in {"function", "tool_use", "custom"}
            out: dict[str, Any] = {}
            for name, member in value.items():
                if name in _MARKERS:
                    continue
                refers = name in {"tool_call_id", "tool_use_id", "call_id"}
                out[name] = (
                    rename(member) if refers or (is_call and name == "id") else walk(member, name)
                )
            return out
        if isinstance(value, list):
            return [walk(v, key) for v in value]
        if isinstance(value, str) and key in {"content", "system"}:
            return [{"type": "text", "text": value}]
        if isinstance(value, float) and value.is_integer():
            return int(value)
        return value

    kept = {k: walk(v, k) for k, v in body.items() if k not in _BOOKKEEPING | _MARKERS}
    return blake3(orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)).digest()


def count(value: Any) -> int:
    """Prompt tokens: of all text in a request's `messages`, `system` and `tools`."""
    if isinstance(value, str):
        return len(tokens(value))
    if isinstance(value, dict):
        if value.get("type") == "text":
            return count(value.get("text"))
        skip = _MARKERS | {"id", "tool_call_id", "tool_use_id", "call_id", "type"}
        return 3 + sum(count(v) for k, v in value.items() if k not in skip)
    return sum(count(v) for v in value) if isinstance(value, list) else 1


def compose(query: Query, choice: int = 0) -> Outcome:
    """The answer; `choice` numbers the alternatives of `n > 1`."""
    seed = int.from_bytes(blake3(query.digest + bytes([choice])).digest(6), "big")
    asked = query.directives
    if "refuse" in asked:
        return Outcome("I'm sorry, but I can't help with that.", Ending.REFUSED)
    if "filter" in asked:
        return Outcome("The beginning of something", Ending.FILTERED)
    if "empty" in asked:
        return Outcome("", Ending.STOP)
    if query.tools and (query.forced or ("weather" in query.question and not query.has_results)):
        return _call_tools(query, seed)
    if query.schema is not None:
        text = orjson.dumps(instance(query.schema, seed)).decode()
    elif query.json_mode:
        text = orjson.dumps({"answer": _prose(query, seed)}).decode()
    else:
        text = _prose(query, seed)
    return _end(text, query, Ending.PAUSED if "pause" in asked else Ending.STOP)


def _call_tools(query: Query, seed: int) -> Outcome:
    lowered = query.question.casefold()
    wanted = max((n for word, n in _COUNTS.items() if word in lowered), default=1)
    named = [t for t in query.tools if t.name in query.question] or list(query.tools)
    calls = tuple(
        (tool.name, instance(tool.schema, seed + i))
        for i in range(wanted if query.parallel else 1)
        for tool in [named[i % len(named)]]
    )
    return Outcome("", Ending.TOOLS, calls)


def _prose(query: Query, seed: int) -> str:
    about = " ".join(query.question.split()[:8]) or "nothing"
    looked = f" I looked at {query.images} image(s)." if query.images else ""
    used = " The tool told me so." if query.has_results else ""
    length = query.length or 18
    words: list[str] = []
    size = 0
    while size < length:
        seed, index = divmod(seed * 31 + 17 * len(words) + 5, len(WORDS))
        seed %= 1 << 48
        words.append(WORDS[index])
        size += len(tokens(words[-1]))
    mark = query.digest.hex()[:8]
    return f'You asked "{about}".{looked}{used}\n{" ".join(words)} ({mark}).'


def _end(text: str, query: Query, ending: Ending) -> Outcome:
    """Cut at the first stop sequence, then at the token limit, whichever comes first."""
    found = [(text.index(s), s) for s in query.stops if s and s in text]
    stop_sequence = None
    if found:
        at, stop_sequence = min(found)
        text, ending = text[:at], Ending.STOP_SEQUENCE
    all_tokens = tokens(text)
    if query.max_tokens is not None and len(all_tokens) > query.max_tokens:
        return Outcome("".join(all_tokens[: query.max_tokens]), Ending.LENGTH)
    return Outcome(text, ending, stop_sequence=stop_sequence)

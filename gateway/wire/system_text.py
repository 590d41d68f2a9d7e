"""What leads a request, as far as rewrites depend on it: its system texts, how its conversation
begins, and whether anything in it may be bound to them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from gateway.wire import prompts
from gateway.wire.block_parts import text_of
from gateway.wire.envelope import THOUGHT
from gateway.wire.lenient import items, members, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.canonical import Json
    from gateway.core.prefix import Path

Object = prompts.Object

APIS = frozenset({prompts.MESSAGES, prompts.CHAT, prompts.RESPONSES})
"""Wire APIs whose requests have a system text."""

SYSTEM_ROLES = frozenset({"system", "developer"})


class SystemText(NamedTuple):
    """One text that stands before the conversation."""

    path: Path
    """Of the string itself: `("system", 0, "text")`."""
    text: str


class Lead(NamedTuple):
    """What leads a request."""

    texts: tuple[SystemText, ...]
    opening: str
    """Text of the first user message; empty for one without."""
    is_first_turn: bool
    """The model has said nothing yet."""


def turns(api: str, document: Object) -> list[Json]:
    """The items that messages are among."""
    return items(document.get("input" if api == prompts.RESPONSES else "messages"))


def read_lead(api: str, document: Object) -> Lead:
    """What leads a request of one of APIS."""
    said = turns(api, document)
    first = next((m for each in said if (m := members(each)).get("role") == "user"), None)
    opening = text_of(first.get("content")) if first is not None else text(document.get("input"))
    spoke = any(_is_answer(members(each)) for each in said)
    return Lead(tuple(_texts(api, document)), opening, not spoke)


def _is_answer(item: Object) -> bool:
    return item.get("role") == "assistant" or text(item.get("type")).endswith("_call")


def _texts(api: str, document: Object) -> Iterator[SystemText]:
    if api == prompts.MESSAGES:
        yield from _of_content(("system",), document.get("system"))
        return
    if api == prompts.RESPONSES:
        yield from _of_content(("instructions",), document.get("instructions"))
    name = "input" if api == prompts.RESPONSES else "messages"
    for index, item in enumerate(items(document.get(name))):
        # A system message later on belongs to the conversation.
        if not isinstance(item, dict) or text(item.get("role")) not in SYSTEM_ROLES:
            return
        yield from _of_content((name, index, "content"), item.get("content"))


def _of_content(path: Path, content: Json) -> Iterator[SystemText]:
    if isinstance(content, str):
        yield SystemText(path, content)
        return
    for index, part in enumerate(items(content)):
        if isinstance(part, dict) and isinstance(said := part.get("text"), str):
            yield SystemText((*path, index, "text"), said)


def thinks(api: str, document: Object) -> bool:
    """Does it ask for thinking, or carry thinking or anything signed or encrypted? What tools take
    and give is looked into only as far as a provider puts signatures there.
    """
    thinking = document.get("thinking")
    if thinking is not None and members(thinking).get("type") != "disabled":
        return True
    for name in ("reasoning", "reasoning_effort"):
        asked = document.get(name)
        effort = asked.get("effort") if isinstance(asked, dict) else asked
        if asked is not None and effort is not False and text(effort) not in _NO_EFFORT:
            return True
    if any("encrypted" in text(each) for each in items(document.get("include"))):
        return True
    return any(_is_bound(each, 3) for each in turns(api, document) if isinstance(each, dict))


_NO_EFFORT = frozenset({"none", "minimal"})
_CARRIED = frozenset(
    {"content", "summary", "reasoning_details", "extra_content", "tool_calls", "output"}
)
_LONGEST_NAME = 64


def _is_bound(item: Object, depth: int) -> bool:
    kind = item.get("type")
    if isinstance(kind, str) and _speaks_of_it(kind):
        return True
    for name, value in item.items():
        if value and _speaks_of_it(name):
            return True
        if depth and name in _CARRIED and isinstance(value, list):
            for each in value:
                if isinstance(each, dict) and _is_bound(each, depth - 1):
                    return True
    return False


def _speaks_of_it(name: str) -> bool:
    return _known_to(name) if len(name) <= _LONGEST_NAME else THOUGHT.search(name) is not None


# Messages have the same few names, over and over.
_known_to = lru_cache(512)(lambda name: THOUGHT.search(name) is not None)

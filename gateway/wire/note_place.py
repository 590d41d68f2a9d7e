"""Where a note is said: behind all that the request says, in the last message that isn't the
model's.

Rule 1: the text before the note stays as it will be in the next turn, which is sent without it: so
the prefix up to there is read again. Where the provider takes markers the note is a part of its
own, so that a marker can stand before it; elsewhere it follows in the same text.
Rule 2: never behind an answer that the client has begun for the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from gateway.core.blocks import Section
from gateway.core.volatile_text import Replacement
from gateway.wire import prompts
from gateway.wire.lenient import members, text
from gateway.wire.splice import Edit
from gateway.wire.splicing import respelled
from gateway.wire.system_text import turns

if TYPE_CHECKING:
    from gateway.core.canonical import Json
    from gateway.core.prefix import CachePrompt, Path
    from gateway.wire.splicing import Located

_LISTENERS = frozenset({"user", "tool", "function"})
_RESULT = "function_call_output"
_GAP = "\n\n"


def note_path(api: str, document: prompts.Object) -> Path | None:
    """The content (a string, or a list of parts) that the note goes to the end of; None where
    nobody but the model speaks.
    """
    name = "input" if api == prompts.RESPONSES else "messages"
    if isinstance(document.get(name), str):
        return (name,)
    said = turns(api, document)
    for index in range(len(said) - 1, -1, -1):
        item = members(said[index])
        member = "output" if item.get("type") == _RESULT else "content"
        if (member == "output" or text(item.get("role")) in _LISTENERS) and _is_open(
            item.get(member)
        ):
            return (name, index, member)
    return None


def _is_open(content: Json) -> bool:
    return isinstance(content, list) or (isinstance(content, str) and bool(content.strip()))


def note_edit(
    located: Located, path: Path, note: str, *, in_parts: bool
) -> tuple[Edit, Path | None]:
    """The change that says it there, and the path of the part that it will be; None where it is no
    part of its own. `in_parts`: a text of a message becomes a list of two.
    """
    content = located.part(path)
    spelled = located.spelled(content)
    kind = "input_text" if path[0] == "input" else "text"
    if spelled[:1] == b"[":
        parts = located.parts(content)
        end = parts[-1].end if parts else content.value + 1
        new = (b"," if parts else b"") + _part(kind, note)
        return Edit(end, end, new), (*path, len(parts))
    if in_parts and path[-1] == "content":
        first = b'{"type":"%b","text":%b}' % (kind.encode(), spelled)
        new = b"[%b,%b]" % (first, _part(kind, note))
        return Edit(content.value, content.end, new), (*path, 1)
    length = len(orjson.loads(spelled))
    new = respelled(spelled, [Replacement(length, length, _GAP + note)])
    return Edit(content.value, content.end, new), None


def unmarked_from(prompt: CachePrompt, path: Path) -> CachePrompt:
    """The prompt without a place for a marker from the note on, which the next turn won't have."""
    first = next((n for n, block in enumerate(prompt.blocks) if block.path == path), None)
    if first is None:
        return prompt
    before = list(prompt.blocks[:first])
    if before and before[-1].section is Section.MESSAGES:
        # So it will in the next turn, by which a conversation is known again.
        before[-1] = before[-1]._replace(ends_message=True)
    behind = (block._replace(can_mark=False) for block in prompt.blocks[first:])
    return prompt._replace(blocks=(*before, *behind))


def _part(kind: str, text: str) -> bytes:
    return orjson.dumps({"type": kind, "text": text})

"""What changed in the tools from one request to another: order, spelling, text, presence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.alignment import shared_start
from gateway.core.blocks import BYTES_PER_TOKEN, Block, Prompt
from gateway.core.difference import Change, folded, kind_of, narrowed, size, words
from gateway.core.findings import Shape, What, change

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.volatile import Sighting

# How much of their tools two requests must share to be of one origin.
_ONE_ORIGIN = 0.5
_LEAST_BYTES = 16 * BYTES_PER_TOKEN


def tool_changes(
    left: Prompt,
    right: Prompt,
    rest: int,
    in_conversation: bool,
    find: Callable[[str], list[Sighting]],
) -> list[Change]:
    """The costly changes in the tools; `rest` bytes behind the tools are the same in both."""
    old = {tool.name: tool for tool in left.tools()}
    new = {tool.name: tool for tool in right.tools()}
    shared_names = [name for name in new if name in old]
    if not shared_names or len(shared_names) < _ONE_ORIGIN * max(len(old), len(new)):
        return []
    same = {name for name in shared_names if new[name].text == old[name].text}
    found: list[Change] = []

    def report(what: What, tool: Block, path: str, excerpt: str) -> None:
        names = list(new)
        at = names.index(tool.name) if tool.name in new else len(names)
        behind = [name for name in names[at + 1 :] if name in same]
        lost = rest + sum(size(new[name].text) for name in behind)
        if what in {Shape.TOOL_ORDER, Shape.SCHEMA_ORDER}:
            lost += size(tool.text)
        if lost >= _LEAST_BYTES:
            tokens = lost // BYTES_PER_TOKEN
            found.append(Change(what, path, excerpt, tokens, in_conversation))

    old_order = [name for name in old if name in new]
    if old_order != shared_names:
        first = next(
            n for n, (a, b) in enumerate(zip(old_order, shared_names, strict=True)) if a != b
        )
        tool = new[shared_names[first]]
        report(Shape.TOOL_ORDER, tool, tool.path, change(old_order[first], shared_names[first]))
    for name in shared_names:
        if name not in same:
            report(*_tool_change(old[name], new[name], find))
    odd = [n for n in new if n not in old] + [n for n in old if n not in new]
    if odd:
        tool = new.get(odd[0]) or old[odd[0]]
        sides = ("", odd[0]) if odd[0] in new else (odd[0], "")
        path = tool.path if odd[0] in new else "$.tools"
        report(Shape.TOOLS_CHANGED, tool, path, change(*sides))
    return found


def _tool_change(
    old: Block, new: Block, find: Callable[[str], list[Sighting]]
) -> tuple[What, Block, str, str]:
    if folded(old.text) == folded(new.text):
        start = max(0, shared_start(old.text, new.text) - 12)
        excerpt = change(old.text[start:], new.text[start:])
        return Shape.SCHEMA_ORDER, new, new.path, excerpt
    old_leaves = dict(old.leaves)
    for path, text in new.leaves:
        before = old_leaves.get(path)
        if before is not None and before != text:
            sides = narrowed(before, text)
            what = kind_of(sides[1], find) or kind_of(sides[0], find) or Shape.CHANGING_TEXT
            return what, new, path, change(*map(words, sides))
    start = max(0, shared_start(old.text, new.text) - 12)
    return Shape.CHANGING_TEXT, new, new.path, change(old.text[start:], new.text[start:])

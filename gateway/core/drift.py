"""What changed from one request to another that is the same again behind it: `changes`.

Rule 1: a change costs only what recurs behind it. A new message at the end, another user's
question, another conversation cost nothing.
Rule 2: in tools and system every change counts, if the two prompts have most of these in common.
In messages only one conversation's own history does, and templates: an opening message in which
stable text stands behind what changes.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.alignment import Gap, gaps
from gateway.core.blocks import BYTES_PER_TOKEN, Block, Prompt, Section
from gateway.core.difference import Change, Side, folded, kind_of, narrowed, size, words
from gateway.core.findings import Shape, What, change
from gateway.core.tool_drift import tool_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.volatile import Sighting

# Of tools and system, how much two prompts must share to be of one origin.
_ONE_ORIGIN = 0.5
# Of the messages of an earlier turn, how much a later turn must hold to be of one conversation.
_ONE_CONVERSATION = 0.7
_LEAST_BYTES = 16 * BYTES_PER_TOKEN
# Stock phrases and repeated tool results recur by chance; this much in a row doesn't.
_LEAST_MESSAGE_BYTES = 64 * BYTES_PER_TOKEN


_SYSTEM = frozenset({Section.SYSTEM})
_ALL = frozenset({Section.SYSTEM, Section.MESSAGES})


class _Piece(NamedTuple):
    """A line or sentence of a block."""

    block: int
    start: int
    text: str


class _Difference(NamedTuple):
    """A gap between two prompts, narrowed to the characters that differ."""

    left: _Piece | None
    """Where the gap begins, in the earlier prompt; None at its end."""
    right: _Piece | None
    before: str
    after: str
    tail: int
    """Bytes that are equal at the end of the gap."""


def changes(
    left: Prompt, right: Prompt, covered: int, find: Callable[[str], list[Sighting]]
) -> list[Change]:
    """The costly changes from an earlier request to a later one, in rendering order.

    `covered` counts the leading blocks of the later one that some earlier request had just so: a
    cache may hold them, and changes among them cost nothing. `find` tells volatile text.
    """
    old, new = _pieces(left), _pieces(right)
    found = gaps([piece.text for piece in old], [piece.text for piece in new])
    differences = [_difference(old, new, gap) for gap in found]
    ends = [0, *(gap.right_end for gap in found)]
    starts = [*(gap.right_start for gap in found), len(new)]
    same = [new[end:start] for end, start in zip(ends, starts, strict=True)]
    continued = bool(found) and found[-1].left_start == len(old)
    alike = _Likeness(left, right, same, differences, continued=continued)

    told: list[Change] = []
    if covered < len(right.tools()):
        told += tool_changes(left, right, alike.recurring(), alike.one_conversation, find)
    for number, difference in enumerate(differences):
        place = _place(left, right, difference)
        if place is None or place.number < covered:
            continue
        lost = alike.lost(number, place.block)
        if lost is not None:
            what, excerpt = _describe(left, right, difference, alike, find)
            tokens = lost // BYTES_PER_TOKEN
            told.append(Change(what, place.block.path, excerpt, tokens, alike.one_conversation))
    return told


_SENTENCE = re.compile(r"(?<=\n)|(?<=[.;:] )")


def _pieces(prompt: Prompt) -> list[_Piece]:
    """System and messages in lines and sentences; JSON and media blocks are one piece each."""
    found: list[_Piece] = []
    for number, block in enumerate(prompt.blocks):
        if block.section is Section.TOOLS:
            continue
        if block.is_json:
            found.append(_Piece(number, 0, block.text))
            continue
        start = 0
        for text in _SENTENCE.split(block.text):
            if text:
                found.append(_Piece(number, start, text))
                start += len(text)
    return found


class _Place(NamedTuple):
    number: int
    block: Block


def _place(left: Prompt, right: Prompt, difference: _Difference) -> _Place | None:
    if difference.right is not None:
        return _Place(difference.right.block, right.blocks[difference.right.block])
    if difference.left is not None:
        return _Place(len(right.blocks), left.blocks[difference.left.block])
    return None


def _difference(old: Sequence[_Piece], new: Sequence[_Piece], gap: Gap) -> _Difference:
    left, right = old[gap.left_start : gap.left_end], new[gap.right_start : gap.right_end]
    before = "".join(piece.text for piece in left)
    after = "".join(piece.text for piece in right)
    changed = narrowed(before, after)[1]
    in_one_block = _is_one_block(left) and _is_one_block(right)
    return _Difference(
        old[gap.left_start] if gap.left_start < len(old) else None,
        new[gap.right_start] if gap.right_start < len(new) else None,
        before,
        after,
        size(after[changed.end :]) if in_one_block else 0,
    )


def _is_one_block(pieces: Sequence[_Piece]) -> bool:
    return not pieces or pieces[0].block == pieces[-1].block


class _Likeness:
    """How much two prompts have in common, and what of it stands behind each difference.

    `same[0]` is equal in front of the first difference, `same[n + 1]` behind difference n.
    """

    def __init__(
        self,
        left: Prompt,
        right: Prompt,
        same: Sequence[Sequence[_Piece]],
        differences: Sequence[_Difference],
        *,
        continued: bool,
    ) -> None:
        self._left = left
        self._right = right
        self._same = same
        self._differences = differences
        old_tools = {tool.text for tool in left.tools()}
        shared = sum(size(tool.text) for tool in right.tools() if tool.text in old_tools)
        shared += sum(self._size_in(pieces, _SYSTEM) for pieces in same)
        shared += sum(difference.tail for difference in differences)
        whole = max(_shared_bytes(left), _shared_bytes(right))
        self.one_origin = shared >= _ONE_ORIGIN * whole > 0
        messages = sum(size(b.text) for b in left.blocks if b.section is Section.MESSAGES)
        self._opening = {block.path for block in right.opening()}
        in_messages = [p for pieces in same for p in pieces if self._section(p) is Section.MESSAGES]
        recurring = sum(size(piece.text) for piece in in_messages)
        is_going_on = (
            continued and any(map(self._is_history, in_messages)) and _most_recur(left, right)
        )
        self.one_conversation = messages > 0 and (recurring >= messages or is_going_on)

    def _section(self, piece: _Piece) -> Section:
        return self._right.blocks[piece.block].section

    def _size_in(self, pieces: Sequence[_Piece], sections: frozenset[Section]) -> int:
        return sum(size(piece.text) for piece in pieces if self._section(piece) in sections)

    def recurring(self) -> int:
        """Bytes behind the tools that both have, in places that the two share."""
        return sum(self._size_in(pieces, self._sections()) for pieces in self._same)

    def _sections(self) -> frozenset[Section]:
        return _ALL if self.one_conversation else _SYSTEM

    def lost(self, number: int, block: Block) -> int | None:
        """Bytes that recur behind a difference, up to the next one; None if they cost nothing."""
        tail = self._differences[number].tail
        behind = self._same[number + 1]
        if block.section is not Section.MESSAGES:
            lost = tail + self._size_in(behind, self._sections())
            return lost if self.one_origin and lost >= _LEAST_BYTES else None
        if self.one_conversation and any(map(self._is_history, chain(*self._same[number + 1 :]))):
            if _is_reworded(self._left, self._right, self._differences[number], block):
                return None
            lost = tail + sum(size(p.text) for p in behind)
            return lost if lost >= _LEAST_MESSAGE_BYTES else None
        return self._lost_of_template(number, block)

    def _is_history(self, piece: _Piece) -> bool:
        """Whether it stands behind the opening: somebody answered."""
        block = self._right.blocks[piece.block]
        return block.section is Section.MESSAGES and block.path not in self._opening

    def _lost_of_template(self, number: int, block: Block) -> int | None:
        difference = self._differences[number]
        # Another filling of one template; a block more or less is another template.
        if block.path not in self._opening or not (difference.before and difference.after):
            return None
        in_opening = [
            piece
            for piece in self._same[number + 1]
            if self._right.blocks[piece.block].path in self._opening
        ]
        lost = difference.tail + sum(size(p.text) for p in in_opening)
        return lost if lost >= _LEAST_MESSAGE_BYTES else None


def _most_recur(left: Prompt, right: Prompt) -> bool:
    """Whether most messages of an earlier request are in a later one, by number or by size.

    A later turn goes on behind the last words of the earlier one and holds most of it. Another
    conversation may share many of its words, but hardly these.
    """
    old = [block for block in left.blocks if block.section is Section.MESSAGES]
    new = {block.text for block in right.blocks if block.section is Section.MESSAGES}
    kept = [block for block in old if block.text in new]
    sizes = sum(size(block.text) for block in kept), sum(size(block.text) for block in old)
    return len(kept) >= _ONE_CONVERSATION * len(old) or sizes[0] >= _ONE_CONVERSATION * sizes[1]


def _is_reworded(left: Prompt, right: Prompt, difference: _Difference, block: Block) -> bool:
    """Whether the model said it in other words: then it is another conversation's answer. A client
    that rewrites history cuts, trims or spells answers differently; it doesn't rephrase them.
    """
    old, new = difference.left, difference.right
    if block.role != "assistant" or block.is_json or old is None or new is None:
        return False
    sides = narrowed(left.blocks[old.block].text, right.blocks[new.block].text)
    return all(len(side.text[side.start : side.end].strip()) >= _REWORDED for side in sides)


_REWORDED = 24


def _describe(
    left: Prompt,
    right: Prompt,
    difference: _Difference,
    alike: _Likeness,
    find: Callable[[str], list[Sighting]],
) -> tuple[What, str]:
    before, after = difference.before, difference.after
    sides = narrowed(before, after)
    new = difference.right
    old = difference.left
    if new is not None and right.blocks[new.block].is_json:
        meaning = folded(after)
        if meaning is not None and meaning == folded(before):
            start = max(0, sides[0].start - 12)
            return Shape.RESERIALISED, change(before[start:], after[start:])
    excerpt = change(*map(words, sides))
    if after and new is not None:
        what = kind_of(_in_block(right, new, sides[1]), find)
        if what is not None:
            return what, excerpt
    if before and old is not None:
        what = kind_of(_in_block(left, old, sides[0]), find)
        if what is not None:
            return what, excerpt
    if alike.one_conversation:
        if new is not None and right.blocks[new.block].section is Section.MESSAGES:
            return Shape.HISTORY_REWRITTEN, excerpt
        if any(block.role == "assistant" for block in right.blocks):
            return Shape.SYSTEM_CHANGED, excerpt
    return Shape.CHANGING_TEXT, excerpt


def _in_block(prompt: Prompt, piece: _Piece, side: Side) -> Side:
    """The same place in the whole block: what stands before it may name it."""
    text = prompt.blocks[piece.block].text
    return Side(text, piece.start + side.start, min(len(text), piece.start + side.end))


def _shared_bytes(prompt: Prompt) -> int:
    return sum(size(b.text) for b in prompt.blocks if b.section is not Section.MESSAGES)

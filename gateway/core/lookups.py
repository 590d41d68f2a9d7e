"""Where a provider looks for what it has kept, from the markers of one request: `Lookups`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.blocks import Section
from gateway.core.prefix import Kind, positions
from gateway.providers.prompt_cache import MarkerForm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.prefix import PrefixBlock
    from gateway.providers.prompt_cache import CacheRules

_FIRST_MARKS, _LATEST_MARKS = 2, 50
"""Breakpoints at which OpenAI looks."""


class Lookups:
    """Of one request."""

    def __init__(
        self,
        blocks: Sequence[PrefixBlock],
        marks: Sequence[int],
        rules: CacheRules,
        *,
        implicit: bool,
    ) -> None:
        """`marks`: the blocks that carry any, in order. `implicit`: OpenAI's mode."""
        self._blocks = blocks
        self._marks = marks
        self._rules = rules
        self._implicit = implicit
        # Made when they are asked for: of most prompts nothing is kept that could be found.
        self._positions: list[int] | None = None
        self._places: set[int] | None = None

    def reach(self, block: int) -> bool:
        """Is an entry looked for at the end of that block?"""
        if self._rules.form is MarkerForm.NONE:
            return True
        if self._rules.form is MarkerForm.BREAKPOINT:
            if self._places is None:
                self._places = self._breakpoints()
            return block in self._places
        behind = [mark for mark in self._marks if mark >= block]
        far = self._rules.look_back
        if not far or not behind or behind[0] - block < far:
            return bool(behind)
        if self._positions is None:
            runs = self._rules.runs_count_once
            self._positions = positions(self._blocks, runs_count_once=runs)
        at = self._positions
        return at[behind[0]] - at[block] < far

    def _breakpoints(self) -> set[int]:
        places = {*self._marks[:_FIRST_MARKS], *self._marks[-_LATEST_MARKS:]}
        if self._implicit:
            places |= _looked_by_itself(self._blocks, self._rules.implicit_look_back)
        return places


def _looked_by_itself(blocks: Sequence[PrefixBlock], look_back: int) -> set[int]:
    """Blocks at which OpenAI's implicit mode looks: the end of the first system messages, of each
    user message and of each group of tool results, of all but the last so many.
    """
    found = endings(blocks)
    if not found:
        return set()
    places = {found[-1], *(found[:-1][-look_back:] if look_back else ())}
    if blocks[found[0]].section is Section.SYSTEM:
        places.add(found[0])
    return places


def endings(blocks: Sequence[PrefixBlock]) -> list[int]:
    """Blocks behind which OpenAI's implicit mode may write: the last one is where it does."""
    found: list[int] = []
    system, messages, result = Section.SYSTEM, Section.MESSAGES, Kind.TOOL_RESULT
    after: PrefixBlock | None = None
    for at in range(len(blocks) - 1, -1, -1):
        block = blocks[at]
        if block.section is messages:
            if block.ends_message and (
                block.role == "user"
                or (block.kind is result and (after is None or after.kind is not result))
            ):
                found.append(at)
        elif block.section is system and (after is None or after.section is not system):
            found.append(at)
        after = block
    found.reverse()
    return found


def last_ending(blocks: Sequence[PrefixBlock]) -> int:
    """Where it does; -1: nowhere."""
    for at in range(len(blocks) - 1, -1, -1):
        # (Whether it is one depends on the next.)
        if 0 in endings(blocks[at : at + 2]):
            return at
    return -1

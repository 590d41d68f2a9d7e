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
        self._positions: list[int] | None = None
        self._places: set[int] | None = None
        if rules.form is MarkerForm.BREAKPOINT:
            self._places = {*marks[:_FIRST_MARKS], *marks[-_LATEST_MARKS:]}
            if implicit:
                self._places |= _looked_by_itself(blocks, rules.implicit_look_back)

    def reach(self, block: int) -> bool:
        """Is an entry looked for at the end of that block?"""
        if self._rules.form is MarkerForm.NONE:
            return True
        if self._places is not None:
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
    last = len(blocks) - 1
    for at, block in enumerate(blocks):
        after = blocks[at + 1] if at < last else None
        if block.section is Section.SYSTEM:
            if after is None or after.section is not Section.SYSTEM:
                found.append(at)
        elif block.section is Section.MESSAGES and block.ends_message:
            is_result = block.kind is Kind.TOOL_RESULT
            closes = after is None or after.kind is not Kind.TOOL_RESULT
            if block.role == "user" or (is_result and closes):
                found.append(at)
    return found

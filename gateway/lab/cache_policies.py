"""What clients and gateways do about a prompt's cache without knowing any traffic: to compare with.

Each is a function of one prompt and the provider's rules, asks for the shortest lifetime, and
falls back to the block before where a marker is not taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.core.blocks import Section
from gateway.core.prefix import Kind
from gateway.providers.prompt_cache import MarkerForm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.prefix import CachePrompt, PrefixBlock
    from gateway.providers.prompt_cache import CacheRules

_TURNS = 3
"""Anchors of `rolling4` beside the one at the end of the system prompt."""


class Marking(NamedTuple):
    """What stands in a body about its cache."""

    marks: tuple[tuple[int, int], ...] = ()
    """Block and lifetime in seconds."""
    automatic_ttl: int = 0
    mode: str = ""
    key: str = ""
    """OpenAI's `prompt_cache_key`."""


def none(prompt: CachePrompt, rules: CacheRules) -> Marking:
    """No markers; where the provider would cache by itself, it is told not to."""
    del prompt
    return Marking(mode="explicit" if rules.form is MarkerForm.BREAKPOINT else "")


def system_last(prompt: CachePrompt, rules: CacheRules) -> Marking:
    """The end of the system prompt (or the tools) and the last block: what most clients do. Of
    OpenAI's the last one is the implicit one.
    """
    blocks = prompt.blocks
    found = _marking(rules, [_end_of_frozen(blocks), _markable(blocks, len(blocks) - 1)])
    return found._replace(mode="")


def automatic(prompt: CachePrompt, rules: CacheRules) -> Marking:
    """The provider's own choice: Anthropic's top-level marker, OpenAI's implicit mode."""
    del prompt
    if rules.automatic:
        return Marking(automatic_ttl=rules.lifetimes[0].ttl_s)
    return Marking()


def rolling4(prompt: CachePrompt, rules: CacheRules) -> Marking:
    """The end of the system prompt and of the last three turns that are not the model's."""
    blocks = prompt.blocks
    ends: list[int | None] = [_end_of_frozen(blocks)]
    taken = 0
    for index in range(len(blocks) - 1, -1, -1):
        if taken == _TURNS or blocks[index].section is not Section.MESSAGES:
            break
        if _ends_turn(blocks, index):
            ends.append(_markable(blocks, index))
            taken += 1
    return _marking(rules, ends)


POLICIES: dict[str, Callable[[CachePrompt, CacheRules], Marking]] = {
    "none": none,
    "system_last": system_last,
    "automatic": automatic,
    "rolling4": rolling4,
}
"""By the name that reports and the command line use."""


def _marking(rules: CacheRules, places: Sequence[int | None]) -> Marking:
    if not rules.takes_markers:
        return Marking()
    ttl_s = rules.lifetimes[0].ttl_s
    marks = sorted({place for place in places if place is not None})
    mode = "explicit" if rules.form is MarkerForm.BREAKPOINT else ""
    return Marking(tuple((place, ttl_s) for place in marks), mode=mode)


def _end_of_frozen(blocks: Sequence[PrefixBlock]) -> int | None:
    """The last block before the messages that takes a marker."""
    end = next(
        (i for i, block in enumerate(blocks) if block.section is Section.MESSAGES), len(blocks)
    )
    return _markable(blocks, end - 1)


def _markable(blocks: Sequence[PrefixBlock], index: int) -> int | None:
    while index >= 0 and (not blocks[index].can_mark or blocks[index].until):
        index -= 1
    return index if index >= 0 else None


def _ends_turn(blocks: Sequence[PrefixBlock], index: int) -> bool:
    """A user's message ends here, or the last of several tool results."""
    block = blocks[index]
    if not block.ends_message or block.role == "assistant":
        return False
    following = blocks[index + 1] if index + 1 < len(blocks) else None
    return following is None or not (
        block.role == "tool" and following.role == "tool" and following.kind is Kind.TOOL_RESULT
    )

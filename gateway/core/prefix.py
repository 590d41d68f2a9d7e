"""A prompt as a provider's cache sees it: a chain of blocks, each with the fingerprint of all up to
its end.

The linter's `core.blocks` keep the text, to point at it; these keep only what a cache compares,
and how much it is.
"""

from __future__ import annotations

from enum import StrEnum
from operator import itemgetter
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import xxhash

from gateway.core.blocks import Section

if TYPE_CHECKING:
    from collections.abc import Sequence

Path: TypeAlias = tuple[str | int, ...]
"""Members and indexes from the request's root: `("messages", 3, "content", 0)`."""


def shown(path: Path) -> str:
    """The path as people write it: `$.system[0].text`."""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


class Kind(StrEnum):
    """What a block is, as far as the rules of markers differ."""

    TOOL = "tool"
    TEXT = "text"
    MEDIA = "media"
    TOOL_USE = "tool_use"
    TOOL_RESULT = "tool_result"
    THINKING = "thinking"
    OTHER = "other"


class PrefixBlock(NamedTuple):
    """The smallest unit that a marker may follow, or a piece of one that may be split there."""

    section: Section
    kind: Kind
    role: str
    """Who says it, as the request spells it; of tools it is empty."""
    path: Path
    """The object that carries (or, split or not yet in list form, would carry) the marker: a tool,
    a content block; for text that stands as a bare string the member that holds it."""
    size: int
    """UTF-8 bytes of what is rendered; of media an estimate of what their tokens would take."""
    digest: int
    """xxh3-64 of what is rendered, role and kind included, markers left out."""
    can_mark: bool = True
    """The provider takes a marker here: no thinking, no blank text, no deferred tool, ..."""
    client_ttl_s: int = 0
    """Lifetime that the client's own marker here asks for; 0 without one."""
    ends_message: bool = False
    """The last block of its message."""
    until: int = 0
    """0 for a whole block or the last piece of a text; else this is a piece of the text at `path`,
    that ends before this character, and the next block is the next piece of it."""


# One field of many blocks: to map these takes a third of a comprehension's time.
SECTION, KIND, SIZE, DIGEST, CLIENT_TTL_S, UNTIL = (
    itemgetter(PrefixBlock._fields.index(name))
    for name in ("section", "kind", "size", "digest", "client_ttl_s", "until")
)


class CachePrompt(NamedTuple):
    """One request's prompt in rendering order: tools, system, messages."""

    api: str
    model: str
    blocks: tuple[PrefixBlock, ...]
    seed: int
    """Of everything outside the blocks that changes all of the prefix (model, schemas, ...)."""
    messages_seed: int
    """Of what changes only the part from the first message on (Anthropic: `tool_choice`, ...)."""
    thinks: bool = False
    """It carries thinking or encrypted reasoning, or asks for it: no rewrite may touch it."""
    automatic_ttl_s: int = 0
    """The client's top-level marker (Anthropic: `cache_control`); 0 without one."""
    client_mode: str = ""
    """The client's own `prompt_cache_options.mode`, if any."""
    client_key: str = ""
    """The client's own `prompt_cache_key`, if any."""
    text_only: bool = True
    """Every block's size is known from its text: no images, audio or files."""

    @property
    def marked_by_client(self) -> bool:
        """Has the client said anything about caching itself?"""
        return bool(self.automatic_ttl_s or self.client_mode or any(map(CLIENT_TTL_S, self.blocks)))


_PAIR = Struct("<QQ").pack


def joined(fingerprint: int, digest: int) -> int:
    """The fingerprint of what has the first one, and what has the other digest behind it."""
    return xxhash.xxh3_64_intdigest(_PAIR(fingerprint, digest))


def chain(prompt: CachePrompt) -> list[int]:
    """The fingerprint of the prefix that ends with each block: xxh3-64, chained."""
    fingerprint = prompt.seed
    found: list[int] = []
    messages = Section.MESSAGES
    begun = len(prompt.blocks)
    digest, pair = xxhash.xxh3_64_intdigest, _PAIR
    for index, block in enumerate(prompt.blocks):
        if block.section is messages:
            fingerprint = digest(pair(fingerprint, prompt.messages_seed))
            begun = index
            break
        fingerprint = digest(pair(fingerprint, block.digest))
        found.append(fingerprint)
    for block in prompt.blocks[begun:]:
        fingerprint = digest(pair(fingerprint, block.digest))
        found.append(fingerprint)
    return found


def positions(blocks: Sequence[PrefixBlock], *, runs_count_once: bool) -> list[int]:
    """The position of each block as a provider's look-back counts them, from 1 on.

    With `runs_count_once` a run of tool uses, or of tool results, is one position (Anthropic's API
    since 2026-09). A piece that is not split off has the position of its whole text.
    """
    found: list[int] = []
    position = 0
    last: Kind | None = None
    inside = 0
    use, result = Kind.TOOL_USE, Kind.TOOL_RESULT
    for block in blocks:
        kind = block.kind
        is_run = runs_count_once and kind is last and (kind is use or kind is result)
        if not is_run and not inside:
            position += 1
        found.append(position)
        last = kind
        inside = block.until
    return found

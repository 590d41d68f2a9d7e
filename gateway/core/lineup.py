"""A prompt as it is compared with others: the labels of its blocks, and what changes all of them."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

from xxhash import xxh3_64_intdigest

from gateway.core.blocks import Section
from gateway.core.prefix import DIGEST, KIND, SECTION, SIZE, UNTIL, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.prefix import CachePrompt

_UNSPLIT = 0x9E3779B97F4A7C15

KEY, MODEL, SEED, MESSAGES, BLOCK = range(5)
"""What comes before the blocks and changes all of them, or all messages; and a block itself."""


class Lineup(NamedTuple):
    """A new prompt as it is compared. Made once for each request: `lineup`."""

    labels: array[int]
    """Of each block; equal where the blocks are."""
    sizes: array[int]
    chain: Sequence[int]
    key: int
    """Fingerprint of what keeps caches of one owner apart: a `prompt_cache_key` that counts."""
    model: int
    seed: int
    messages_seed: int
    tools: int
    """Blocks of tools, which come first."""
    first: int
    """Index of the first block of the messages; as many as there are blocks without one."""
    images: bool = False
    """It has some, or other media: for Anthropic the first one changes all messages."""


def lineup(prompt: CachePrompt, chain: Sequence[int], key: str = "") -> Lineup:
    """Of a prompt, and `core.prefix.chain` of it."""
    blocks = prompt.blocks
    # A text that may be split there is another prompt than one that ends there.
    if any(map(UNTIL, blocks)):
        labels = array("Q", [b.digest ^ _UNSPLIT if b.until else b.digest for b in blocks])
    else:
        labels = array("Q", map(DIGEST, blocks))
    sizes = array("L", map(SIZE, blocks))
    tools = first = 0
    messages, of_tools = Section.MESSAGES, Section.TOOLS
    for section in map(SECTION, blocks):
        if section is messages:
            break
        first += 1
        tools += section is of_tools
    whose, model = xxh3_64_intdigest(key.encode()), xxh3_64_intdigest(prompt.model.encode())
    seeds = prompt.seed, prompt.messages_seed
    images = Kind.MEDIA in map(KIND, blocks)
    return Lineup(labels, sizes, chain, whose, model, *seeds, tools, first, images)


def parts_at(old: Lineup, new: Lineup, guess: int = -1) -> tuple[int, int]:
    """Which of `KEY`, ... differs first, and the block it stands before, or is. A right `guess` at that
    block makes it cheap.
    """
    for stage, was, now in (
        (KEY, old.key, new.key),
        (MODEL, old.model, new.model),
        (SEED, old.seed, new.seed),
    ):
        if was != now:
            return stage, 0
    low, high = 0, min(len(old.labels), len(new.labels))
    if (
        0 <= guess < high
        and old.labels[guess] != new.labels[guess]
        and old.labels[:guess] == new.labels[:guess]
    ):
        low = high = guess
    while low < high:
        middle = (low + high + 1) // 2
        if old.labels[low:middle] == new.labels[low:middle]:
            low = middle
        else:
            high = middle - 1
    if old.messages_seed != new.messages_seed and low >= new.first == old.first:
        return MESSAGES, new.first
    return BLOCK, low

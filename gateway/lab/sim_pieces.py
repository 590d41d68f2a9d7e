"""A prompt cut into what two of them are compared by: settings, blocks, and the sentences of texts."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import orjson

from gateway.core.blocks import Section
from gateway.lab.sim_seen import Piece

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from gateway.core.prefix import CachePrompt, PrefixBlock
    from gateway.lab.sim_prompt import Rendered

MODEL, KEY, SETTINGS, TOOL_CHOICE = "model", "cache_key", "settings", "tool_choice"
"""What a piece of no size is: it changes all that stands behind it."""

_UNSPLIT = "unsplit"
_GRAIN = re.compile(r"(?<=[.!?:;\n])\s+")


def of_prompt(prompt: CachePrompt, key: str) -> list[Piece]:
    """As the gateway's own reading of a request has its blocks, which are taken as they are."""
    first = next(
        (i for i, b in enumerate(prompt.blocks) if b.section is Section.MESSAGES),
        len(prompt.blocks),
    )
    pieces = _head(prompt.model, key)
    pieces.append(Piece((SETTINGS, prompt.seed), 0, 0))
    for index, block in enumerate(prompt.blocks):
        if index == first:
            pieces.append(Piece((TOOL_CHOICE, prompt.messages_seed), 0, index))
        pieces.append(Piece(_label(block), block.size, index))
    return pieces


def of_rendered(model: str, key: str, prompt: Rendered, body: dict[str, Any]) -> list[Piece]:
    """As the simulated provider reads the request itself; its long texts are cut at sentences."""
    pieces = _head(model, key)
    index, blocks = 0, prompt.blocks
    for section in Section:
        if section is Section.MESSAGES:
            pieces.append(Piece((TOOL_CHOICE, orjson.dumps(body.get("tool_choice"))), 0, index))
        pieces.append(Piece((SETTINGS, section, prompt.seeds[section]), 0, index))
        while index < len(blocks) and blocks[index].section is section:
            pieces += _grains(blocks[index], index, body)
            index += 1
    return pieces


def _head(model: str, key: str) -> list[Piece]:
    return [Piece((KEY, key), 0, 0), Piece((MODEL, model), 0, 0)]


def _label(block: PrefixBlock) -> Hashable:
    # A text that is split there is another prompt than one that isn't.
    return (_UNSPLIT, block.digest) if block.until else block.digest


def _grains(block: PrefixBlock, index: int, body: dict[str, Any]) -> Iterator[Piece]:
    text = _text(body, block.path)
    cuts = [found.end() for found in _GRAIN.finditer(text)] if text else []
    if not cuts or len(text.encode()) != block.size:
        yield Piece(block.digest, block.size, index)
        return
    for start, end in pairwise([0, *cuts, len(text)]):
        grain = text[start:end]
        if grain:
            yield Piece((block.section, block.role, grain), len(grain.encode()), index)


def _text(body: Any, path: Sequence[str | int]) -> str:
    """The text of the block that stands there; empty where it is none."""
    here = body
    for step in path:
        if isinstance(here, str):
            break
        here = here[step]
    if isinstance(here, dict):
        here = here.get("text")
    return here if isinstance(here, str) else ""

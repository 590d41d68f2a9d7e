"""From a request's body to its trail: the steps by which replicas' caches are compared.

Rule 1: what is rendered in front of everything (model, template arguments, salts) is in each print.
Rule 2: a step's print depends on nothing behind the step's end, and the whole prompt has steps: two
prompts share as many as they begin alike, wherever they part.
Rule 3: a step is a block (a tool, a message or a part of one); a long text is many, each of a fixed
length, so that prompts that share the first part of a text share its steps.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import xxhash

from gateway.core.blocks import BYTES_PER_TOKEN
from gateway.core.prefix import Kind, joined
from gateway.core.trail import Trail
from gateway.wire import anthropic_messages_blocks, openai_chat_blocks, openai_responses_blocks
from gateway.wire.base import NotUnderstood
from gateway.wire.block_parts import fingerprint_of, seed
from gateway.wire.prompt_blocks import cache_prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.canonical import Json
    from gateway.core.prefix import Path, PrefixBlock

PIECE_BYTES = 2048
LONG_BYTES = 2 * PIECE_BYTES
"""A text of more bytes is cut into pieces."""
OPEN_PIECE_BYTES = 1024
"""Of a text that has no messages: its conversations go on anywhere."""
OPEN_PIECE_TOKENS = OPEN_PIECE_BYTES // BYTES_PER_TOKEN

MANY_STEPS = 2048
"""Of a prompt with more, the later steps are taken together: two by two up to twice as many, then
four by four, ... always the same ones, however long the prompt is."""

COMPLETIONS = "openai_completions"
CHATS = frozenset(
    (anthropic_messages_blocks.API, openai_chat_blocks.API, openai_responses_blocks.API)
)

# What engines render in front of the messages, compute with, or keep caches apart by.
_RENDERED_FIRST = (
    "model",
    "cache_salt",
    "extra_key",
    "lora_path",
    "lora",
    "chat_template",
    "chat_template_kwargs",
    "documents",
    "functions",
    "reasoning_effort",
    "reasoning",
    "add_special_tokens",
    "mm_processor_kwargs",
    # Of the Responses API: what the server keeps comes before what is sent.
    "previous_response_id",
    "conversation",
    "prompt",
)
_COMPLETIONS_FIRST = tuple(name for name in _RENDERED_FIRST if name != "prompt")

_digest = xxhash.xxh3_64_intdigest
_TEXTS = frozenset({Kind.TEXT, Kind.TOOL_RESULT, Kind.THINKING})


def trail(api: str, document: Json, seed: bytes = b"") -> Trail:
    """The trail of a request to this wire API; without steps where no prompt can be read.

    `document` is the parsed body; `seed` is whatever else keeps caches apart. Tokens are estimated
    by the bytes of what is rendered, or counted where the prompt comes as tokens.
    """
    if not isinstance(document, dict):
        return Trail()
    start = _digest(seed)
    if api == COMPLETIONS:
        return _of_completion(document, fingerprint_of(document, _COMPLETIONS_FIRST, start))
    if api not in CHATS:
        return Trail()
    try:
        prompt = cache_prompt(api, document, None)
    except NotUnderstood:
        return Trail()
    pieces = {
        block.digest: pieces_of(block, document, block.path)
        for block in prompt.blocks
        if block.size > LONG_BYTES
    }
    return of_blocks(prompt.blocks, pieces, first_print(document, seed))


def first_print(document: dict[str, Json], apart: bytes) -> int:
    """What every print of a prompt with messages is chained to."""
    return fingerprint_of(document, _RENDERED_FIRST, _digest(apart))


def pieces_of(block: PrefixBlock, document: Json, path: Path) -> tuple[int, ...]:
    """The digests of a long text's pieces but the last; empty for what is no text. `path` is where it
    stands in the document.
    """
    if block.kind not in _TEXTS:
        return ()
    shown = _text_at(document, path)
    data = b"" if shown is None else shown.encode()
    if len(data) != block.size:
        # Not this was rendered, or not as it stands there.
        return ()
    first = seed(block.role, block.kind)
    return tuple(
        _digest(data[at : at + PIECE_BYTES], first)
        for at in range(0, len(data) - PIECE_BYTES, PIECE_BYTES)
    )


def of_blocks(
    blocks: Sequence[PrefixBlock], pieces: dict[int, tuple[int, ...]], start: int
) -> Trail:
    """The trail of a prompt whose long texts have these pieces, chained to `start`."""
    prints: list[int] = []
    ends: list[int] = []
    at = start
    size = 0
    for block in blocks:
        if block.size > LONG_BYTES and (cut := pieces.get(block.digest)):
            inside = size
            for piece in cut:
                inside += PIECE_BYTES
                at = joined(at, piece)
                prints.append(at)
                ends.append(inside // BYTES_PER_TOKEN)
        size += block.size
        # (Of a text in pieces, too: its digest holds what its message has beside the text.)
        at = joined(at, block.digest)
        prints.append(at)
        ends.append(size // BYTES_PER_TOKEN)
    return _made(prints, ends)


def _text_at(document: Json, path: Path) -> str | None:
    found = document
    for step in path:
        # (Where the path was read, there it leads.)
        found = found[step]  # type: ignore[index]
    if isinstance(found, dict):
        found = found.get("text", found.get("output"))
    return found if isinstance(found, str) else None


# --- texts without messages -----------------------------------------------------------------------


def _of_completion(document: dict[str, Json], start: int) -> Trail:
    """Of a prompt that is a text or a list of tokens; several of them stand one behind the other."""
    asked = document.get("prompt")
    prompts = asked if isinstance(asked, list) and asked and _are_prompts(asked) else [asked]
    prints: list[int] = []
    ends: list[int] = []
    at, tokens = start, 0
    for prompt in prompts:
        if isinstance(prompt, str):
            data, width = prompt.encode(), BYTES_PER_TOKEN
        elif isinstance(prompt, list):
            try:
                data, width = struct.pack(f"<{len(prompt)}q", *prompt), 8
            except struct.error:
                return Trail()
        else:
            return Trail()
        long = OPEN_PIECE_TOKENS * width
        for begin in range(0, len(data), long):
            piece = data[begin : begin + long]
            at = joined(at, _digest(piece, width))
            prints.append(at)
            ends.append(tokens + min(begin + long, len(data)) // width)
        tokens = ends[-1] if ends else 0
    return _made(prints, ends, is_open=True)


def _are_prompts(asked: list[Json]) -> bool:
    return isinstance(asked[0], str | list)


def _made(prints: list[int], ends: list[int], *, is_open: bool = False) -> Trail:
    if len(prints) <= MANY_STEPS:
        return Trail(tuple(prints), tuple(ends), is_open)
    kept = list(range(MANY_STEPS))
    begin, together = MANY_STEPS, 2
    while begin < len(prints):
        kept += range(begin + together - 1, min(2 * begin, len(prints)), together)
        begin, together = 2 * begin, 2 * together
    if kept[-1] != len(prints) - 1:
        kept.append(len(prints) - 1)
    return Trail(tuple([prints[n] for n in kept]), tuple([ends[n] for n in kept]), is_open)

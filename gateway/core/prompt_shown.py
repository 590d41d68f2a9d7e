"""A prompt as it is shown to who asks what becomes of it: plain JSON values, no content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.blocks import BYTES_PER_TOKEN
from gateway.core.prefix import chain, shown

if TYPE_CHECKING:
    from gateway.core.prefix import CachePrompt

MOST_SHOWN = 2000


def prompt_shown(prompt: CachePrompt) -> dict[str, Any]:
    """Its blocks, as many as are shown, with estimated tokens and the fingerprint up to each end."""
    blocks: list[dict[str, Any]] = []
    size = 0
    for block, fingerprint in zip(prompt.blocks, chain(prompt), strict=True):
        size += block.size
        if len(blocks) < MOST_SHOWN:
            blocks.append(
                {
                    "path": shown(block.path),
                    "until_character": block.until or None,
                    "section": block.section.value,
                    "kind": block.kind.value,
                    "role": block.role,
                    "tokens": block.size // BYTES_PER_TOKEN,
                    "tokens_to_here": size // BYTES_PER_TOKEN,
                    "fingerprint": f"{fingerprint:016x}",
                    "can_mark": block.can_mark,
                    "client_ttl_s": block.client_ttl_s or None,
                }
            )
    return {
        "tokens": size // BYTES_PER_TOKEN,
        "thinks": prompt.thinks,
        "blocks": blocks,
        "blocks_left_out": len(prompt.blocks) - len(blocks),
    }

"""Coding entries without holding the event loop: what is long is done in a thread."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.store import codec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.model import Entry


async def encoded(entry: Entry, key: bytes) -> bytes:
    """The entry as one blob."""
    if len(entry.payload) <= codec.LONG_BYTES:
        return codec.encode(entry, key)
    return await asyncio.to_thread(codec.encode, entry, key)


async def decoded(
    blobs: Mapping[bytes, bytes], limit_bytes: int
) -> tuple[dict[bytes, Entry], list[bytes]]:
    """The sound entries by key, each payload at most `limit_bytes`; and the keys of the others."""
    if sum(map(codec.payload_size, blobs.values())) <= codec.LONG_BYTES:
        return _decode(blobs, limit_bytes)
    return await asyncio.to_thread(_decode, blobs, limit_bytes)


def _decode(
    blobs: Mapping[bytes, bytes], limit_bytes: int
) -> tuple[dict[bytes, Entry], list[bytes]]:
    entries: dict[bytes, Entry] = {}
    damaged: list[bytes] = []
    for key, blob in blobs.items():
        try:
            entries[key] = codec.decode(blob, key, limit_bytes)
        except codec.Damaged:
            damaged.append(key)
    return entries, damaged

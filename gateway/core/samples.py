"""Several answers per key: the first N calls fetch, later ones get one of the N.

Self-consistency and best-of-n code asks the same question again *because* it wants another answer;
one cached answer would quietly turn N votes into one. Each of the N answers lies in a slot with a
key of its own; slot 0 is the identity itself, so that N = 1 is the ordinary cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from gateway.core.identity import digest

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST = 20
"""Slots of one key at most: a lookup asks for all of them in one round trip."""

T = TypeVar("T")


def wanted(header: str | None, configured: int) -> int:
    """How many answers a request wants: its header, else the config; within 1 to `MOST`."""
    text = (header or "").strip()
    count = int(text[:6]) if text.isascii() and text.isdigit() else configured
    return max(1, min(MOST, count))


def slot_key(key: bytes, slot: int) -> bytes:
    """Where the answer of a slot lives."""
    return key if slot == 0 else digest((b"sample", key, slot.to_bytes(2, "big")))


def draw(filled: Mapping[int, T], count: int, seed: bytes) -> T | int:
    """One of the answers when all `count` slots are filled, else a slot to fill.

    `seed` is unguessable bytes: calls that run at the same time most likely fill different slots.
    """
    drawn = int.from_bytes(seed, "big")
    empty = [slot for slot in range(count) if slot not in filled]
    if empty:
        return empty[drawn % len(empty)]
    return filled[drawn % count]


def empty_slot(count: int, seed: bytes) -> int:
    """A slot for an answer that replaces one: any of them."""
    return int.from_bytes(seed, "big") % count

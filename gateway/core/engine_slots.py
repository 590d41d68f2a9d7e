"""What llama.cpp's `/slots` and `/props` say of its slots, each of which keeps one prompt.

Rule: whatever isn't as it should be is not told.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Slots(NamedTuple):
    """How many prompts an engine can keep, and how long each may be."""

    number: int
    tokens: int
    """Of one slot, at most. With a unified KV cache the slots share so many."""
    busy: int | None = None
    """In how many of them a request is worked on; None where that isn't told."""


def of_slots(document: Any) -> Slots | None:
    """Of the answer of `GET /slots`."""
    slots = [each for each in document if isinstance(each, dict)] if _is_list(document) else []
    sizes = [size for each in slots if (size := _count(each.get("n_ctx")))]
    if not slots or len(sizes) != len(slots):
        return None
    busy = [each.get("is_processing") for each in slots]
    told = all(isinstance(each, bool) for each in busy)
    return Slots(len(slots), max(sizes), sum(map(bool, busy)) if told else None)


def of_props(document: Any) -> Slots | None:
    """Of the answer of `GET /props`, which is there where `/slots` was turned off."""
    if not isinstance(document, dict):
        return None
    usual = document.get("default_generation_settings")
    tokens = _count(usual.get("n_ctx")) if isinstance(usual, dict) else 0
    number = _count(document.get("total_slots"))
    return Slots(number, tokens) if number and tokens else None


def _is_list(document: Any) -> bool:
    return isinstance(document, list)


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0

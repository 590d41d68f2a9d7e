"""Rendezvous hashing with weights: the home that every gateway gives a conversation unasked.

Each replica draws a number from the conversation and its own name; the best draw wins. Who comes or
goes takes or leaves only what it itself wins: 1/N of all, by weight.
"""

from __future__ import annotations

from functools import lru_cache
from math import log
from struct import Struct
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.route import Candidate

_PAIR = Struct("<QQ").pack
_MASK = (1 << 64) - 1
_UNIT = 2.0**-64


@lru_cache(maxsize=4096)
def _seed(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass"))


def draw(key: int, name: str, weight: float = 1.0) -> float:
    """How well the replica draws; the highest wins. A weight of 0 or less never beats another."""
    if weight <= 0.0:
        return float("-inf")
    digest = xxhash.xxh3_64_intdigest(_PAIR(key & _MASK, _seed(name)))
    # -w/ln(u) with u uniform in (0, 1): wins in proportion to w (Schindelhauer, Schomaker 2005).
    return -weight / log(min((digest + 0.5) * _UNIT, 1.0 - 2.0**-53))


def home_of(key: int, candidates: Sequence[Candidate]) -> int:
    """Index of the candidate where all that has this key lives; the first where none weighs."""
    digest, pair, masked = xxhash.xxh3_64_intdigest, _PAIR, key & _MASK
    found, best = 0, float("-inf")
    for index, candidate in enumerate(candidates):
        weight = candidate.weight
        if weight <= 0.0:
            continue
        drawn = digest(pair(masked, _seed(candidate.name)))
        score = -weight / log(min((drawn + 0.5) * _UNIT, 1.0 - 2.0**-53))
        if score > best:
            found, best = index, score
    return found

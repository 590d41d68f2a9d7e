"""Fresh ids in the format of old ones, from a seed: random to the world, a function to tests."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, field
from functools import lru_cache
from operator import getitem
from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import Collection

_CLASSES = (string.digits, string.ascii_lowercase, string.ascii_uppercase)
_HEX = frozenset("0123456789abcdef")


@dataclass(slots=True)
class Mint:
    """Makes ids for one answer: `now_s` its creation time, `seed` unguessable bytes."""

    now_s: int
    seed: bytes
    _made: int = field(default=0, init=False)

    def like(self, original: str) -> str:
        """A fresh id of the same prefix, length and alphabet: `call_Ab3` -> `call_Xq9`.

        The prefix is what ends at the last `-` or `_` before the longest random tail; every
        letter or digit after it is drawn from its own class (lower-case hex stays hex), other
        characters stay. An id without a letter or digit comes back longer by a random tail.
        """
        self._made += 1
        plan = _plan if len(original) <= _USUAL else _plan.__wrapped__
        head, alphabets, grows = plan(original)
        random = blake3(self.seed + self._made.to_bytes(8, "big")).digest(len(alphabets) + 8)
        tail = "".join(map(getitem, alphabets, random))
        return f"{head}{tail}{random[-6:].hex() if grows else ''}"

    def unlike(self, original: str, taken: Collection[str]) -> str:
        """As `like`, but never one of `taken`; grows where the format has too few ids left."""
        for _ in range(16):
            fresh = self.like(original)
            if fresh not in taken:
                return fresh
        fresh = original
        while fresh in taken:
            fresh += self.like("0000000")
        return fresh


# What is longer is nobody's format; remembered, it would be somebody's to fill our memory with.
_USUAL = 200


@lru_cache(1024)
def _plan(original: str) -> tuple[str, tuple[str, ...], bool]:
    """What stays, for each character after it what each byte draws, and whether it needs a tail beyond."""
    cut = max(original.rfind("_"), original.rfind("-")) + 1
    counted = _COUNTED.fullmatch(original)
    if counted is not None:
        cut = counted.end(1)
    tail = original[cut:]
    if counted is None and sum(c.isascii() and c.isalnum() for c in tail) < _ENOUGH:
        # A short tail (`call_0`, a UUID's group would not be) can't be unique: draw the
        # whole string after its first separator, then fall back to appending.
        cut = _first_separator(original)
        tail = original[cut:]
    letters = [c for c in tail if c.isalnum()]
    hexadecimal = len(letters) >= _ENOUGH and all(c in _HEX for c in letters) and not tail.isdigit()
    alphabets = tuple(
        _drawn(
            "0123456789abcdef"
            if hexadecimal and c in _HEX
            else next((k for k in _CLASSES if c in k), c)
        )
        for c in tail
    )
    grows = not any(c.isascii() and c.isalnum() for c in tail)
    return original[:cut], alphabets, grows


@lru_cache(64)
def _drawn(alphabet: str) -> str:
    """What each byte draws of it. A byte holds it several times; that some come up a little more often
    is no help to anybody who would guess twenty of them.
    """
    return "".join(alphabet[byte % len(alphabet)] for byte in range(256))


_ENOUGH = 6
# Kimi's ids name the function and count the calls: `functions.get_weather:0`. Its servers and chat
# templates read the name out of the id, so only the number may be another one.
_COUNTED = re.compile(r"(functions\.[^:]+:)[0-9]+")


def _first_separator(text: str) -> int:
    positions = [p for p in (text.find("_"), text.find("-")) if p >= 0]
    return min(positions) + 1 if positions else 0

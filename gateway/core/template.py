"""A rendered answer with holes where each rendering differs: its ids, and the time it was made.

What `WireApi.serve` writes depends on the entry, on what the request asked for, and on the mint. So it
is rendered once with a mint that notes what it made, and whatever stands in the text because of the
mint is cut out. Filling the holes from another mint gives, byte for byte, what rendering anew would.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.mint import Mint

if TYPE_CHECKING:
    from collections.abc import Callable

# Far beyond any clock, so that no entry is likely to hold it; if one does there is no template.
_NEVER_S = 4_123_456_789_012
_SHORTEST = 8
_PLAIN = re.compile(r"[A-Za-z0-9_\-.:]+")


@dataclass(frozen=True, slots=True)
class Template:
    """`pieces` with a hole between each two: an index into `originals`, or None for the time."""

    pieces: tuple[bytes, ...]
    holes: tuple[int | None, ...]
    originals: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """About what it holds."""
        return sum(map(len, self.pieces))

    def fill(self, mint: Mint) -> bytes:
        """The answer with what this mint makes."""
        fresh = [mint.unlike(each, {each}).encode() for each in self.originals]
        now = b"%d" % mint.now_s
        out = [self.pieces[0]]
        for hole, piece in zip(self.holes, self.pieces[1:], strict=True):
            out.append(now if hole is None else fresh[hole])
            out.append(piece)
        return b"".join(out)


class _Noting(Mint):
    """Remembers what it made, in order."""

    __slots__ = ("made",)

    def __init__(self, now_s: int, seed: bytes) -> None:
        super().__init__(now_s, seed)
        self.made: list[tuple[str, str]] = []

    def like(self, original: str) -> str:
        fresh = super().like(original)
        self.made.append((original, fresh))
        return fresh


def template(serve: Callable[[Mint], bytes], stored: bytes, seed: bytes) -> Template | None:
    """The template of what `serve` makes of the `stored` payload, or None where what the mint made
    can't be told from the rest with certainty. `seed`: 16 unguessable bytes.
    """
    mint = _Noting(_NEVER_S, seed)
    text = serve(mint)
    now = b"%d" % _NEVER_S
    fresh = [made.encode("utf-8", "replace") for _, made in mint.made]
    certain = (
        now not in stored
        and len(set(fresh)) == len(fresh)
        and all(len(made) >= _SHORTEST and _PLAIN.fullmatch(made) for _, made in mint.made)
        and not any(made in stored or text.count(made) == 0 for made in fresh)
        and not any(one in other for one in fresh for other in fresh if one is not other)
    )
    if not certain:
        return None
    where = {each: index for index, each in enumerate(fresh)}
    pattern = b"(" + b"|".join(map(re.escape, (now, *fresh))) + b")"
    parts = re.split(pattern, text)
    return Template(
        pieces=tuple(parts[::2]),
        holes=tuple(where.get(each) for each in parts[1::2]),
        originals=tuple(original for original, _ in mint.made),
    )

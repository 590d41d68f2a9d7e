"""Every prompt that a simulated provider has seen, to say which of them a new one is like.

Rule 1: nothing is forgotten and nothing is estimated: what is likest is found among all.
Rule 2: what two prompts have in common is counted in bytes of whole pieces, each once.
"""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence


class Piece(NamedTuple):
    """The smallest part of a prompt that is compared."""

    label: Hashable
    """Equal where the pieces are."""
    size: int
    """UTF-8 bytes; 0 for what is not text but changes all behind it: a model, a setting."""
    block: int
    """The block that it belongs to, or that it stands before."""


class Wanted(NamedTuple):
    """What another prompt has to have in common with a new one."""

    behind: int
    """It is counted from this piece on: what stands before it was read."""
    least: int
    """Bytes."""
    part: float
    """Of all from where it is counted on."""


class Likest(NamedTuple):
    """Of the earlier prompts that part from this one and recur behind that place, the one that has
    most in common with it: before and behind; of those alike, who parts last, and came last. Who
    parts before the end of a prompt that this one wholly goes on from is none of them.
    """

    at: int
    """The first piece of this one that differs."""
    size: int
    """Bytes of this one that recur behind it."""
    labels: tuple[Hashable, ...]
    """The earlier one's, from its first piece to the last that recurs."""


class Compared(NamedTuple):
    """A new prompt beside all earlier ones."""

    shared: int
    """Pieces of the longest beginning that an earlier one has as well."""
    likest: Likest | None


class Seen:
    """Prompts as paths from one root: what begins alike is kept once."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, Hashable], int] = {}
        self._parent = [-1]
        self._label: list[Hashable] = [None]
        self._ready = [float("-inf")]
        self._last = [float("-inf")]
        self._places: dict[Hashable, list[int]] = {}
        self._ends: dict[int, float] = {}
        """Where whole prompts end, and since when they count."""

    def __repr__(self) -> str:
        return f"<Seen {len(self._parent) - 1} pieces>"

    def add(self, pieces: Sequence[Piece], now: float, ready: float) -> None:
        """A prompt that was sent `now` and counts as an earlier one from `ready` on."""
        node = 0
        for piece in pieces:
            key = node, piece.label
            following = self._after.get(key)
            if following is None:
                following = self._after[key] = len(self._parent)
                self._parent.append(node)
                self._label.append(piece.label)
                self._ready.append(ready)
                self._last.append(now)
                if piece.size:
                    self._places.setdefault(piece.label, []).append(following)
            else:
                self._ready[following] = min(self._ready[following], ready)
                self._last[following] = now
            node = following
        self._ends[node] = min(self._ends.get(node, ready), ready)

    def compare(self, pieces: Sequence[Piece], now: float, wanted: Wanted) -> Compared:
        """The new prompt beside those that count `now`."""
        path = self._path(pieces, now)
        return Compared(len(path) - 1, self._likest(pieces, now, path, wanted))

    def _path(self, pieces: Sequence[Piece], now: float) -> list[int]:
        path = [0]
        for piece in pieces:
            node = self._after.get((path[-1], piece.label))
            if node is None or self._ready[node] > now:
                break
            path.append(node)
        return path

    def _likest(
        self, pieces: Sequence[Piece], now: float, path: list[int], wanted: Wanted
    ) -> Likest | None:
        behind, least, part = wanted
        known = {p.label: p.size for p in pieces[behind:] if p.size and p.label in self._places}
        if sum(p.size for p in pieces[behind:] if p.label in known) < least:
            return None
        on_path = {node: depth for depth, node in enumerate(path)}
        # What goes on from a whole prompt was not changed from one that parts before its end.
        floor = max(
            (depth for node, depth in on_path.items() if self._ends.get(node, now + 1.0) <= now),
            default=0,
        )
        marked = {
            node
            for label in known
            for node in self._places[label]
            if self._ready[node] <= now and node not in on_path
        }
        left = _Left(pieces, behind)
        before = [0, *accumulate(piece.size for piece in pieces)]
        best: tuple[int, int, float, int] | None = None
        most = 0
        for tip in self._tips(marked, on_path):
            labels: list[Hashable] = []
            node = tip
            while node not in on_path:
                if node in marked:
                    labels.append(self._label[node])
                node = self._parent[node]
            at = on_path[node]
            if at < floor:
                continue
            size, rest = left.recurring(labels, at), left.bytes_from(at)
            if size < least or size < part * rest:
                continue
            rank = before[at] + size, at, self._last[tip], tip
            if best is None or rank > best:
                best, most = rank, size
        return None if best is None else Likest(best[1], most, self._labels(best[3]))

    def _labels(self, node: int) -> tuple[Hashable, ...]:
        found: list[Hashable] = []
        while node:
            found.append(self._label[node])
            node = self._parent[node]
        return tuple(reversed(found))

    def _tips(self, marked: set[int], on_path: dict[int, int]) -> Iterator[int]:
        """The marked places behind which no other marked one lies."""
        inner: set[int] = set()
        visited: set[int] = set()
        for tip in marked:
            node = self._parent[tip]
            while node not in on_path and node not in visited:
                visited.add(node)
                if node in marked:
                    inner.add(node)
                node = self._parent[node]
        return (node for node in marked if node not in inner)


class _Left:
    """What of a new prompt is counted, by the place where another parts from it."""

    def __init__(self, pieces: Sequence[Piece], behind: int) -> None:
        self._pieces = pieces
        self._behind = behind
        self._counts: dict[int, tuple[Counter[Hashable], dict[Hashable, int], int]] = {}

    def _from(self, at: int) -> tuple[Counter[Hashable], dict[Hashable, int], int]:
        start = max(at, self._behind)
        if start not in self._counts:
            rest = self._pieces[start:]
            counts = Counter(p.label for p in rest if p.size)
            sizes = {p.label: p.size for p in rest}
            self._counts[start] = counts, sizes, sum(p.size for p in rest)
        return self._counts[start]

    def bytes_from(self, at: int) -> int:
        """All that is counted."""
        return self._from(at)[2]

    def recurring(self, labels: Sequence[Hashable], at: int) -> int:
        """Bytes of the labels that are counted, each as often as both have it."""
        counts, sizes, _ = self._from(at)
        theirs = Counter(labels)
        return sum(
            sizes[label] * min(n, counts[label]) for label, n in theirs.items() if label in counts
        )

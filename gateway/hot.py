"""What many conversations begin with, kept to warm a replica whose cache is empty.

Rule 1: of a request what leads it is kept (tools and system texts), never what anybody said in it, and
only where no client's key stands behind it.
Rule 2: bounded in bytes and in number; what was used least of late goes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

BUDGET_BYTES = 8 * 1024 * 1024
HALF_LIFE_S = 600.0
WORTH_TOKENS = 256
"""A shorter one is computed about as fast as it is looked up."""
_MOST = 256
_LARGEST_SHARE = 4
# Used again, though some time ago.
_ONCE = 1.01


class Prefix(NamedTuple):
    """One of them."""

    fingerprint: int
    tokens: int
    path: str
    """Where requests with it go: `/v1/...`."""
    body: bytes
    """A request with nothing said in it."""


class _Seen:
    __slots__ = ("at", "is_unfit", "kept", "uses")

    def __init__(self, at: float) -> None:
        self.at = at
        self.uses = 0.0
        self.kept: Prefix | None = None
        self.is_unfit = False
        """It has no body that could be kept."""

    @property
    def size(self) -> int:
        return len(self.kept.body) if self.kept is not None else 0

    def uses_at(self, now: float) -> float:
        return float(self.uses * 2.0 ** ((self.at - now) / HALF_LIFE_S))


class Hot:
    """The prefixes of one pool. For one event loop."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._budget = budget_bytes
        self._seen: dict[int, _Seen] = {}
        self._bytes = 0
        self._is_full = False

    def __repr__(self) -> str:
        return f"<Hot {len(self._seen)} prefixes, {self._bytes} B>"

    @property
    def size_bytes(self) -> int:
        """Of the bodies that are kept."""
        return self._bytes

    def saw(
        self,
        fingerprint: int,
        tokens: int,
        path: str,
        body: Callable[[], bytes | None],
        now: float,
    ) -> None:
        """A request began with it; `body` gives what is kept of it, and is asked the second time."""
        if tokens < WORTH_TOKENS:
            return
        seen = self._seen.get(fingerprint)
        if seen is None:
            if len(self._seen) >= _MOST:
                self._drop(now)
            seen = self._seen[fingerprint] = _Seen(now)
        seen.uses, seen.at = seen.uses_at(now) + 1.0, now
        if seen.kept is not None or seen.is_unfit or seen.uses < _ONCE:
            return
        if self._is_among_the_hot(seen, now):
            made = body()
            if made is None or len(made) * _LARGEST_SHARE > self._budget:
                seen.is_unfit = True
                return
            seen.kept = Prefix(fingerprint, tokens, path, made)
            self._bytes += len(made)
            self._fit(now)

    def hottest(self, tokens: int, now: float) -> list[Prefix]:
        """Those whose absence would cost most, together of no more than so many tokens."""
        known = [
            (seen.uses_at(now) * seen.kept.tokens, seen.kept)
            for seen in self._seen.values()
            if seen.kept is not None
        ]
        found: list[Prefix] = []
        for _, prefix in sorted(known, key=lambda each: each[0], reverse=True):
            if prefix.tokens <= tokens:
                tokens -= prefix.tokens
                found.append(prefix)
        return found

    def _is_among_the_hot(self, seen: _Seen, now: float) -> bool:
        """Is there room for it, or something that is used less?"""
        if not self._is_full:
            return True
        return seen.uses > min((each.uses_at(now) for each in self._kept()), default=0.0)

    def _fit(self, now: float) -> None:
        """Give up the bodies of those used least; that they are used is still counted."""
        while self._bytes > self._budget:
            self._is_full = True
            coldest = min(self._kept(), key=lambda each: each.uses_at(now))
            self._bytes -= coldest.size
            coldest.kept = None

    def _kept(self) -> list[_Seen]:
        return [seen for seen in self._seen.values() if seen.kept is not None]

    def _drop(self, now: float) -> None:
        coldest = min(self._seen, key=lambda each: self._seen[each].uses_at(now))
        self._bytes -= self._seen.pop(coldest).size

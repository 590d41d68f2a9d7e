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


class Prefix(NamedTuple):
    """One of them."""

    fingerprint: int
    tokens: int
    path: str
    """Where requests with it go: `/v1/...`."""
    body: bytes
    """A request with nothing said in it."""


class _Seen:
    __slots__ = ("at", "kept", "uses")

    def __init__(self, at: float) -> None:
        self.at = at
        self.uses = 0.0
        self.kept: Prefix | None = None

    def uses_at(self, now: float) -> float:
        return float(self.uses * 2.0 ** ((self.at - now) / HALF_LIFE_S))


class Hot:
    """The prefixes of one pool. For one event loop."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._budget = budget_bytes
        self._seen: dict[int, _Seen] = {}
        self._bytes = 0

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
        elif seen.kept is None:
            made = body()
            if made is not None and len(made) * _LARGEST_SHARE <= self._budget:
                seen.kept = Prefix(fingerprint, tokens, path, made)
                self._bytes += len(made)
        seen.uses, seen.at = seen.uses_at(now) + 1.0, now
        while self._bytes > self._budget:
            self._drop(now)

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

    def _drop(self, now: float) -> None:
        coldest = min(self._seen, key=lambda each: self._seen[each].uses_at(now))
        gone = self._seen.pop(coldest).kept
        if gone is not None:
            self._bytes -= len(gone.body)

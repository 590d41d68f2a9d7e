"""Amounts that wait to be written: cells, not events, and a bounded number of them.

Rule 1: on each day so many models and scopes are told apart, those that come first; the rest is
`_other`. Nothing is dropped: what is folded is still counted.
Rule 2: a call that failed makes nobody known: who tries names or keys that nobody answers for can't
push out those who pay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.ledger import OTHER, added

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.core.ledger import Amounts, Line

MOST_MODELS = 100
MOST_SCOPES = 500
MOST_LINES = 5000
"""Of one day, in one gateway."""
MOST_WAITING = 20_000
"""Lines that wait, of all days together, while the store is away."""


class Cells:
    """Sums by line. Not for more than one thread."""

    def __init__(
        self,
        *,
        models: int = MOST_MODELS,
        scopes: int = MOST_SCOPES,
        lines: int = MOST_LINES,
        waiting: int = MOST_WAITING,
    ) -> None:
        self._most = (models, scopes, lines, waiting)
        self._sums: dict[Line, Amounts] = {}
        self._day = ""
        self._models: set[tuple[str, str]] = set()
        self._scopes: set[str] = set()
        self._lines: set[Line] = set()

    def __len__(self) -> int:
        return len(self._sums)

    def __repr__(self) -> str:
        return f"<Cells {len(self)} waiting, {len(self._lines)} lines known of {self._day or 'no day'}>"

    def add(self, lines: Iterable[tuple[Line, Amounts]]) -> None:
        """Count them."""
        for line, amounts in lines:
            known = self._folded(line, proven=not amounts.failed)
            before = self._sums.get(known)
            self._sums[known] = amounts if before is None else added(before, amounts)

    def take(self, most: int) -> dict[Line, Amounts]:
        """So many lines of what waits, at most, the oldest first; they wait no longer."""
        if len(self._sums) <= most:
            taken, self._sums = self._sums, {}
            return taken
        return {line: self._sums.pop(line) for line in [*self._sums][:most]}

    def sums(self) -> dict[Line, Amounts]:
        """What waits."""
        return self._sums

    def _folded(self, line: Line, *, proven: bool) -> Line:
        if line.day > self._day:
            self._day = line.day
            self._models, self._scopes, self._lines = set(), set(), set()
        if line in self._lines:
            return line
        models, scopes, lines, waiting = self._most
        model = (line.provider, line.model)
        if model not in self._models and (not proven or len(self._models) >= models):
            line = line._replace(model=OTHER)
        elif model not in self._models:
            self._models.add(model)
        if line.scope and line.scope not in self._scopes:
            if not proven or len(self._scopes) >= scopes:
                line = line._replace(scope=OTHER)
            else:
                self._scopes.add(line.scope)
        if len(self._lines) >= lines or len(self._sums) >= waiting:
            return line if line in self._sums else line._replace(model=OTHER, scope=OTHER)
        self._lines.add(line)
        return line

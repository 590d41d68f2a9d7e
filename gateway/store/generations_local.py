"""Marks in this process, for a store that nobody else sees."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway.core.purges import JITTER_BITS, Mark, Marks, following
from gateway.store.generations import Version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from gateway.store.generations import News


class LocalRegister:
    """A register that is never away, and forgets with the process, as the store does."""

    shared = False

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds since the epoch."""
        self._clock = clock
        self._incarnation = secrets.randbits(62)
        self._marks = Marks()

    async def look(self) -> Version:
        """Its version."""
        return Version(self._incarnation, self._marks.sequence)

    async def read(self) -> tuple[Version, dict[str, Mark]]:
        """All of it."""
        return await self.look(), self._marks.all()

    async def purge(self, names: Sequence[str], before: float | None, above: int) -> int:
        """Mark the names; the sequence."""
        sequence = following(
            max(above, self._marks.sequence), self._clock(), secrets.randbits(JITTER_BITS)
        )
        mark = Mark(sequence if before is None else 0, before or 0.0)
        self._marks.join(dict.fromkeys(names, mark), sequence)
        return sequence

    async def join(self, marks: Mapping[str, Mark], above: int) -> None:
        """Take over marks."""
        self._marks.join(marks, above)

    @asynccontextmanager
    async def news(self) -> AsyncIterator[AsyncIterator[News | None]]:
        """Nothing ever: nobody else writes here."""

        async def nothing() -> AsyncIterator[News | None]:
            await asyncio.Event().wait()
            yield None

        yield nothing()

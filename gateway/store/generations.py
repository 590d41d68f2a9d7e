"""What this replica knows of purges, and how soon it hears of new ones.

Rule 1: an entry with tags is served only if the last look at the register is at most `bound_s` old:
whoever purges a tag knows that `bound_s` later no replica serves what it killed.
Rule 2: nothing that is known here is ever forgotten because the register forgot it. A register that
was emptied, or failed over with lost writes, is told what it lacks.
Rule 3: a mark in a register that went back may be younger than it says. It is made anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gateway.core.model import Reason
from gateway.core.purges import Mark, Marks
from gateway.store.base import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from gateway.core.model import Entry

logger = logging.getLogger(__name__)

BOUND_S = 3.0
POLL_S = 1.0
_START_S = 2.0
_ROUNDS = 5
"""Looks in a row at a register that changes each time; then the next poll goes on."""


class Version(NamedTuple):
    """A state of the register: `incarnation` is random, drawn when it was begun."""

    incarnation: int
    sequence: int


class News(NamedTuple):
    """A register went from one version to the next by this one mark."""

    former: Version
    version: Version
    name: str
    mark: Mark


class Register(Protocol):
    """Where marks lie, shared by replicas. Every method raises `StoreUnavailable`, nothing else."""

    shared: bool
    """Others may write to it: it must be looked at again and again."""

    async def look(self) -> Version:
        """Its version; cheap."""

    async def read(self) -> tuple[Version, dict[str, Mark]]:
        """All of it, in one state."""

    async def purge(self, names: Sequence[str], before: float | None, above: int) -> int:
        """Mark the names, with a sequence of their own above all former ones and `above`; or, with
        `before`, what was stored before that time. Returns the sequence.
        """

    async def join(self, marks: Mapping[str, Mark], above: int) -> None:
        """Take over marks that it lacks, and never fall behind `above`."""

    def news(self) -> AbstractAsyncContextManager[AsyncIterator[News | None]]:
        """What changes from now on; None says that something did."""


class Generations:
    """The marks as this replica knows them. For one event loop."""

    def __init__(
        self,
        register: Register,
        *,
        bound_s: float = BOUND_S,
        poll_s: float = POLL_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look at the register every `poll_s`; trust what is known for `bound_s`."""
        self.bound_s = bound_s
        self.marks = Marks()
        self._register = register
        self._poll_s = poll_s
        self._monotonic = monotonic
        self._synced: Version | None = None
        self._looked_at: float | None = None
        self._nudged = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._looking = asyncio.Lock()
        self._problem: str | None = None

    def __repr__(self) -> str:
        age = self.age_s
        return (
            f"<Generations {self.marks!r}, {'never read' if age is None else f'{age:.1f} s old'}>"
        )

    @property
    def sequence(self) -> int:
        """The latest purge up to which all are known here: the generation of a request that is
        looked up now.
        """
        return self._synced.sequence if self._synced is not None else 0

    @property
    def age_s(self) -> float | None:
        """Seconds since the register was known in full; None before the first time."""
        if not self._register.shared:
            return 0.0
        return None if self._looked_at is None else self._monotonic() - self._looked_at

    @property
    def fresh(self) -> bool:
        """May entries with tags be served?"""
        age = self.age_s
        return age is not None and age <= self.bound_s

    def refuse(self, entry: Entry) -> Reason | None:
        """Why the entry can't be served, or None."""
        if self.marks.kill(entry):
            return Reason.PURGED
        if entry.tags and not self.fresh:
            return Reason.PURGES_UNKNOWN
        return None

    async def start(self) -> None:
        """Look once, within two seconds, and then go on looking."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_START_S):
                await self.refresh()
        if self._register.shared:
            # Owned here: `close` cancels them.
            self._tasks = [
                asyncio.create_task(self._keep_looking()),  # noqa: TID251
                asyncio.create_task(self._keep_listening()),  # noqa: TID251
            ]

    async def close(self) -> None:
        """Stop looking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def purge(self, names: Iterable[str], before: float | None = None) -> int:
        """Declare dead what has one of the names; with `before` only what was stored before that
        time. It holds here at once. Raises `StoreUnavailable`: then it may or may not hold.
        """
        async with self._looking:
            sequence = await self._mark(tuple(names), before)
        # So that what is asked for from now on is above it.
        await self.refresh()
        return sequence

    async def _mark(self, names: Sequence[str], before: float | None = None) -> int:
        sequence = await self._register.purge(names, before, self.marks.sequence)
        mark = Mark(sequence if before is None else 0, before or 0.0)
        self.marks.join(dict.fromkeys(names, mark), sequence)
        return sequence

    async def refresh(self) -> bool:
        """Look at the register now; False when that can't be done."""
        async with self._looking:
            try:
                await self._look()
            except StoreUnavailable as exc:
                if self._problem is None:
                    logger.warning(
                        "Purges can't be heard of (%s): entries with tags are not served "
                        "after %.0f s of that",
                        exc,
                        self.bound_s,
                    )
                self._problem = str(exc)
                return False
        if self._problem is not None:
            logger.warning("Purges are heard of again")
        self._problem = None
        return True

    async def _look(self) -> None:
        for _ in range(_ROUNDS):
            # Before the question leaves: what is answered later is at least as new.
            began = self._monotonic()
            version = await self._register.look()
            # Behind what was purged from here it is no more what it was, whatever it says.
            if version == self._synced and version.sequence >= self.marks.sequence:
                self._looked_at = began
                return
            began = self._monotonic()
            former = self._synced
            version, marks = await self._register.read()
            if self._synced != former:
                # News came meanwhile: what was read may be older.
                continue
            lacking = self.marks.lacking(marks)
            doubtful = self._doubtful(former, version, marks, lost=bool(lacking))
            if lacking or doubtful:
                logger.warning(
                    "The register of purges went back (from %s to %s): it is told what it lacks",
                    former,
                    version,
                )
            self.marks.join(marks, version.sequence)
            self._synced, self._looked_at = version, began
            if doubtful:
                await self._mark(doubtful)
            if lacking or version.sequence < self.marks.sequence:
                await self._register.join(lacking, self.marks.sequence)
            elif not doubtful:
                return

    def _doubtful(
        self, former: Version | None, version: Version, marks: Mapping[str, Mark], *, lost: bool
    ) -> list[str]:
        """Names whose marks may be younger than they say.

        All up to the former version were known, so one below it that was not is of a register that
        forgot and went on: under a clock that was set back, its sequences are those of entries that
        were asked for before.
        """
        if former is None:
            return []
        known = self.marks
        went_back = (
            lost
            or version.sequence < known.sequence
            or former.incarnation not in {0, version.incarnation}
        )
        return [
            name
            for name, mark in marks.items()
            if 0 < mark.sequence <= former.sequence
            and mark.sequence != known.get(name).sequence
            and (went_back or not known.covers(name, mark))
        ]

    def _hear(self, news: News) -> None:
        if news.former != self._synced:
            # Something before it was missed.
            self._nudged.set()
            return
        self.marks.join({news.name: news.mark}, news.version.sequence)
        self._synced = news.version

    async def _keep_looking(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._nudged.wait()
            self._nudged.clear()
            if not await self.refresh():
                await asyncio.sleep(self._poll_s / 2)

    async def _keep_listening(self) -> None:
        while True:
            with suppress(StoreUnavailable):
                async with self._register.news() as news:
                    async for each in news:
                        if each is None:
                            self._nudged.set()
                        else:
                            self._hear(each)
            await asyncio.sleep(self._poll_s)

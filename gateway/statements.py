"""What the ledger says to those who ask: one question at a time, read where the rows are.

Rule 1: requests don't feel that somebody looks: lines are summed in the store or in a thread, so that
this loop only ever has what was asked for.
Rule 2: the same question is read once for all who ask it meanwhile. Who is content with an answer of
some seconds ago gets that.
Rule 3: nobody waits for a store that hangs, and no second thread goes after one that hangs in it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.core.days import day_of, each_day
from gateway.core.savings import KEYS, told
from gateway.store.base import StoreUnavailable
from gateway.store.ledger import Kept

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from gateway.cache import Clock
    from gateway.core.ledger import Amounts, Line
    from gateway.store.ledger import LedgerStore

    Rows = list[tuple[Line, Amounts]]
    Question = tuple[str, str, tuple[str, ...]]

FLUSH_S = 3.0
"""So long what waits is written before it is read without that."""
ANSWER_S = 40.0
REMEMBERED_S = 60.0
"""A day that is over: gateways that could not write meanwhile still add to it."""
_OVER_S = 3600.0
_MOST_QUESTIONS = 16
_MOST_ANSWERS = 8
_MOST_DAYS = 1024
_MOST_ROWS = 200
"""Of a day that is remembered."""
_IN_PASSING = 500
"""So few rows are told on the loop: half a millisecond for each hundred at most."""


class _Day(NamedTuple):
    rows: Rows
    at: float


class Statements:
    """Owns the questions that are under way, and what is remembered. For one event loop."""

    def __init__(
        self,
        ledger: LedgerStore,
        clock: Clock,
        flush: Callable[[], Coroutine[Any, Any, object]],
        unwritten: Callable[[], dict[str, Any]],
    ) -> None:
        """`flush` writes what waits, and `unwritten` says what waits still."""
        self._ledger = ledger
        self._clock = clock
        self._flush = flush
        self._unwritten = unwritten
        self._asked: dict[Question, asyncio.Task[dict[str, Any]]] = {}
        self._answers: OrderedDict[Question, tuple[float, dict[str, Any]]] = OrderedDict()
        self._days: OrderedDict[tuple[tuple[str, ...], str], _Day] = OrderedDict()
        self._writes = 0
        """To days that are over."""
        self._reading = asyncio.Lock()
        self._flushing: asyncio.Task[object] | None = None

    def __repr__(self) -> str:
        return f"<Statements {self._ledger!r}, {len(self._days)} days, {len(self._asked)} asked>"

    async def told(
        self, since: str, until: str, by: Sequence[str], max_age_s: float = 0.0
    ) -> dict[str, Any]:
        """As `Accounts.savings`; not to be changed: others have it too. With `max_age_s` it may be
        that old. Raises `StoreUnavailable` and ValueError.
        """
        unknown = [name for name in by if name not in KEYS]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(KEYS)}")
        question = (since, until, tuple(by))
        at, answer = self._answers.get(question, (0.0, None))
        if answer is not None and self._clock.monotonic() - at < max_age_s:
            return answer
        task = self._asked.get(question)
        if task is None:
            if len(self._asked) >= _MOST_QUESTIONS:
                raise StoreUnavailable("too much is asked of the ledger at once")
            task = asyncio.get_running_loop().create_task(self._answer(*question), name="statement")
            self._asked[question] = task
            task.add_done_callback(lambda done: self._over(question, done))
        # (It goes on where who asked is gone: others may wait for it, or ask again.)
        await asyncio.wait((task,), timeout=ANSWER_S)
        if not task.done() or task.cancelled():
            raise StoreUnavailable("the ledger did not answer in time")
        answer = task.result()
        if max_age_s:
            self._answers[question] = (self._clock.monotonic(), answer)
            while len(self._answers) > _MOST_ANSWERS:
                self._answers.popitem(last=False)
        return answer

    def wrote(self, lines: Iterable[Line]) -> None:
        """These were added to: what is remembered of their days holds no longer."""
        days = {line.day for line in lines}
        self._writes += any(day < self._today() for day in days)
        for place in [place for place in self._days if place[1] in days]:
            del self._days[place]

    async def close(self) -> None:
        """Nobody is answered any more."""
        tasks = [*self._asked.values(), *([self._flushing] if self._flushing is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    def _today(self) -> str:
        """The first day that is not over for good."""
        return day_of(self._clock.now() - _OVER_S)

    def _over(self, question: Question, task: asyncio.Task[dict[str, Any]]) -> None:
        self._asked.pop(question, None)
        if not task.cancelled():
            # Whoever still waits gets it.
            task.exception()

    async def _answer(self, since: str, until: str, by: tuple[str, ...]) -> dict[str, Any]:
        async with self._reading:
            await self._written()
            kept = await self._read(since, until, by)
        rows = kept.rows
        if len(rows) > _IN_PASSING:
            answer = await asyncio.to_thread(told, rows, since, until, by)
        else:
            answer = told(rows, since, until, by)
        return answer | {
            "kept_in": self._ledger.kind,
            "lasting": self._ledger.lasting,
            "missing_days": kept.missing,
            "unwritten": self._unwritten(),
        }

    async def _written(self) -> None:
        """What waits is written, or takes too long: that goes on, and it is read without."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                if self._flushing is not None:
                    await asyncio.wait((self._flushing,))
                self._flushing = asyncio.get_running_loop().create_task(self._flush())
                await asyncio.wait((self._flushing,))
                self._flushing.result()

    async def _read(self, since: str, until: str, by: tuple[str, ...]) -> Kept:
        now = self._clock.monotonic()
        today, writes = self._today(), self._writes
        found: dict[str, Rows] = {}
        asked: list[str] = []
        days = each_day(since, until)
        for day in days:
            known = self._days.get((by, day))
            if known is not None and day < today and now - known.at < REMEMBERED_S:
                found[day] = known.rows
            else:
                asked.append(day)
        missing: list[str] = []
        for first, last in _runs(days, set(asked)):
            kept = await self._ledger.sums(first, last, by)
            missing += kept.missing
            if len(kept.rows) > _IN_PASSING:
                await asyncio.to_thread(_sort_in, found, kept.rows)
            else:
                _sort_in(found, kept.rows)
        # (Of what is missing and names no day, each may lack some.)
        nameless = not set(missing).issubset(days)
        for day in asked:
            rows = found.get(day, [])
            if day >= today or day in missing or nameless or writes != self._writes:
                continue
            if len(rows) <= _MOST_ROWS:
                self._days[by, day] = _Day(rows, now)
                self._days.move_to_end((by, day))
        while len(self._days) > _MOST_DAYS:
            self._days.popitem(last=False)
        return Kept(
            list(chain.from_iterable(found[day] for day in sorted(found))),
            list(dict.fromkeys(missing)),
        )


def _sort_in(found: dict[str, Rows], rows: Rows) -> None:
    for row in rows:
        found.setdefault(row[0].day, []).append(row)


def _runs(days: Sequence[str], wanted: set[str]) -> list[tuple[str, str]]:
    """First and last of those wanted that follow each other."""
    runs: list[tuple[str, str]] = []
    begun, last = "", ""
    for day in days:
        if day in wanted:
            begun, last = begun or day, day
        elif begun:
            runs.append((begun, last))
            begun = ""
    return [*runs, (begun, last)] if begun else runs

"""Whoever looks at what was paid keeps nobody waiting, and is told the truth."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from gateway import statements
from gateway.cache import Clock
from gateway.core import savings
from gateway.core.ledger import Amounts, Line
from gateway.statements import REMEMBERED_S, Statements
from gateway.store.base import StoreUnavailable
from gateway.store.ledger import Batch, Kept, MemoryLedger

if TYPE_CHECKING:
    from collections.abc import Collection

NOW = 1_795_392_000.0 + 12 * 3600
DAYS = ("2026-11-21", "2026-11-22", "2026-11-23")
BEGINNING, YESTERDAY, TODAY = DAYS
PATIENCE_S = 5.0


def line(day: str, model: str = "gpt-4o") -> Line:
    return Line(day, "openai", model, "1a2b3c4d", "request")


@dataclass
class Watched(MemoryLedger):
    """Says what it was asked; keeps who asks until it is let go."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    free: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    missing: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.free.set()

    async def sums(self, since: str, until: str, by: Collection[str]) -> Kept:
        self.asked.append((since, until))
        self.began.set()
        await self.free.wait()
        kept = await super().sums(since, until, by)
        return kept._replace(missing=[day for day in self.missing if since <= day <= until])


class Bench:
    """A ledger with a line on each of three days, and who tells of it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ledger = Watched()
        self.flushed = 0
        clock = Clock(now=lambda: NOW, monotonic=lambda: self.now)
        self.statements = Statements(self.ledger, clock, self.flush, lambda: {"lines": 7})

    async def flush(self) -> None:
        self.flushed += 1

    async def add(self, number: int, *days: str) -> None:
        cells = {line(day): Amounts(1, paid_pd=5) for day in days}
        await self.ledger.add(Batch("w", number, cells))

    async def calls(self, max_age_s: float = 0.0) -> int:
        told = await self.statements.told(BEGINNING, TODAY, ["day"], max_age_s)
        assert sum(row["calls"] for row in told["rows"]) == told["total"]["calls"]
        calls: int = told["total"]["calls"]
        return calls


@pytest.fixture
async def bench() -> Bench:
    bench = Bench()
    await bench.add(1, *DAYS)
    return bench


async def test_tabs_share_an_answer_for_a_while_and_who_wants_it_new_gets_it_new(
    bench: Bench,
) -> None:
    assert await bench.calls(5.0) == 3
    await bench.add(2, TODAY)
    bench.now = 4.9

    assert await bench.calls(5.0) == 3
    assert len(bench.ledger.asked) == bench.flushed == 1
    assert await bench.calls() == 4
    bench.now = 5.1
    assert await bench.calls(5.0) == 4


async def test_whoever_asks_the_same_meanwhile_waits_for_the_same_reading(bench: Bench) -> None:
    bench.ledger.free.clear()
    tabs = [asyncio.create_task(bench.calls()) for _ in range(50)]
    await asyncio.wait_for(bench.ledger.began.wait(), PATIENCE_S)
    # One who goes takes the answer from nobody.
    tabs[0].cancel()
    await asyncio.wait((tabs[0],), timeout=PATIENCE_S)
    bench.ledger.free.set()

    assert await asyncio.gather(*tabs[1:]) == [3] * 49
    assert len(bench.ledger.asked) == bench.flushed == 1


async def test_a_day_that_is_over_is_read_once_a_minute(bench: Bench) -> None:
    await bench.calls()
    await bench.add(2, TODAY)

    assert await bench.calls() == 4
    assert bench.ledger.asked == [(BEGINNING, TODAY), (TODAY, TODAY)]
    # What gateways wrote late that could not write before.
    await bench.add(3, BEGINNING)
    bench.now = REMEMBERED_S + 1
    assert await bench.calls() == 5
    assert bench.ledger.asked[2:] == [(BEGINNING, TODAY)]


async def test_what_this_gateway_adds_to_a_day_that_is_over_is_told_at_once(bench: Bench) -> None:
    await bench.calls()
    await bench.add(2, YESTERDAY)
    bench.statements.wrote([line(YESTERDAY)])

    assert await bench.calls() == 4
    assert bench.ledger.asked[1:] == [(YESTERDAY, TODAY)]


async def test_what_is_added_while_it_is_read_is_not_forgotten_for_a_minute(bench: Bench) -> None:
    bench.ledger.free.clear()
    asked = asyncio.create_task(bench.calls())
    await asyncio.wait_for(bench.ledger.began.wait(), PATIENCE_S)
    bench.statements.wrote([line(YESTERDAY)])
    bench.ledger.free.set()
    await asked

    await bench.calls()
    assert bench.ledger.asked == [(BEGINNING, TODAY)] * 2


async def test_a_day_that_the_store_gave_up_is_said_each_time(bench: Bench) -> None:
    bench.ledger.missing = [BEGINNING]
    for _ in range(2):
        told = await bench.statements.told(BEGINNING, TODAY, [])
        assert told["missing_days"] == [BEGINNING]
    assert bench.ledger.asked[1:] == [(BEGINNING, BEGINNING), (TODAY, TODAY)]


async def test_what_lies_in_a_damaged_file_is_said_each_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def damaged(since: str, until: str, by: Collection[str]) -> Kept:
        kept = await MemoryLedger.sums(bench.ledger, since, until, by)
        return kept._replace(missing=["what a file has"])

    monkeypatch.setattr(bench.ledger, "sums", damaged)
    for _ in range(2):
        told = await bench.statements.told(BEGINNING, YESTERDAY, [])
        assert (told["total"]["calls"], told["missing_days"]) == (2, ["what a file has"])


async def test_days_of_one_question_are_no_answer_to_another(bench: Bench) -> None:
    await bench.calls()
    told = await bench.statements.told(YESTERDAY, TODAY, ["model", "day"])

    assert [(row["model"], row["day"]) for row in told["rows"]] == [
        ("gpt-4o", YESTERDAY),
        ("gpt-4o", TODAY),
    ]


async def test_what_is_remembered_has_a_bound(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "_MOST_DAYS", 5)
    monkeypatch.setattr(statements, "_MOST_ROWS", 2)
    await bench.statements.told("2026-01-01", TODAY, ["day"])
    assert len(bench.statements._days) == 5
    cells = {line(YESTERDAY, f"m{number}"): Amounts(1) for number in range(3)}
    await bench.ledger.add(Batch("w", 2, cells))
    bench.statements.wrote(cells)
    await bench.statements.told(YESTERDAY, TODAY, ["model"])
    assert not [day for by, day in bench.statements._days if by == ("model",)]
    for first in range(1, 29):
        await bench.statements.told(f"2026-10-{first:02d}", TODAY, [], 5.0)
    assert len(bench.statements._answers) == 8


async def test_a_disk_that_hangs_keeps_one_writing_and_nobody_who_asks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "FLUSH_S", 0.01)
    hangs = asyncio.Event()
    began = 0

    async def flush() -> None:
        nonlocal began
        began += 1
        await hangs.wait()

    monkeypatch.setattr(bench.statements, "_flush", flush)
    for _ in range(5):
        async with asyncio.timeout(PATIENCE_S):
            told = await bench.statements.told(BEGINNING, TODAY, [])
        # It is read all the same, and says what is not in it.
        assert told["total"]["calls"] == 3
        assert told["unwritten"] == {"lines": 7}
    assert began == 1
    hangs.set()
    await bench.calls()
    assert began == 2
    await bench.statements.close()


async def test_a_store_that_hangs_is_read_by_one_and_refused_to_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "ANSWER_S", 0.01)
    bench.ledger.free.clear()
    for first in range(1, 21):
        since = f"2026-11-{first:02d}"
        words = "did not answer" if first <= 16 else "too much is asked"
        with pytest.raises(StoreUnavailable, match=words):
            await bench.statements.told(since, TODAY, [])
    assert len(bench.ledger.asked) == 1

    async with asyncio.timeout(PATIENCE_S):
        await bench.statements.close()
    assert not bench.statements._asked


async def test_an_error_of_the_store_is_told_to_all_who_wait_and_the_next_asks_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> Kept:
        raise StoreUnavailable("away")

    with monkeypatch.context() as for_now:
        for_now.setattr(bench.ledger, "sums", away)
        outcomes = await asyncio.gather(bench.calls(), bench.calls(), return_exceptions=True)
        assert [str(each) for each in outcomes] == ["away", "away"]
    assert await bench.calls() == 3
    with pytest.raises(ValueError, match="price"):
        await bench.statements.told(BEGINNING, TODAY, ["price"])


async def test_many_rows_are_told_in_a_thread(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def told(*args: object) -> dict[str, object]:
        seen.append(threading.get_ident())
        return savings.told(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(statements, "told", told)
    cells = {line(TODAY, f"m{number}"): Amounts(1) for number in range(600)}
    await bench.ledger.add(Batch("w", 2, cells))
    answer = await bench.statements.told(BEGINNING, TODAY, ["model"])

    assert len(answer["rows"]) == 601
    assert seen != [threading.get_ident()]

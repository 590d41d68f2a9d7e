from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.core.route_records import encode
from gateway.store import journal_feed
from gateway.store.journal import FRAME_RECORDS, Frame, NoJournal, packed
from gateway.store.journal_feed import Feed
from tests.helpers.placed import Shelf, ShelfJournal, placed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.core.route_records import RouteRecord

PATIENT_S = 10.0


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


class Party:
    """A gateway: what it heard, and its feed."""

    def __init__(self, shelf: Shelf, gateway: int, room_bytes: int = 16 << 20) -> None:
        self.heard: list[RouteRecord] = []
        self.journal = ShelfJournal(shelf)
        self.feed = Feed("pool", self.journal, gateway, self.hear, room_bytes=room_bytes)

    def hear(self, record: RouteRecord) -> None:
        self.heard.append(record)


@pytest.fixture
async def party(shelf: Shelf) -> AsyncIterator[Callable[..., Party]]:
    made: list[Party] = []

    def make(gateway: int, room_bytes: int = 16 << 20) -> Party:
        made.append(Party(shelf, gateway, room_bytes))
        return made[-1]

    yield make
    for each in made:
        await each.feed.close(0.0)


async def until(met: Callable[[], object]) -> None:
    """What is met comes about in other tasks, of which there is no event to wait for."""
    async with asyncio.timeout(PATIENT_S):
        while not met():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.001)


async def test_gateways_hear_each_other_and_not_themselves(party: Callable[..., Party]) -> None:
    one, other = party(1), party(2)
    await one.feed.start(PATIENT_S)
    await other.feed.start(PATIENT_S)
    records = [placed(1, number) for number in range(1000)]
    for record in records:
        one.feed.tell(record)
    other.feed.tell(placed(2, 1))
    await until(lambda: len(other.heard) == 1000 and one.heard)
    assert other.heard == records
    assert one.heard == [placed(2, 1)]
    assert (one.feed.told, one.feed.heard, one.feed.dropped, one.feed.ignored) == (1000, 1, 0, 0)
    await until(lambda: one.feed.lag_s is not None)


async def test_who_joins_later_knows_what_was_told_before(
    party: Callable[..., Party], shelf: Shelf
) -> None:
    one = party(1)
    await one.feed.start(PATIENT_S)
    for number in range(600):
        one.feed.tell(placed(1, number))
    await until(lambda: one.feed.told == 600)
    # The beginning is gone, as where a journal is bounded: each record stands alone.
    del shelf.frames[0]
    late = party(3)
    await late.feed.start(PATIENT_S)
    assert late.heard == [placed(1, number) for number in range(FRAME_RECORDS, 600)]


async def test_a_start_does_not_wait_for_a_journal_that_is_silent(
    party: Callable[..., Party],
) -> None:
    one = party(1)
    one.journal.is_silent = True
    async with asyncio.timeout(PATIENT_S):
        await one.feed.start(0.01)
    assert not one.feed.shares


async def test_what_can_not_be_told_is_bounded_and_the_oldest_goes(
    party: Callable[..., Party],
) -> None:
    one, other = party(1, room_bytes=100_000), party(2)
    await other.feed.start(PATIENT_S)
    one.journal.refuses = True
    await one.feed.start(0.0)
    for number in range(5000):
        one.feed.tell(placed(1, number))
    assert one.feed.dropped > 4000
    waiting = one.feed.figures()["waiting"]
    assert 50 < waiting < 250
    one.journal.refuses = False
    await until(lambda: one.feed.told == 5000 - one.feed.dropped)
    await until(lambda: len(other.heard) == one.feed.told)
    assert other.heard[-1] == placed(1, 4999)


async def test_a_write_of_unknown_outcome_is_repeated_and_heard_once(
    party: Callable[..., Party],
) -> None:
    one, other = party(1), party(2)
    await one.feed.start(PATIENT_S)
    await other.feed.start(PATIENT_S)
    one.journal.loses_replies = 2
    one.feed.tell(placed(1, 1))
    await until(lambda: len(one.journal.shelf.frames) == 3)
    one.feed.tell(placed(1, 2))
    await until(lambda: len(other.heard) >= 2)
    assert other.heard == [placed(1, 1), placed(1, 2)]


async def test_garbage_is_ignored_and_the_feed_goes_on(
    party: Callable[..., Party], shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    one = party(1)
    await one.feed.start(PATIENT_S)
    future = bytes([255]) + encode(placed(9, 1))[1:]
    cut = encode(placed(9, 1))[:-3]
    await shelf.add(
        [
            b"",
            b"garbage",
            bytes(10 << 20),
            packed(Frame(9, 1, (b"", b"garbage", b"\xff" * 5000, future, cut))),
            # Somebody who takes our name.
            packed(Frame(9, 2, (encode(placed(1, 7)),))),
            packed(Frame(9, 3, (encode(placed(9, 3)),))),
        ]
    )
    await until(lambda: one.heard)
    assert one.heard == [placed(9, 3)]
    assert one.feed.ignored == 9
    assert one.feed.shares


async def test_a_listener_that_fails_costs_that_record_alone(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[int] = []

    def hear(record: RouteRecord) -> None:
        heard.append(record.number)
        if record.number % 2:
            raise ZeroDivisionError

    feed = Feed("pool", ShelfJournal(shelf), 1, hear)
    await feed.start(PATIENT_S)
    await shelf.add([packed(Frame(2, 1, tuple(encode(placed(2, n)) for n in range(10))))])
    await until(lambda: len(heard) == 10)
    assert (feed.heard, feed.ignored) == (5, 5)
    assert len([r for r in caplog.records if "can't be used" in r.message]) == 1
    await feed.close(0.0)


async def test_a_record_that_can_not_be_told_is_dropped_and_the_next_is_told(
    party: Callable[..., Party], monkeypatch: pytest.MonkeyPatch
) -> None:
    def picky(record: RouteRecord) -> bytes:
        if record.number == 1:
            raise ZeroDivisionError
        return bytes(70_000) if record.number == 2 else encode(record)

    monkeypatch.setattr(journal_feed, "encode", picky)
    one, other = party(1), party(2)
    await one.feed.start(PATIENT_S)
    await other.feed.start(PATIENT_S)
    for number in (1, 2, 3):
        one.feed.tell(placed(1, number))
    await until(lambda: other.heard)
    assert other.heard == [placed(1, 3)]
    assert one.feed.dropped == 2


async def test_an_error_that_nobody_foresaw_is_said_with_its_trace_and_survived(
    party: Callable[..., Party], shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = party(1), party(2)
    await other.feed.start(PATIENT_S)
    one.journal.breaks = True
    await one.feed.start(0.0)
    one.feed.tell(placed(1, 1))
    await until(lambda: len([record for record in caplog.records if record.exc_info]) == 2)
    assert one.feed.figures()["problem"] == "ZeroDivisionError()"
    one.journal.breaks = False
    await until(lambda: other.heard)
    await until(lambda: one.feed.figures()["problem"] is None)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_feed, "FRESH_S", 0.2)
    monkeypatch.setattr(journal_feed, "_JUDGE_S", 0.01)
    monkeypatch.setattr(journal_feed, "_BACKOFF_S", (0.005, 0.02))


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("fault", ["refuses", "is_silent", "is_deaf"])
async def test_others_are_not_heard_means_that_nothing_is_shared(
    party: Callable[..., Party], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused; silent; and with only one direction working: what we tell does not come back."""
    said: list[bool] = []
    one = party(1)
    one.feed.on_shares = said.append
    await one.feed.start(PATIENT_S)
    assert one.feed.shares
    setattr(one.journal, fault, True)
    one.feed.tell(placed(1, 1))
    await until(lambda: not one.feed.shares)
    setattr(one.journal, fault, False)
    if fault != "is_silent":
        await until(lambda: one.feed.shares)
        assert said == [True, False, True]
    if fault == "refuses":
        said_again = [record.message for record in caplog.records]
        assert len([line for line in said_again if "can't be told" in line]) == 1
        assert len([line for line in said_again if "can't be heard" in line]) == 1


@pytest.mark.usefixtures("_quick")
async def test_a_frame_that_the_journal_lost_is_not_waited_for_forever(
    party: Callable[..., Party], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_feed, "_GIVEN_UP_S", 0.4)
    one = party(1)
    await one.feed.start(PATIENT_S)
    one.journal.is_deaf = True
    one.feed.tell(placed(1, 1))
    await until(lambda: not one.feed.shares)
    await until(lambda: one.feed.shares)


async def test_what_was_told_last_is_written_when_the_gateway_stops(
    party: Callable[..., Party], shelf: Shelf
) -> None:
    one = party(1)
    await one.feed.start(PATIENT_S)
    for number in range(300):
        one.feed.tell(placed(1, number))
    await one.feed.close(PATIENT_S)
    late = party(2)
    await late.feed.start(PATIENT_S)
    assert len(late.heard) == 300


async def test_a_long_history_lets_others_have_their_turn(
    party: Callable[..., Party], shelf: Shelf
) -> None:
    blobs = tuple(encode(placed(9, number, 100)) for number in range(40))
    await shelf.add([packed(Frame(9, number + 1, blobs)) for number in range(50)])
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.get_running_loop().create_task(others())
    one = party(1)
    await one.feed.start(PATIENT_S)
    assert len(one.heard) == 2000
    assert turns > 5
    counting.cancel()


async def test_without_a_journal_nothing_waits_and_nothing_is_shared() -> None:
    feed = Feed("pool", NoJournal(), 1, lambda _: None)
    async with asyncio.timeout(PATIENT_S):
        await feed.start(PATIENT_S)
        for number in range(100):
            feed.tell(placed(1, number))
        assert feed.figures()["waiting"] == 0
        assert not feed.shares
        await feed.close(PATIENT_S)

"""What is counted is written, once, whatever the store does meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
import structlog

from gateway.accounts import Accounts
from gateway.cache import Clock
from gateway.core.causes import Cause, Share
from gateway.core.hits import MOST
from gateway.core.ledger import MOST_TOKENS, Amounts, Line, added
from gateway.core.model import Usage
from gateway.core.records import CallRecord
from gateway.exchange import Exchange, Spared
from gateway.store.base import StoreUnavailable
from gateway.store.ledger import Batch, MemoryLedger, Spoiled
from gateway.telemetry.metrics import NULL_METRICS
from tests.helpers.simulated_clock import run_simulated

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.store.ledger import LedgerStore
    from gateway.telemetry.metrics import Metrics
    from gateway.upstream.choice import Endpoint

NOW = 1_795_305_600.0
DAY = "2026-11-22"
CALL = CallRecord(
    at=NOW,
    upstream="openai",
    provider="openai",
    api="openai_chat",
    model="gpt-4o",
    scope="1a2b3c4d",
    purpose="request",
    usage=Usage(uncached_input=100, output=10),
    shares={},
)
COST = 100 * 2_500_000 + 10 * 10_000_000


@dataclass
class Shaky(MemoryLedger):
    """Does with each batch what it is told; then it is well."""

    faults: list[str] = field(default_factory=list)
    tried: list[int] = field(default_factory=list)
    forgot: list[str] = field(default_factory=list)
    shared: str = ""
    written: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        super().__init__()

    async def add(self, batch: Batch) -> None:
        self.tried.append(batch.number)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "before":
            raise StoreUnavailable("away")
        await super().add(batch)
        if fault == "after":
            raise StoreUnavailable("the reply was lost")
        if fault == "spoiled":
            raise Spoiled("one of them")
        self.written.set()

    async def today(self) -> str:
        return self.shared

    async def forget(self, before: str) -> None:
        self.forgot.append(before)


def served() -> Exchange:
    """A request that was answered from the cache."""
    exchange = Exchange("gw_1", "POST", "/v1/chat/completions", "http", 0.0)
    exchange.endpoint = cast("Endpoint", SimpleNamespace(caches_as="openai"))
    exchange.api, exchange.scope, exchange.model = "openai_chat", "x", "gpt-4o"
    return exchange


def accounts(ledger: LedgerStore | None, now: Callable[[], float] = lambda: NOW) -> Accounts:
    clock = Clock(now=now, monotonic=lambda: 0.0)
    return Accounts(ledger, NULL_METRICS, clock, writer="w", retention_days=30)


async def sums(ledger: LedgerStore) -> Amounts:
    total = Amounts()
    for _, amounts in (await ledger.read("2026-01-01", "2026-12-31")).rows:
        total = added(total, amounts)
    return total


async def test_what_is_counted_is_written_and_told() -> None:
    ledger = MemoryLedger()
    books = accounts(ledger)

    assert books.called(CALL) == COST
    hit = served()
    books.hit(hit, Spared(CALL.usage, "gpt-4o"))
    books.hit(hit, Spared(CALL.usage, "gpt-4o", instead=False))
    assert hit.saved_pd == COST
    assert books.waiting == 2
    told = await books.savings(DAY, DAY, ["cause"])

    assert (told["total"]["paid_pd"], told["total"]["saved_pd"]) == (str(COST), str(COST))
    assert [row["cause"] for row in told["rows"]] == ["request", "response_hit"]
    assert (told["kept_in"], told["lasting"], told["missing_days"]) == ("memory", False, [])
    assert told["unwritten"] == {"lines": 0, "for_s": None}


async def test_hits_of_many_kinds_are_all_counted_and_few_are_remembered() -> None:
    ledger = MemoryLedger()
    books = accounts(ledger)
    for number in range(3 * MOST):
        hit = served()
        hit.scope = f"{number % (MOST + 7):08x}"
        books.hit(hit, Spared(CALL.usage, "gpt-4o"))
    assert await books.flush()
    total = await sums(ledger)
    assert (total.times, total.spared_pd) == (3 * MOST, 3 * MOST * COST)


async def test_what_comes_while_it_is_written_waits_for_the_next_time() -> None:
    class Busy(MemoryLedger):
        async def add(self, batch: Batch) -> None:
            batches.append(batch.number)
            assert len(batches) < 10, "it never ends"
            await super().add(batch)
            books.hit(served(), Spared(CALL.usage, "gpt-4o"))

    batches: list[int] = []
    books = accounts(Busy())
    books.hit(served(), Spared(CALL.usage, "gpt-4o"))
    assert await books.flush()
    assert (batches, books.waiting) == ([1], 1)
    assert books._changed.is_set()


@pytest.mark.parametrize(
    "faults",
    [["after"], ["before"], ["after", "after", "before"], ["before", "after", "before", "after"]],
)
async def test_a_batch_whose_fate_is_not_known_is_sent_again_and_counted_once(
    faults: list[str],
) -> None:
    ledger = Shaky(faults=list(faults))
    books = accounts(ledger)
    with structlog.testing.capture_logs():
        for _ in range(len(faults) + 2):
            books.called(CALL)
            await books.flush()

    assert (await sums(ledger)).times == len(faults) + 2
    assert ledger.tried[: len(faults) + 1] == [1] * (len(faults) + 1)
    assert books.waiting == 0


async def test_a_batch_that_others_values_spoil_is_not_sent_again() -> None:
    ledger = Shaky(faults=["spoiled"])
    books = accounts(ledger)
    books.called(CALL)
    with structlog.testing.capture_logs() as logs:
        assert await books.flush()

    assert [each["event"] for each in logs] == ["a part of the ledger can't be written"]
    assert (await sums(ledger)).times == 1


async def test_while_the_store_is_away_sums_wait_and_no_line_more_than_before() -> None:
    ledger = Shaky(faults=["before"] * 3)
    books = accounts(ledger)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            for _ in range(1000):
                books.called(CALL)
            assert not await books.flush()
            # One sum that may have been written, and one that waits behind it.
            assert books.waiting <= 2
    told = await books.savings(DAY, DAY, [])

    assert told["total"]["calls"] == 3000
    assert books.waiting == 0
    assert len(logs) == 1


def test_the_task_writes_each_interval_and_the_end_what_is_left() -> None:
    async def live() -> None:
        ledger = Shaky()
        books = accounts(ledger)
        books.start()
        for number in range(3):
            books.called(CALL)
            ledger.written.clear()
            async with asyncio.timeout(5):
                await ledger.written.wait()
            assert (await sums(ledger)).times == number + 1
        books.called(CALL)
        await books.close()
        assert (await sums(ledger)).times == 4
        assert ledger.tried == [1, 2, 3, 4]

    run_simulated(live())


def test_an_end_while_the_store_is_away_says_what_is_lost() -> None:
    async def live() -> None:
        books = accounts(Shaky(faults=["before"] * 100))
        books.start()
        books.called(CALL)
        with structlog.testing.capture_logs() as logs:
            await books.close()
        lost = logs[-1]
        assert lost["event"] == "the ledger could not be written: this is not in it"
        assert (lost["calls"], lost["paid_usd"]) == (1, COST / 1e12)

    run_simulated(live())


async def test_old_days_go_once_a_day() -> None:
    now = [NOW]
    ledger = Shaky()
    books = accounts(ledger, lambda: now[0])
    for at in (NOW, NOW + 100, NOW + 86_400):
        now[0] = at
        books.called(replace(CALL, at=at))
        await books.flush()

    assert ledger.forgot == ["2026-10-23", "2026-10-24"]


async def test_a_clock_that_is_ahead_takes_nobodys_books_for_old() -> None:
    ledger = Shaky(shared="2026-11-22")
    books = accounts(ledger, lambda: NOW + 1000 * 86_400)
    books.called(CALL)
    await books.flush()

    assert ledger.forgot == ["2026-10-23"]


async def test_more_than_a_batch_goes_out_in_several() -> None:
    ledger = Shaky()
    books = accounts(ledger)
    for number in range(1500):
        books.called(replace(CALL, model=f"m{number % 100}", scope=f"{number // 100:08x}"))
    await books.flush()

    assert ledger.tried == [1, 2, 3, 4, 5, 6]
    assert (await sums(ledger)).times == 1500


async def test_nothing_is_kept_where_the_config_says_so() -> None:
    books = accounts(None)
    books.start()

    assert books.called(CALL) == COST
    with pytest.raises(LookupError, match=r"ledger\.enabled"):
        await books.savings(DAY, DAY, [])
    await books.close()


async def test_what_can_not_be_counted_fails_nobody() -> None:
    books = accounts(MemoryLedger())
    with structlog.testing.capture_logs() as logs:
        assert books.called(replace(CALL, purpose="a whim")) is None

    assert [each["event"] for each in logs] == ["a call can't be counted"]


@pytest.mark.parametrize(
    ("call", "cost"),
    [
        (replace(CALL, model="gpt-nobody-knows"), None),
        (replace(CALL, usage=None), None),
        (replace(CALL, usage=None, failed=True), None),
        (replace(CALL, provider="vllm", engine=True), None),
        (replace(CALL, terms=("flex",)), COST // 2),
        (replace(CALL, terms=("priority",)), None),
    ],
)
async def test_what_a_call_cost_is_told_only_where_it_is_known(
    call: CallRecord, cost: int | None
) -> None:
    assert accounts(None).called(call) == cost


async def test_what_it_read_is_told_by_cause() -> None:
    ledger = MemoryLedger()
    books = accounts(ledger)
    shares = {Cause.AUTOMATIC: Share(64, 0, 0), Cause.OURS: Share(), Cause.CLIENT: Share()}
    books.called(replace(CALL, usage=Usage(36, 64, output=10), shares=shares))
    await books.flush()

    rows = dict((await ledger.read(DAY, DAY)).rows)
    automatic = Line(DAY, "openai", "gpt-4o", "1a2b3c4d", "automatic")
    assert rows[automatic].spared_pd == 64 * 1_250_000


@dataclass
class Counted:
    """Stands for the metrics: what was told of prompt caches."""

    enabled: bool = True
    answers: int = 0
    costs: int = 0

    @property
    def prompt_cache(self) -> Counted:
        return self

    def answered(self, *_: object) -> None:
        self.answers += 1

    def paid(self, *_: object, **__: object) -> None:
        self.costs += 1


@pytest.mark.parametrize(
    ("call", "answers", "costs"),
    [
        (CALL, 1, 1),
        (replace(CALL, purpose="revalidate"), 0, 1),
        (replace(CALL, purpose="refresh"), 0, 1),
        (replace(CALL, model="gpt-nobody-knows"), 1, 0),
        (replace(CALL, provider="vllm", engine=True), 1, 0),
        (replace(CALL, usage=Usage(uncached_input=MOST_TOKENS + 1)), 0, 0),
        (replace(CALL, usage=None), 0, 0),
    ],
)
async def test_what_prompt_caches_gave_is_told_of_clients_calls_of_known_usage(
    call: CallRecord, answers: int, costs: int
) -> None:
    metrics = Counted()
    clock = Clock(now=lambda: NOW, monotonic=lambda: 0.0)
    Accounts(None, cast("Metrics", metrics), clock, writer="w").called(call)
    assert (metrics.answers, metrics.costs) == (answers, costs)

"""What tabs of the admin port's page ask is asked once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from gateway.accounts import Accounts
from gateway.cache import Clock
from gateway.core.ledger import Amounts, Line
from gateway.overview import SAVINGS_DAYS, SHARED_S, Overview
from gateway.store.ledger import Batch, Kept, MemoryLedger
from gateway.telemetry.metrics import NULL_METRICS

if TYPE_CHECKING:
    from collections.abc import Collection

DAY = "2026-11-22"


class Counted(MemoryLedger):
    """How often it was read."""

    reads = 0

    async def sums(self, since: str, until: str, by: Collection[str]) -> Kept:
        self.reads += 1
        return await super().sums(since, until, by)

    async def read(self, since: str, until: str) -> Kept:
        raise AssertionError(f"all lines from {since} to {until} are on the loop")


async def test_tabs_that_are_open_together_cost_one_reading_in_some_seconds() -> None:
    now = 0.0
    ledger = Counted()
    clock = Clock(now=lambda: 1_795_305_600.0, monotonic=lambda: now)
    accounts = Accounts(ledger, NULL_METRICS, clock, writer="w")
    nobody = cast("Any", None)
    overview = Overview(
        planning=nobody,
        routing=nobody,
        pools=nobody,
        engines=nobody,
        accounts=accounts,
        clock=clock,
    )
    line = Line(DAY, "openai", "gpt-4o", "1a2b3c4d", "request")
    await ledger.add(Batch("w", 1, {line: Amounts(1, paid_pd=5)}))

    told = [*await asyncio.gather(*(overview.savings() for _ in range(20)))]
    told.append(await overview.savings())

    assert ledger.reads == 1
    assert {each["total"]["paid_pd"] for each in told} == {"5"}
    assert [len(each["rows"]) for each in told] == [SAVINGS_DAYS] * 21
    await ledger.add(Batch("w", 2, {line: Amounts(1, paid_pd=5)}))
    now = SHARED_S
    assert (await overview.savings())["total"]["paid_pd"] == "10"
    assert ledger.reads == 2

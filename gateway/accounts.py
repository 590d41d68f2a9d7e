"""What is paid and saved, told by whoever makes a call or serves without one: priced, counted in
metrics and in the ledger, and written down by one task.

Rule 1: nobody waits for it: counting is an addition in memory, the store is written to behind.
Rule 2: what could not be written waits, as sums, and is written later. A batch whose fate is not
known is sent again under its number, so it is counted once.
Rule 3: a kill loses what was counted since the last writing, `ledger.flush_interval_s` at most; a
clean stop loses nothing that the store takes.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import structlog

from gateway.core.days import before, day_of
from gateway.core.hits import Hit, Hits
from gateway.core.ledger import OWN, LedgerCause, of_call
from gateway.core.ledger_cells import Cells
from gateway.core.money import usd
from gateway.core.records import CallRecord
from gateway.core.savings import summary
from gateway.planned import shares_of
from gateway.providers import prices
from gateway.providers.base import ENGINES
from gateway.providers.prompt_cache_rules import LONGEST_MODEL
from gateway.statements import Statements
from gateway.store.base import StoreUnavailable
from gateway.store.ledger import Batch, Spoiled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.cache import Clock
    from gateway.core.causes import Cause, Share
    from gateway.core.ledger import Amounts, Line
    from gateway.core.model import Answer, Usage
    from gateway.exchange import Exchange, Spared
    from gateway.planned import Planned
    from gateway.providers.prices import Price
    from gateway.store.ledger import LedgerStore
    from gateway.telemetry.metrics import Metrics
    from gateway.turn import Turn
    from gateway.upstream.choice import Endpoint

_log = structlog.get_logger("warmgate.accounts")

_LINES_AT_ONCE = 250
"""Of one batch: some milliseconds of the store's time."""
_STOP_S = 3.0
_LOG_EVERY_S = 60.0


class Accounts:
    """Owns what is not written yet, and the task that writes it. For one event loop."""

    def __init__(
        self,
        ledger: LedgerStore | None,
        metrics: Metrics,
        clock: Clock,
        *,
        writer: str,
        interval_s: float = 1.0,
        retention_days: int = 400,
    ) -> None:
        """`ledger` None: nothing is kept, metrics are counted all the same. `writer` is another one
        in each process.
        """
        self.on_call: Callable[[CallRecord, Amounts], None] | None = None
        """Is told of each call, and of the line of its own."""
        self._ledger = ledger
        self._metrics = metrics
        self._clock = clock
        self._writer = writer
        self._interval_s = interval_s
        self._retention_days = retention_days
        self._cells = Cells()
        self._hits = Hits()
        self._number = 0
        self._sent: Batch | None = None
        """Whose fate is not known."""
        self._since: float | None = None
        self._trimmed = ""
        self._writing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._logged_at = float("-inf")
        self._statements = (
            None if ledger is None else Statements(ledger, clock, self.flush, self._unwritten)
        )

    def __repr__(self) -> str:
        return f"<Accounts {self._ledger!r}, {self._cells!r}, {self._number} batches>"

    @property
    def waiting(self) -> int:
        """Lines that are not written yet."""
        return len(self._fold()) + (len(self._sent.cells) if self._sent is not None else 0)

    # --- counting -------------------------------------------------------------------------------

    def called(self, call: CallRecord, label: str = "") -> int | None:
        """A call of a model is over; metrics name it by `label`. Returns what it cost, in
        picodollars; None: nobody knows, or nobody bills it. Never raises.
        """
        try:
            price = None if call.engine else _price(call.provider, call.api, call.model, call.terms)
            lines = of_call(call, price)
            self._keep(lines)
            self._tell(call, label or call.model, lines)
            if self.on_call is not None:
                self.on_call(call, lines[0][1])
        except Exception:  # noqa: BLE001 - accounts are no reason to fail a request
            self._failed("a call can't be counted")
            return None
        amounts = lines[0][1]
        priced = amounts.times > amounts.failed + amounts.unknown + amounts.unpriced
        return amounts.paid_pd if priced and not call.engine else None

    def asked(
        self,
        turn: Turn,
        planned: Planned | None,
        answer: Answer | None,
        *,
        failed: bool,
        prefill_s: float | None = None,
    ) -> None:
        """A client's request was sent to a model, and this came of it: `called`, and told to its
        exchange.
        """
        exchange, known = turn.exchange, turn.known
        usage = answer.usage if answer is not None else None
        provider = known.endpoint.caches_as if planned is None else planned.provider
        asked = exchange.model or ""
        cost = self.called(
            CallRecord(
                at=self._clock.now(),
                upstream=known.endpoint.name,
                provider=provider,
                api=turn.api.name,
                model=(answer.model if answer is not None else "") or asked,
                scope=exchange.scope,
                purpose=exchange.purpose,
                usage=usage,
                shares=self._shares(planned, usage),
                terms=answer.terms if answer is not None else (),
                engine=provider in ENGINES,
                prefill_s=prefill_s,
                failed=failed,
            ),
            asked,
        )
        if cost is not None:
            exchange.paid_pd = (exchange.paid_pd or 0) + cost

    def _shares(self, planned: Planned | None, usage: Usage | None) -> Mapping[Cause, Share]:
        if planned is None or usage is None:
            return {}
        try:
            return shares_of(planned, usage)
        except Exception:  # noqa: BLE001 - as above
            self._failed("nobody can be said to have caused what was read")
            return {}

    def own(
        self,
        endpoint: Endpoint,
        api: str,
        model: str,
        why: str,
        answer: Answer | None,
        *,
        failed: bool,
    ) -> None:
        """A call that nobody asked for."""
        provider = endpoint.caches_as
        self.called(
            CallRecord(
                at=self._clock.now(),
                upstream=endpoint.name,
                provider=provider,
                api=api,
                model=model,
                scope="",
                purpose=why,
                usage=answer.usage if answer is not None else None,
                shares={},
                terms=answer.terms if answer is not None else (),
                engine=provider in ENGINES,
                failed=failed,
            ),
            model,
        )

    def hit(self, exchange: Exchange, spared: Spared) -> None:
        """A request was served what nobody paid again: counted, and told to its exchange."""
        assert exchange.endpoint is not None
        provider = exchange.endpoint.caches_as
        usage, model, terms, instead = spared
        if usage is not None:
            self._metrics.saved(usage, provider, model)
        api, model = exchange.api or "", model or exchange.model or ""
        if self._hits.is_full:
            self._fold()
        engine = provider in ENGINES
        try:
            saved = self._hits.add(
                Hit(provider, api, model, exchange.scope, usage, terms, instead, engine),
                self._clock.now(),
                lambda: _price(provider, api, model, terms),
            )
        except Exception:  # noqa: BLE001 - as above
            self._failed("an answer can't be counted")
            return
        if saved is not None:
            exchange.saved_pd = (exchange.saved_pd or 0) + saved
        self._noticed()

    def _keep(self, lines: Sequence[tuple[Line, Amounts]]) -> None:
        if self._ledger is not None:
            self._cells.add(lines)
            self._noticed()

    def _noticed(self) -> None:
        if self._ledger is not None and self._since is None:
            self._since = self._clock.monotonic()
            self._changed.set()

    def _fold(self) -> Cells:
        """All that waits, the hits as well."""
        hits = self._hits.take()
        if self._ledger is not None:
            self._cells.add(hits)
        return self._cells

    def _tell(self, call: CallRecord, label: str, lines: Sequence[tuple[Line, Amounts]]) -> None:
        """The same numbers in the metrics."""
        if not self._metrics.enabled or call.usage is None or call.failed:
            return
        (line, own), told = lines[0], self._metrics.prompt_cache
        if own.unknown:
            return
        if line.cause not in OWN:
            told.answered(call.shares, call.provider, label)
        if own.unpriced or call.engine:
            return
        gains = {
            cause: amounts
            for cause in call.shares
            for line, amounts in lines[1:]
            if line.cause == LedgerCause(cause.value)
        }
        told.paid(
            usd(own.paid_pd),
            {cause: usd(amounts.spared_pd) for cause, amounts in gains.items()},
            {cause: usd(amounts.premium_pd) for cause, amounts in gains.items()},
            provider=call.provider,
            model=label,
        )

    # --- writing --------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to write, if anything is kept."""
        if self._ledger is not None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="ledger")

    async def close(self) -> None:
        """Write what waits, once more, and end."""
        self._stopping = True
        self._changed.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=1.0)
        if self._ledger is None or self._statements is None:
            return
        await self._statements.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await self.flush()
        if self.waiting:
            sent = {} if self._sent is None else self._sent.cells
            lost = summary([*self._fold().sums().items(), *sent.items()])[0]
            _log.error(
                "the ledger could not be written: this is not in it",
                calls=lost["calls"],
                answers=lost["answers"],
                paid_usd=lost["paid_usd"],
                saved_usd=lost["saved_usd"],
                unsure=self._sent is not None,
            )
        await self._ledger.close()

    async def flush(self) -> bool:
        """Write what waits; False: the store didn't take all of it, it waits on."""
        if self._ledger is None:
            return True
        async with self._writing:
            try:
                # Not what comes meanwhile: under load there would be no end.
                waits = len(self._fold())
                while self._sent is not None or waits > 0:
                    waits -= 0 if self._sent is not None else _LINES_AT_ONCE
                    await self._write(self._ledger)
                self._since = None
                if len(self._fold()):
                    self._noticed()
                await self._trim(self._ledger)
            except StoreUnavailable as exc:
                self._failed("the ledger can't be written: it waits", str(exc))
                return False
            return True

    async def _write(self, ledger: LedgerStore) -> None:
        if self._sent is None:
            self._number += 1
            self._sent = Batch(self._writer, self._number, self._cells.take(_LINES_AT_ONCE))
        try:
            await ledger.add(self._sent)
        except Spoiled as exc:
            self._failed("a part of the ledger can't be written", str(exc))
        if self._statements is not None:
            self._statements.wrote(self._sent.cells)
        # (Cancelled, or unavailable: the same batch goes out again.)
        self._sent = None

    async def _trim(self, ledger: LedgerStore) -> None:
        today = day_of(self._clock.now())
        if self._trimmed != today:
            # A clock of our own that is ahead must not take everybody's books for old.
            last = min(today, await ledger.today() or today)
            await ledger.forget(before(last, self._retention_days))
            self._trimmed = today

    async def _run(self) -> None:
        while not self._stopping:
            await self._changed.wait()
            self._changed.clear()
            await asyncio.sleep(self._interval_s)
            try:
                if not await self.flush():
                    self._changed.set()
            except Exception:  # noqa: BLE001 - the next one may go better
                self._failed("writing the ledger failed")
                self._changed.set()

    # --- reading --------------------------------------------------------------------------------

    async def savings(
        self, since: str, until: str, by: Sequence[str], max_age_s: float = 0.0
    ) -> dict[str, Any]:
        """What was paid and saved on these days (both included, `2026-11-22`), by all gateways on
        this store, as it was `max_age_s` ago or later: see docs/reference/savings.md. Not to be
        changed. Raises `StoreUnavailable`, ValueError for what is no day or no member, LookupError
        where nothing is kept.
        """
        if self._statements is None:
            raise LookupError("nothing is kept: ledger.enabled is false")
        return await self._statements.told(since, until, by, max_age_s)

    def _unwritten(self) -> dict[str, Any]:
        waits = None if self._since is None else self._clock.monotonic() - self._since
        return {"lines": self.waiting, "for_s": waits and round(waits, 3)}

    def _failed(self, what: str, why: str = "") -> None:
        now = self._clock.monotonic()
        if now - self._logged_at < _LOG_EVERY_S:
            return
        self._logged_at = now
        if why:
            _log.warning(what, why=why, waiting=self.waiting)
        else:
            _log.exception(what)


def _price(provider: str, api: str, model: str, terms: tuple[str, ...]) -> Price | None:
    # What an answer calls its model, or a client asks for, may have megabytes: not to be remembered.
    if len(model) + sum(map(len, terms)) > LONGEST_MODEL:
        return None
    return _listed(provider, api, model, terms)


@lru_cache(maxsize=1024)
def _listed(provider: str, api: str, model: str, terms: tuple[str, ...]) -> Price | None:
    return prices.price(provider, api, model, terms)

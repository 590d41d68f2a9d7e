"""What became of requests is said behind their answers: metrics, the ledger, a log line, the record.

Rule 1: not while others wait to be answered. What ended in one turn of the event loop is said together
in the next: no client waits for it, and many at once cost each a third of what they would alone.
Rule 2: nothing that goes wrong in saying so fails a request, or keeps the next from being told.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.accounts import Accounts
    from gateway.core.records import RequestRecord
    from gateway.exchange import Exchange
    from gateway.telemetry.metrics import Metrics

_log = structlog.get_logger("warmgate.telling")

_MOST = 128
"""Are said together: about a millisecond."""


class Telling:
    """Owns the requests that ended and were not told of yet. For one event loop."""

    def __init__(self, metrics: Metrics, accounts: Accounts) -> None:
        self.on_record: Callable[[RequestRecord], None] | None = None
        """Told of each request when it is over."""
        self._metrics = metrics
        self._accounts = accounts
        self._ended: list[Exchange] = []

    def __repr__(self) -> str:
        return f"<Telling {len(self._ended)} ended>"

    def over(self, exchange: Exchange, now: float) -> None:
        """This one ended, now. Never raises."""
        try:
            exchange.end(now)
        except Exception:  # noqa: BLE001 - the client has its answer
            _log.exception("a request can't be told", request_id=exchange.request_id)
        ended = self._ended
        ended.append(exchange)
        if len(ended) == 1:
            asyncio.get_running_loop().call_soon(self.flush)
        elif len(ended) >= _MOST:
            self.flush()

    def flush(self) -> None:
        """Say it now. Never raises."""
        if not self._ended:
            return
        ended, self._ended = self._ended, []
        for exchange in ended:
            try:
                for spared in exchange.spared:
                    self._accounts.hit(exchange, spared)
                exchange.tell(self._metrics, self.on_record)
            except Exception:  # noqa: BLE001
                _log.exception("a request can't be told", request_id=exchange.request_id)

"""What a gateway holds whatever its config says: made once, and handed from config to config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.acceptance import Acceptance
from gateway.accounts import Accounts
from gateway.budget import Budget, container_bytes, default_limit
from gateway.core.recent import Recent
from gateway.flights import Flights
from gateway.keeping import Keeping
from gateway.randomness import Randomness
from gateway.recognition import reading_threads
from gateway.serving import Serving
from gateway.store.ledger import open_ledger
from gateway.store.tiered import TieredStore
from gateway.telling import Telling
from gateway.warm import Warm

if TYPE_CHECKING:
    from gateway.background import Background
    from gateway.cache import Clock
    from gateway.config import Config
    from gateway.store.base import Store
    from gateway.store.generations import Generations
    from gateway.store.secret import ScopeSecrets
    from gateway.telemetry.setup import Telemetry
    from gateway.upstream.client import UpstreamClient

MOST_CALLS = 10_000
"""Calls that requests may share, at once; beyond that each makes its own."""

# What is remembered of hot entries, beside the memory tier: an eighth of its budget.
_WARM_PART = 8


@dataclass(frozen=True, slots=True)
class Parts:
    """What has a life of its own: started before the proxy and closed after it."""

    store: Store
    generations: Generations
    secrets: ScopeSecrets
    client: UpstreamClient
    background: Background
    """Owns what is written behind responses."""
    calls: Background
    """Owns the calls that requests share."""
    telemetry: Telemetry
    clock: Clock


class Lasting:
    """Budgets, calls that are under way, and what is remembered of answers, credentials and money."""

    def __init__(self, config: Config, parts: Parts) -> None:
        store, telemetry, clock = parts.store, parts.telemetry, parts.clock
        self.random_bytes = Randomness()
        self.records = store.back if isinstance(store, TieredStore) else store
        self.warm = Warm(config.store.memory_bytes // _WARM_PART)
        self.budget = Budget(_budget_bytes(config))
        self.keeping = Keeping(
            store,
            parts.background,
            telemetry,
            clock,
            records=self.records,
            generations=parts.generations,
            budget=self.budget,
        )
        self.acceptance = Acceptance(config.cache.auth_ttl_s, clock.monotonic)
        self.serving = Serving(telemetry, clock, self.random_bytes, self.warm)
        self.flights = Flights(parts.calls, config.cache.max_entry_bytes, self.budget)
        telemetry.metrics.watch_flights(lambda: self.flights.waiters)
        said = config.ledger
        self.accounts = Accounts(
            open_ledger(store) if said.enabled else None,
            telemetry.metrics,
            clock,
            writer=self.random_bytes(8).hex(),
            interval_s=said.flush_interval_s,
            retention_days=said.retention_days,
        )
        self.telling = Telling(telemetry.metrics, self.accounts)
        most = config.admin.recent_requests
        self.recent = Recent(most) if most else None
        if self.recent is not None:
            self.telling.on_record = self.recent.add
            self.accounts.on_call = self.recent.minutes.called
        self.readers = reading_threads()
        self.watched: set[str] = set()
        """What metrics show already: instruments are made once."""

    def __repr__(self) -> str:
        return f"<Lasting {self.budget!r}, {len(self.flights)} calls under way>"

    def turn(self, config: Config) -> None:
        """Another config holds. What is held beyond a smaller budget ends as it would."""
        self.budget.limit_bytes = _budget_bytes(config)
        self.acceptance.ttl_s = config.cache.auth_ttl_s
        self.flights.limit_bytes = config.cache.max_entry_bytes


def _budget_bytes(config: Config) -> int:
    return config.server.memory_budget_bytes or default_limit(container_bytes())

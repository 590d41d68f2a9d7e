"""How the way of a request is put together from its parts. A piece of the composition root."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.acceptance import Acceptance
from gateway.accounts import Accounts
from gateway.answering import Answering
from gateway.asking import Asking
from gateway.batches import Batches
from gateway.budget import Budget, container_bytes, default_limit
from gateway.cache import ResponseCache
from gateway.coalescing import Coalescing
from gateway.core.affinity import Affinity
from gateway.core.recent import Recent
from gateway.door import Door
from gateway.explained import Explained
from gateway.explaining import Explaining
from gateway.flights import Flights
from gateway.keeping import Keeping
from gateway.overview import Overview
from gateway.placements import Placements
from gateway.planning import Planning
from gateway.prefill import Prefill
from gateway.proxy import Proxy
from gateway.randomness import Randomness
from gateway.recognition import Recognition
from gateway.refreshing import Refreshing
from gateway.routing import Routing
from gateway.sending import Sending
from gateway.server import forwarding
from gateway.server.admin_page import AdminPage
from gateway.server.admin_savings import AdminSavings
from gateway.serving import Serving
from gateway.store.inventory import Inventory
from gateway.store.journals import open_journal
from gateway.store.ledger import open_ledger
from gateway.store.tiered import TieredStore
from gateway.telemetry.spans import NULL_ATTEMPT
from gateway.telling import Telling
from gateway.upstream.choice import Choice
from gateway.upstream.engines import Engines
from gateway.upstream.pools import Pools
from gateway.warm import Warm
from gateway.warming import Warming
from gateway.welcome import Welcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.background import Background
    from gateway.cache import Clock
    from gateway.config import Config
    from gateway.store.base import Store
    from gateway.store.generations import Generations
    from gateway.store.secret import ScopeSecrets
    from gateway.telemetry.setup import Telemetry
    from gateway.upstream.choice import Endpoint
    from gateway.upstream.client import Call, UpstreamClient

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


class Assembled(NamedTuple):
    """What a gateway is worked by."""

    proxy: Proxy
    telling: Telling
    explaining: Explaining
    planning: Planning
    warming: Warming
    refreshing: Refreshing
    engines: Engines
    pools: Pools
    routing: Routing
    placements: Placements
    welcome: Welcome
    page: AdminPage
    accounts: Accounts
    savings: AdminSavings


def assemble(config: Config, parts: Parts) -> Assembled:
    """The proxy of one config, and who does something beside it."""
    store, telemetry, clock = parts.store, parts.telemetry, parts.clock
    choice = Choice(config)
    pools = _pools(config, parts, choice)
    door = Door(config.cache.door_entries, config.generation().encode())
    records = store.back if isinstance(store, TieredStore) else store
    random_bytes = Randomness()
    warm = Warm(config.store.memory_bytes // _WARM_PART)
    budget = Budget(config.server.memory_budget_bytes or default_limit(container_bytes()))
    keeping = Keeping(
        store,
        parts.background,
        telemetry,
        clock,
        records=records,
        generations=parts.generations,
        budget=budget,
    )
    cache = ResponseCache(
        store,
        telemetry,
        clock,
        records,
        generations=parts.generations,
        max_entry_bytes=config.cache.max_entry_bytes,
        warm=warm,
    )
    acceptance = Acceptance(config.cache.auth_ttl_s, clock.monotonic)
    routing = Routing(
        pools=pools.values(),
        client=parts.client,
        metrics=telemetry.metrics,
        clock=clock,
        random_bytes=random_bytes,
        affinity=Affinity,
    )
    placements = Placements(
        pools, partial(open_journal, store), int.from_bytes(random_bytes(8), "big")
    )
    if pools:
        telemetry.metrics.watch_pools(routing.told)
        telemetry.metrics.watch_sharing(placements.told)
    said = config.ledger
    accounts = Accounts(
        open_ledger(store) if said.enabled else None,
        telemetry.metrics,
        clock,
        writer=random_bytes(8).hex(),
        interval_s=said.flush_interval_s,
        retention_days=said.retention_days,
    )
    asking = Asking(
        config=config,
        routing=routing,
        keeping=keeping,
        acceptance=acceptance,
        budget=budget,
        telemetry=telemetry,
        clock=clock,
        accounts=accounts,
    )
    recognition = Recognition(config, choice, parts.secrets, door)
    planning = Planning(
        config=config,
        choice=choice,
        telemetry=telemetry,
        clock=clock,
        tenant=lambda turn: recognition.tenant(turn.request),
    )
    sending = Sending(asking, planning)
    prefill = Prefill(routing, telemetry, planning, accounts)
    welcome = Welcome(prefill, clock.monotonic)
    routing.begin(placements, welcome)
    refreshing = Refreshing(config, choice, prefill, clock)
    planning.on_answered = refreshing.saw
    serving = Serving(telemetry, clock, random_bytes, warm)
    flights = Flights(parts.calls, config.cache.max_entry_bytes, budget)
    telemetry.metrics.watch_flights(lambda: flights.waiters)
    coalescing = Coalescing(
        flights=flights,
        sending=sending,
        keeping=keeping,
        serving=serving,
        clock=clock,
    )
    explaining = Explaining(
        config=config,
        choice=choice,
        recognition=recognition,
        planning=planning,
        routing=routing,
        inventory=Inventory(store, parts.generations, clock.now),
        timer=clock.monotonic,
    )
    telling = Telling(telemetry.metrics, accounts)
    proxy = Proxy(
        config=config,
        choice=choice,
        routing=routing,
        recognition=recognition,
        cache=cache,
        keeping=keeping,
        answering=Answering(
            cache=cache,
            serving=serving,
            sending=sending,
            coalescing=coalescing,
            random_bytes=random_bytes,
        ),
        batches=Batches(
            config=config,
            asking=asking,
            cache=cache,
            keeping=keeping,
            telemetry=telemetry,
            clock=clock,
            random_bytes=random_bytes,
        ),
        explained=Explained(explaining, budget, config.server.explain_to),
        acceptance=acceptance,
        budget=budget,
        telemetry=telemetry,
        telling=telling,
        clock=clock,
        random_bytes=random_bytes,
    )
    recent = Recent(config.admin.recent_requests) if config.admin.recent_requests else None
    if recent is not None:
        telling.on_record = recent.add
        accounts.on_call = recent.minutes.called
    engines = _engines(parts, choice, pools, routing)
    overview = Overview(
        planning=planning,
        routing=routing,
        pools=pools,
        engines=engines,
        accounts=accounts,
        clock=clock,
    )
    return Assembled(
        proxy,
        telling,
        explaining,
        planning,
        Warming(config, choice, prefill),
        refreshing,
        engines,
        pools,
        routing,
        placements,
        welcome,
        AdminPage(recent, overview, clock.now),
        accounts,
        AdminSavings(accounts.savings, clock.now),
    )


def _engines(parts: Parts, choice: Choice, pools: Pools, routing: Routing) -> Engines:
    ask = _asker(parts, "text/plain;version=0.0.4, application/json;q=0.5")
    engines = Engines(choice.endpoints.values(), ask, parts.clock.monotonic, pools=pools)
    engines.on_sized, engines.on_restart = routing.engine_sized, routing.engine_emptied
    if engines:
        parts.telemetry.metrics.watch_engines(engines.told)
    return engines


def _pools(config: Config, parts: Parts, choice: Choice) -> Pools:
    pools = Pools(config.upstreams, choice.endpoints, _asker(parts, "*/*"), parts.clock.monotonic)
    for pool in pools.values():
        pool.on_forgotten = parts.client.forget
    return pools


def _asker(parts: Parts, accept: str) -> Callable[[Endpoint, str], Call]:
    """Who GETs a page of an endpoint for us."""

    def ask(endpoint: Endpoint, url: str) -> Call:
        headers = CIMultiDict({"Accept": accept})
        # With the credential that the config has: llama.cpp asks for one.
        sent = forwarding.request_headers(CIMultiDictProxy(headers), endpoint, "")
        return parts.client.call("GET", url, sent, None, endpoint, lambda _: NULL_ATTEMPT)

    return ask

"""How the way of a request is put together from its parts. A piece of the composition root.

Rule 1: what decides is made anew for each config; what has learned, counts, or owns tasks is handed on.
Rule 2: `assemble` and `reassemble` change nothing that serves; `turn` does, and can't fail half way: it
sets what is there already.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.answering import Answering
from gateway.asking import Asking
from gateway.batches import Batches
from gateway.cache import ResponseCache
from gateway.coalescing import Coalescing
from gateway.core.affinity import Affinity
from gateway.door import Door
from gateway.explained import Explained
from gateway.explaining import Explaining
from gateway.lasting import Lasting
from gateway.learned import Learned
from gateway.overview import Overview
from gateway.placements import Placements
from gateway.planning import Planning
from gateway.prefill import Prefill
from gateway.proxy import Proxy
from gateway.recognition import Recognition
from gateway.refreshing import Refreshing
from gateway.routing import Routing
from gateway.sending import Sending
from gateway.server import forwarding
from gateway.server.admin_page import AdminPage
from gateway.server.admin_savings import AdminSavings
from gateway.store.inventory import Inventory
from gateway.store.journals import open_journal
from gateway.telemetry.spans import NULL_ATTEMPT
from gateway.upstream.choice import Choice
from gateway.upstream.engines import Engines
from gateway.upstream.pools import Pools
from gateway.warming import Warming
from gateway.welcome import Welcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gateway.accounts import Accounts
    from gateway.config import Config
    from gateway.lasting import Parts
    from gateway.store.journal_feed import Feed
    from gateway.telling import Telling
    from gateway.upstream.choice import Endpoint
    from gateway.upstream.client import Call
    from gateway.upstream.replicas import Replicas
    from gateway.upstream.tended import Tended


class Assembled(NamedTuple):
    """What a gateway is worked by, under one config."""

    config: Config
    choice: Choice
    proxy: Proxy
    recognition: Recognition
    explaining: Explaining
    planning: Planning
    routing: Routing
    prefill: Prefill

    # From here on handed from config to config.
    lasting: Lasting
    telling: Telling
    accounts: Accounts
    pools: Pools
    placements: Placements
    engines: Engines
    welcome: Welcome
    warming: Warming
    refreshing: Refreshing
    overview: Overview
    page: AdminPage
    savings: AdminSavings


class Turned(NamedTuple):
    """What is still to be done once another config holds. Nobody waits for it."""

    arriving: list[Feed]
    """To be started."""
    leaving: list[Tended | Feed]
    """To be closed."""


class _Way(NamedTuple):
    proxy: Proxy
    recognition: Recognition
    explaining: Explaining
    planning: Planning
    routing: Routing
    prefill: Prefill


def assemble(config: Config, parts: Parts) -> Assembled:
    """The proxy of the first config, and who does something beside it."""
    clock = parts.clock
    choice, lasting = Choice(config), Lasting(config, parts)
    ask, forget = _asker(parts, "*/*"), parts.client.forget
    pools = Pools(config.upstreams, choice.endpoints, ask, clock.monotonic, forget=forget)
    placements = Placements(
        pools,
        partial(open_journal, parts.store),
        int.from_bytes(lasting.random_bytes(8), "big"),
    )
    way = _way(config, parts, lasting, choice, pools.values())
    ask = _asker(parts, "text/plain;version=0.0.4, application/json;q=0.5")
    engines = Engines(choice.endpoints.values(), ask, clock.monotonic, pools=pools)
    overview = Overview(
        planning=way.planning,
        routing=way.routing,
        pools=pools,
        engines=engines,
        accounts=lasting.accounts,
        clock=clock,
    )
    made = Assembled(
        config=config,
        choice=choice,
        **way._asdict(),
        lasting=lasting,
        telling=lasting.telling,
        accounts=lasting.accounts,
        pools=pools,
        placements=placements,
        engines=engines,
        welcome=Welcome(way.prefill, clock.monotonic),
        warming=Warming(config, choice, way.prefill),
        refreshing=Refreshing(config, choice, way.prefill, clock),
        overview=overview,
        page=AdminPage(lasting.recent, overview, clock.now),
        savings=AdminSavings(lasting.accounts.savings, clock.now),
    )
    _join(made, parts)
    return made


def reassemble(
    before: Assembled, config: Config, choice: Choice, parts: Parts, joining: Mapping[str, Tended]
) -> Assembled:
    """The same for another config, `choice` being its, with the pools that join (`Pools.joining`)."""
    pools = before.pools.after(joining, choice.endpoints)
    way = _way(config, parts, before.lasting, choice, pools, before=before)
    return before._replace(config=config, choice=choice, **way._asdict())


def turn(
    before: Assembled, after: Assembled, parts: Parts, joining: Mapping[str, Tended]
) -> Turned:
    """Have those who are handed on go by the other config. Requests that are under way end on what
    they began with.
    """
    config, choice, prefill = after.config, after.choice, after.prefill
    upstreams, endpoints = config.upstreams, choice.endpoints
    number = int.from_bytes(after.lasting.random_bytes(8), "big")
    arriving, feeds = after.placements.turn(after.routing.pools, number)
    pools = after.pools.turn(joining, upstreams, endpoints)
    after.lasting.turn(config)
    after.planning.learned.turn(config, choice)
    after.welcome.turn(prefill)
    after.overview.turn(after.planning, after.routing)
    after.engines.turn(endpoints.values(), after.pools)
    _join(after, parts)
    after.warming.turn(config, choice, prefill)
    after.refreshing.turn(config, choice, prefill)
    if after.recognition is not before.recognition:
        before.recognition.forget()
    there = {(each.host, each.port) for each in endpoints.values()}
    for each in before.choice.endpoints.values():
        if not each.pool and (each.host, each.port) not in there:
            parts.client.forget(each)
    return Turned(arriving, [*pools, *feeds])


def _join(made: Assembled, parts: Parts) -> None:
    """Let those who are handed on hear of each other."""
    routing, metrics, watched = made.routing, parts.telemetry.metrics, made.lasting.watched
    routing.begin(made.placements, made.welcome)
    made.planning.on_answered = made.refreshing.saw
    made.engines.on_sized, made.engines.on_restart = routing.engine_sized, routing.engine_emptied
    if routing.pools and "pools" not in watched:
        watched.add("pools")
        metrics.watch_pools(made.overview.replicas)
        metrics.watch_sharing(made.placements.told)
    if made.engines and "engines" not in watched:
        watched.add("engines")
        metrics.watch_engines(made.engines.told)


def _way(
    config: Config,
    parts: Parts,
    lasting: Lasting,
    choice: Choice,
    pools: Iterable[Replicas],
    *,
    before: Assembled | None = None,
) -> _Way:
    """What each request passes under this config."""
    store, telemetry, clock = parts.store, parts.telemetry, parts.clock
    random_bytes, budget, keeping = lasting.random_bytes, lasting.budget, lasting.keeping
    cache = ResponseCache(
        store,
        telemetry,
        clock,
        lasting.records,
        generations=parts.generations,
        max_entry_bytes=config.cache.max_entry_bytes,
        warm=lasting.warm,
    )
    routing = Routing(
        pools=pools,
        client=parts.client,
        metrics=telemetry.metrics,
        clock=clock,
        random_bytes=random_bytes,
        affinity=Affinity,
        before=None if before is None else before.routing,
    )
    asking = Asking(
        config=config,
        routing=routing,
        keeping=keeping,
        acceptance=lasting.acceptance,
        budget=budget,
        telemetry=telemetry,
        clock=clock,
        accounts=lasting.accounts,
    )
    recognition = _recognition(config, parts, lasting, choice, before)
    planning = Planning(
        config=config,
        choice=choice,
        telemetry=telemetry,
        clock=clock,
        tenant=lambda turn: recognition.tenant(turn.request),
        learned=_learned(config, parts, choice, before),
    )
    sending = Sending(asking, planning)
    explaining = Explaining(
        config=config,
        choice=choice,
        recognition=recognition,
        planning=planning,
        routing=routing,
        inventory=Inventory(store, parts.generations, clock.now),
        timer=clock.monotonic,
    )
    proxy = Proxy(
        config=config,
        choice=choice,
        routing=routing,
        recognition=recognition,
        cache=cache,
        keeping=keeping,
        answering=Answering(
            cache=cache,
            serving=lasting.serving,
            sending=sending,
            coalescing=Coalescing(
                flights=lasting.flights,
                sending=sending,
                keeping=keeping,
                serving=lasting.serving,
                clock=clock,
            ),
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
        acceptance=lasting.acceptance,
        budget=budget,
        telemetry=telemetry,
        telling=lasting.telling,
        clock=clock,
        random_bytes=random_bytes,
    )
    prefill = Prefill(routing, telemetry, planning, lasting.accounts)
    return _Way(proxy, recognition, explaining, planning, routing, prefill)


def _recognition(
    config: Config, parts: Parts, lasting: Lasting, choice: Choice, before: Assembled | None
) -> Recognition:
    """That of before, with its door, where requests are recognised by the same."""
    if before is not None and _recognised_by(config, choice) == _recognised_by(
        before.config, before.choice
    ):
        before.recognition.turn(config)
        return before.recognition
    door = Door(config.cache.door_entries, config.generation().encode())
    return Recognition(config, choice, parts.secrets, door, lasting.readers)


def _recognised_by(config: Config, choice: Choice) -> tuple[object, ...]:
    cache = config.cache
    return (
        *(choice.endpoints, config.routes, config.server.trusted_proxies),
        *(cache.scope, cache.tenant_header, cache.fold_text, cache.door_entries),
    )


def _learned(config: Config, parts: Parts, choice: Choice, before: Assembled | None) -> Learned:
    there = None if before is None else before.planning.learned
    if there is not None and there.holds(config):
        return there
    metrics, timer = parts.telemetry.metrics, parts.clock.monotonic
    return Learned(config, choice, metrics, timer, before=there)


def _asker(parts: Parts, accept: str) -> Callable[[Endpoint, str], Call]:
    """Who GETs a page of an endpoint for us."""

    def ask(endpoint: Endpoint, url: str) -> Call:
        headers = CIMultiDict({"Accept": accept})
        # With the credential that the config has: llama.cpp asks for one.
        sent = forwarding.request_headers(CIMultiDictProxy(headers), endpoint, "")
        return parts.client.call("GET", url, sent, None, endpoint, lambda _: NULL_ATTEMPT)

    return ask

"""What the page of the admin port tells beside single requests: `Overview`.

Rule 1: nothing is changed or counted by looking; what takes long is done in portions.
Rule 2: no content: prefixes by their fingerprints, volatile text by its kind and its place.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gateway.core.days import day_of, each_day
from gateway.core.period import period
from gateway.core.savings import summary
from gateway.core.top_prefixes import TopPrefix, ranked

if TYPE_CHECKING:
    from gateway.accounts import Accounts
    from gateway.cache import Clock
    from gateway.core.breakers import Breaker
    from gateway.planning import Planning
    from gateway.routing import Routing
    from gateway.upstream.engines import Engines
    from gateway.upstream.pools import Pools

Told = dict[str, Any]

MOST_PREFIXES = 20
SAVINGS_DAYS = 14
SHARED_S = 5.0
"""So old may be what the ledger says: all tabs that are open together ask it so often."""


class Overview:
    """Asks those who know."""

    def __init__(
        self,
        *,
        planning: Planning,
        routing: Routing,
        pools: Pools,
        engines: Engines,
        accounts: Accounts,
        clock: Clock,
    ) -> None:
        self._planning = planning
        self._routing = routing
        self._pools = pools
        self._engines = engines
        self._accounts = accounts
        self._clock = clock

    def turn(self, planning: Planning, routing: Routing) -> None:
        """Ask these from now on: another config holds."""
        self._planning = planning
        self._routing = routing

    def replicas(self) -> dict[str, dict[str, Told]]:
        """By pool and replica, what is thought of it. Any thread may ask."""
        return self._routing.told()

    def backends(self) -> list[Told]:
        """Each replica of each pool: its state, its load, its mirror, and what its engine tells."""
        thought, engines = self._routing.told(), self._engines.told()
        found: list[Told] = []
        for pool, told in self._pools.told().items():
            for backend in told["backends"]:
                name = backend["name"]
                found.append(
                    {
                        "pool": pool,
                        "engine": told["engine"],
                        **{each: backend[each] for each in _OF_BACKEND},
                        "failed": backend["recent"]["failed"],
                        "requests": backend["recent"]["requests"],
                        **_mirrored(thought.get(pool, {}).get(name, {})),
                        **_engine(engines.get(f"{pool}/{name}")),
                    }
                )
        alone = (each for name, each in engines.items() if "/" not in name)
        found += [
            {"pool": each["upstream"], "name": each["upstream"], "state": None, **_engine(each)}
            for each in alone
        ]
        return found

    def breakers(self) -> list[Told]:
        """What changes in prompts that are otherwise alike, the costliest first."""
        now = self._clock.monotonic()
        return [_breaker(each, now) for each in self._planning.foreseeing.breakers(now)]

    async def savings(self) -> Told:
        """What was paid and saved on each of the last days, and in all: as `Accounts.savings`, a day
        without any as well; `off` alone, and why, where nothing is kept. Raises `StoreUnavailable`.
        """
        since, until = period(f"{SAVINGS_DAYS}d", "", day_of(self._clock.now()))
        try:
            told = await self._accounts.savings(since, until, ["day"], SHARED_S)
        except LookupError as why:
            return {"off": str(why)}
        known = {row["day"]: row for row in told["rows"]}
        nothing = summary([])[0]
        rows = [known.get(day) or {"day": day, **nothing} for day in each_day(since, until)]
        return {**told, "rows": rows}

    async def prefixes(self) -> list[Told]:
        """What many requests begin with, the heaviest first."""
        found: list[TopPrefix] = []
        for name, pool in self._routing.pools.items():
            found += pool.router.affinity.prefixes(name, MOST_PREFIXES)
        for portion in self._planning.planner.prefixes(self._clock.monotonic(), MOST_PREFIXES):
            found = ranked((*found, *portion), MOST_PREFIXES)
            await asyncio.sleep(0)
        return [_prefix(each) for each in ranked(found, MOST_PREFIXES)]


_OF_BACKEND = ("name", "state", "weight", "in_flight", "last_failure", "ejected_for_s", "leaving")
_OF_MIRROR = ("mirror_tokens", "capacity_tokens", "pending_s", "expected_tokens", "reported_tokens")
_OF_ENGINE = ("running", "waiting", "kv_usage", "age_s", "failure")


def _mirrored(thought: Told) -> Told:
    return {name: thought.get(name) for name in _OF_MIRROR}


def _engine(told: Told | None) -> Told:
    if told is None:
        return {}
    of_engine = {name: told[name] for name in _OF_ENGINE}
    return {
        "engine": told["engine"],
        **of_engine,
        "hit_share": told["prefix_hit_share"]["interval"],
    }


def _breaker(each: Breaker, now: float) -> Told:
    told = each._asdict()
    told["ago_s"] = max(0.0, now - told.pop("last_at"))
    return told


def _prefix(each: TopPrefix) -> Told:
    return {
        "fingerprint": f"{each.fingerprint:016x}",
        "where": each.where,
        "model": each.model or None,
        "requests": each.requests,
        "of": each.of,
        "tokens": each.tokens or None,
        "left_s": None if each.left_s is None else round(each.left_s, 1),
        "ttl_s": each.ttl_s or None,
        "warm": list(each.warm),
    }

"""Hot prefixes, read again shortly before their provider forgets them.

Rule 1: only for upstreams whose credential the config has: what a client's own key paid for is not
kept beyond its request, and nothing is ever sent with that key but the request itself.
Rule 2: of a request that which leads it is kept (tools and system texts), never what anybody said in
it; bounded in bytes.
Rule 3: `core.refresh` decides whether it pays.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, NamedTuple

import orjson
import structlog

from gateway.core.blocks import BYTES_PER_TOKEN
from gateway.core.prefix import chain
from gateway.core.refresh import Budget, Kept, Prefixes, Worth
from gateway.prefill import DENIED, OK
from gateway.providers.base import ENGINES
from gateway.providers.prices import price
from gateway.wire.prefill_body import lead_document, lead_of
from gateway.wire.prompt_blocks import cache_prompt

if TYPE_CHECKING:
    from gateway.cache import Clock
    from gateway.config import Config
    from gateway.core.model import Usage
    from gateway.core.prefix import CachePrompt
    from gateway.core.refresh import Arrivals
    from gateway.planned import Planned
    from gateway.prefill import Prefill
    from gateway.providers.prompt_cache import CacheRules
    from gateway.turn import Turn
    from gateway.upstream.choice import Choice, Endpoint

_log = structlog.get_logger("warmgate.refreshing")

MARGIN_S = 20.0
"""So long before the lifetime's end a prefix is read again."""
TIMEOUT_S = 15.0

# An engine forgets what was not used for longest when it needs the room: nobody says when.
_ENGINE_S = 600.0
# What an engine computes to look a prefix up and answer with a token, as a part of computing it.
_ENGINE_LOOKUP = 0.05
_LONGEST_BYTES = 1024 * 1024
_AT_ONCE = 4


class _Lead(NamedTuple):
    """What leads a request, as far as the provider keeps it."""

    fingerprint: int
    tokens: int
    ttl_s: float


class Refreshing:
    """Owns the prefixes that are kept, and the task that reads them again. For one event loop."""

    def __init__(self, config: Config, choice: Choice, prefill: Prefill, clock: Clock) -> None:
        said = config.prompt_cache.refresh
        self._prefixes = Prefixes(said.keep_bytes)
        self._budget = Budget(0, 0)
        self._hold(config, choice, prefill)
        self._clock = clock
        self._denied: set[str] = set()
        self._changed = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def _hold(self, config: Config, choice: Choice, prefill: Prefill) -> None:
        said = config.prompt_cache.refresh
        self._when = said.when if said.keep_bytes else "off"
        self._prefixes.resize(said.keep_bytes)
        # What was spent today stays spent.
        self._budget.picodollars = int(said.daily_usd * 1e12)
        self._budget.tokens = said.daily_tokens
        self._choice = choice
        self._prefill = prefill

    def __repr__(self) -> str:
        return f"<Refreshing {len(self._prefixes)} prefixes, {self._prefixes.size_bytes} B>"

    def start(self) -> None:
        """Begin to watch, unless the config says off."""
        if self._when != "off" and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="refresh")

    def turn(self, config: Config, choice: Choice, prefill: Prefill) -> None:
        """Another config holds. What was kept for an upstream that is another one now, or has no
        credential of ours any more, is sent nowhere again; a new credential is tried again.
        """
        before, now = self._choice.endpoints, choice.endpoints
        self._denied -= {name for name in before if now.get(name) != before[name]}
        self._hold(config, choice, prefill)
        self._prefixes.leave(
            {
                name
                for name, each in before.items()
                if self._when == "off"
                or self._where(name, each.identity) is None
                or not (self._when == "all" or each.caches_as in ENGINES)
            }
        )
        self.start()
        self._changed.set()

    def wake(self) -> None:
        """Look what is due now."""
        self._changed.set()

    async def close(self, timeout_s: float) -> None:
        """Begin nothing new; what is being sent has so long to end."""
        self._stopping = True
        self._changed.set()
        if self._task is None:
            return
        _, late = await asyncio.wait((self._task,), timeout=timeout_s)
        for task in late:
            task.cancel()
            await asyncio.wait((task,), timeout=1.0)

    def saw(self, turn: Turn, planned: Planned) -> None:
        """A request was answered. May raise anything: nobody depends on it."""
        endpoint, rules = turn.known.endpoint, planned.rules
        is_engine = planned.provider in ENGINES
        if (
            self._when == "off"
            or self._task is None
            or rules is None
            or endpoint.api_key is None
            or self._where(endpoint.name, endpoint.identity) is None
            or not (is_engine or self._when == "all")
            or endpoint.name in self._denied
            or len(planned.body) > _LONGEST_BYTES
        ):
            return
        api = turn.api.name
        ticket = planned.ticket
        prompt = ticket.prompt if ticket is not None else _read(api, planned.body, rules)
        lead = _lead(planned, prompt, rules)
        if lead is None or lead.tokens < rules.minimum_tokens:
            return
        name = b"".join(
            (endpoint.identity, planned.model.encode(), lead.fingerprint.to_bytes(8, "big"))
        )
        arrivals = self._prefixes.came(name, turn.exchange.started)
        if arrivals is not None:
            self._keep(name, turn, planned, lead, arrivals)

    def _keep(
        self, name: bytes, turn: Turn, planned: Planned, lead: _Lead, arrivals: Arrivals
    ) -> None:
        worth, picodollars = self._worth(planned, lead)
        if worth is None:
            return
        document = lead_document(turn.api.name, orjson.loads(planned.body))
        if document is None:
            return
        kept = Kept(
            body=orjson.dumps(document),
            worth=worth,
            tokens=lead.tokens,
            arrivals=arrivals,
            upstream=turn.known.endpoint.name,
            identity=turn.known.endpoint.identity,
            path=turn.api.route,
            picodollars=picodollars,
            used_at=turn.exchange.started,
        )
        if self._prefixes.keep(name, kept):
            self._changed.set()

    @staticmethod
    def _worth(planned: Planned, lead: _Lead) -> tuple[Worth | None, int]:
        if planned.provider in ENGINES:
            return Worth(_ENGINE_LOOKUP * lead.tokens, float(lead.tokens), lead.ttl_s), 0
        listed = price(planned.provider, planned.key[1], planned.model)
        if listed is None:
            # What it costs is not known: then it is not spent.
            return None, 0
        rates = listed.at(lead.tokens)
        refresh = lead.tokens * rates.read + rates.output
        write = rates.write_1h if lead.ttl_s >= 3600 else rates.write_5m
        spared = lead.tokens * (write - rates.read)
        return Worth(refresh, spared, lead.ttl_s), refresh

    def _where(self, upstream: str, identity: bytes) -> Endpoint | None:
        """The upstream, if it is still who it was, and a credential of ours is there for it."""
        found = self._choice.endpoints.get(upstream)
        is_same = found is not None and found.identity == identity and found.api_key is not None
        return found if is_same else None

    # --- the task -------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._stopping:
            self._changed.clear()
            try:
                pause_s = await self._once()
            except Exception:  # noqa: BLE001 - a refresh less
                _log.exception("refreshing failed")
                pause_s = MARGIN_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()

    async def _once(self) -> float | None:
        """Read again what is due; how long nothing else will be."""
        now = self._clock.monotonic()
        due = self._prefixes.due(now, MARGIN_S)
        for start in range(0, len(due), _AT_ONCE):
            if self._stopping:
                return 0.0
            await asyncio.gather(*(self._read_again(*each) for each in due[start:][:_AT_ONCE]))
        at = self._prefixes.next_due(MARGIN_S)
        return None if at is None else max(1.0, at - self._clock.monotonic())

    async def _read_again(self, name: bytes, kept: Kept) -> None:
        # Others were waited for meanwhile: a request may have come, or the lifetime gone by, and then
        # this would be a write.
        now = self._clock.monotonic()
        if kept.due(MARGIN_S) > now:
            return
        if kept.lapsed(now):
            self._prefixes.forget(name)
            return
        endpoint = self._where(kept.upstream, kept.identity)
        if (
            endpoint is None
            or self._when == "off"
            or kept.upstream in self._denied
            or not self._budget.take(kept.picodollars, kept.tokens, self._clock.now())
        ):
            self._prefixes.forget(name)
            return
        began = self._clock.monotonic()
        outcome, usage = await self._prefill.write(
            endpoint,
            kept.path,
            kept.body,
            why="refresh",
            hold_s=kept.worth.ttl_s,
            timeout_s=TIMEOUT_S,
        )
        if outcome == OK and not _wrote(usage):
            kept.used_at = max(kept.used_at, began)
            kept.in_a_row += 1
            return
        self._prefixes.forget(name)
        if outcome in DENIED:
            self._denied.add(kept.upstream)
            _log.warning("its credential is refused: no more refreshes", upstream=kept.upstream)


def _wrote(usage: Usage | None) -> bool:
    """Was it not there any more? Then writing is what each refresh would do, and pay for."""
    return usage is not None and usage.cache_write_5m + usage.cache_write_1h > usage.cache_read


def _read(api: str, body: bytes, rules: CacheRules) -> CachePrompt:
    return cache_prompt(api, orjson.loads(body), rules)


def _lead(planned: Planned, prompt: CachePrompt, rules: CacheRules) -> _Lead | None:
    """What leads the request up to its last marker there, or all of it where no markers are needed;
    None where nothing of it is kept by itself.
    """
    last = lead_of(prompt)
    if last < 0:
        return None
    ttl_s = float(rules.lifetimes[0].ttl_s) if rules.lifetimes else _ENGINE_S
    plan = planned.plan
    if rules.takes_markers:
        marks = {at: b.client_ttl_s for at, b in enumerate(prompt.blocks) if b.client_ttl_s}
        if plan is not None and plan.strips:
            marks = {}
        if plan is not None and planned.names:
            marks |= {mark.block: mark.ttl_s for mark in plan.marks}
        last = max((at for at in marks if at <= last), default=-1)
        if last < 0:
            return None
        ttl_s = float(marks[last])
    ticket = planned.ticket
    fingers = ticket.chain if ticket is not None and ticket.chain else chain(prompt)
    if ticket is not None and ticket.tokens:
        tokens = ticket.tokens[last]
    else:
        tokens = sum(block.size for block in prompt.blocks[: last + 1]) // BYTES_PER_TOKEN
    return _Lead(fingers[last], int(tokens), ttl_s)

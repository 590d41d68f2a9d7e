"""Sends what clients ask to who answers it: an upstream's one address, or one of a pool's replicas.

Rule 1: an endpoint without replicas pays one test of an attribute.
Rule 2: what is read of a prompt are fingerprints and sizes; who cannot be read is sent all the same.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from gateway.core import identity
from gateway.core.model import Form
from gateway.core.route import Wish
from gateway.core.trail import Trail
from gateway.journey import Journey, session_of, session_said
from gateway.pooled import Pooled
from gateway.routed import Routed
from gateway.router import Router
from gateway.server import forwarding
from gateway.upstream.choice import url
from gateway.wire.base import NotUnderstood
from gateway.wire.prefill_body import lead_document
from gateway.wire.trails import WITH_TRAIL, Read, Trails

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from multidict import CIMultiDict

    from gateway.cache import Clock
    from gateway.core.affinity import Affinity
    from gateway.core.model import Answer
    from gateway.core.route import RouteSettings
    from gateway.door import Known
    from gateway.exchange import Exchange
    from gateway.placements import Placements
    from gateway.recognition import Sender
    from gateway.telemetry.metrics import Metrics
    from gateway.telemetry.spans import AttemptSpan
    from gateway.turn import Turn
    from gateway.upstream.backend import Backend
    from gateway.upstream.choice import Asked, Endpoint
    from gateway.upstream.client import Call, UpstreamClient
    from gateway.upstream.engine import Engine
    from gateway.upstream.replicas import Replicas

_log = structlog.get_logger("warmgate.routing")

# As in `planning`: what takes longer to read than others should have to wait for is read in a thread.
_SHORT_BYTES = 128 * 1024
_LONG_BYTES = 512 * 1024
_MANY_OBJECTS = 8192
_THREAD_WAIT_S = 3.0
_LONG_AT_ONCE = 2
_LOG_EVERY_S = 60.0
# `/v1/responses/ID`, and what is below it: of the replica that made it.
_RESPONSES = "/v1/responses/"
# RFC 9110 section 9.2.2: of what is not among them, a proxy doesn't know what it does, and must not
# send it twice.
_IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))


class Routing:
    """Sends requests. For one event loop."""

    def __init__(
        self,
        *,
        pools: Iterable[Replicas],
        client: UpstreamClient,
        metrics: Metrics,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        affinity: Callable[[RouteSettings], Affinity],
        before: Routing | None = None,
    ) -> None:
        """`affinity` makes what decides for one pool. `before` is that of another config: what it knows
        of pools that stay is known here too, and both go on with it.
        """
        self._client = client
        self._timer = timer = clock.monotonic

        def dice() -> float:
            return int.from_bytes(random_bytes(4), "big") / 2**32

        known = {} if before is None else before.pools
        self.pools: dict[str, Pooled] = {}
        for each in pools:
            there = known.get(each.name)
            if there is None or there.router.replicas is not each:
                router = Router(each, affinity(each.settings), clock, dice)
                there = Pooled(router, client, metrics, timer)
                there.watch()
            self.pools[each.name] = there
        self.trails: Trails | None = None if before is None else before.trails
        if self.trails is None and self.pools:
            self.trails = Trails()
        # Requests of both configs are read in it.
        self.thread: Executor = (
            ThreadPoolExecutor(1, "warmgate-route") if before is None else before.thread
        )
        self.long: asyncio.Semaphore = (
            asyncio.Semaphore(_LONG_AT_ONCE) if before is None else before.long
        )
        self._failures = 0
        self._logged_at = float("-inf")

    def __repr__(self) -> str:
        return f"<Routing to {len(self.pools)} pools, {self._failures} failures>"

    def begin(self, placements: Placements, welcome: Callable[[Pooled, Backend], None]) -> None:
        """Tell `placements` what is placed here, and hear of what others place; have `welcome` warm
        replicas whose cache is empty, and say `warmed` to them.
        """
        for name, pool in self.pools.items():
            router = pool.router
            router.gateway = placements.teller(name)
            router.affinity.changed(router.replicas.settings)
            router.shares(placements.shares(name))
            router.tell = partial(placements.tell, name)
            placements.on_heard(name, router.heard)
            placements.on_shares(name, router.shares)
            pool.welcome = welcome

    def close(self) -> None:
        """Let the thread go. What is being read in it is not waited for."""
        self.thread.shutdown(wait=False, cancel_futures=True)

    def call(  # noqa: PLR0917
        self,
        method: str,
        asked: Asked,
        headers: CIMultiDict[str],
        body: bytes | AsyncIterator[bytes] | None,
        endpoint: Endpoint,
        attempt_span: Callable[[str, str, int], AttemptSpan],
        journey: Journey | None = None,
    ) -> Call | Routed:
        """The response as a context, as `UpstreamClient.call` gives it; of a pool, from one of its
        replicas. `attempt_span` opens a span from a method, a URL and the number of the attempt.
        """
        if not endpoint.pool:
            where = url(endpoint, asked)
            return self._client.call(
                method, where, headers, body, endpoint,
                lambda attempt: attempt_span(method, where, attempt),
            )  # fmt: skip
        pool = self.pools[endpoint.name]
        return Routed(pool, method, asked, headers, body, attempt_span, journey or Journey())

    # --- what engines say of themselves -----------------------------------------------------------

    def engine_sized(self, engine: Engine) -> None:
        """So much its cache holds."""
        pool = self.pools.get(engine.endpoint.name)
        if pool is not None and engine.backend in pool.router.replicas:
            tokens, slots = engine.size
            pool.router.affinity.joined(engine.backend, cache_tokens=tokens, slots=slots)

    def engine_emptied(self, engine: Engine) -> None:
        """It holds nothing any more."""
        pool = self.pools.get(engine.endpoint.name)
        if pool is not None:
            pool.began_anew(engine.backend, engine.earlier_at)

    # --- what is known of a request -------------------------------------------------------------

    async def journey(self, turn: Turn, sent: bytes, *, may_change: bool) -> Journey:
        """The way of a request to a pool that goes out as `sent`; `may_change`: a member may be added
        to that. Never raises.
        """
        journey = Journey(turn.exchange)
        endpoint, ask = turn.known.endpoint, turn.known.ask
        headers = turn.request.headers
        read = await self._read(turn.api.name, sent)
        said = session_said(headers)
        journey.streams = ask is not None and ask.form is Form.STREAM
        if read is None and not said:
            return journey
        session = 0
        if said:
            session = session_of(said, self._key_of(turn))
        journey.api = turn.api.name
        if read is None:
            journey.wish = Wish(journey.wish.trail, session)
            return journey
        pool = self.pools[endpoint.name]
        self._known(journey, read, session, pool)
        journey.pins = may_change and ask is not None and pool.pins and not read.has_slot
        if read.lead and (endpoint.api_key is not None or not self._key_of(turn)):
            self._heat(pool, journey, turn.api.route, sent)
        return journey

    async def alone(self, api: str, body: bytes, only: Backend | None = None) -> Journey:
        """Of a prompt that is sent for its cache alone, to this replica if one is named."""
        journey = Journey(api=api, only=only)
        read = await self._read(api, body)
        if read is None:
            journey.api = ""
        else:
            journey.wish = Wish(read.trail)
        return journey

    async def explained(
        self, known: Known, api: str, body: bytes, sender: Sender
    ) -> dict[str, Any]:
        """Where a request to a pool would go (see `Router.rehearsed`). Nothing is changed by it."""
        router = self.pools[known.endpoint.name].router
        read = await self._read(api, body, keeps=False) or Read(Trail())
        said = session_said(sender.lookup)
        key = identity.credential(sender.headers, known.endpoint.provider)
        session = session_of(said, key) if said else 0
        journey = Journey(api=api, wish=Wish(read.trail, session))
        if read.previous:
            journey.owner = router.owner(read.previous)
        return router.rehearsed(journey)

    def whom(
        self, endpoint: Endpoint, only: Backend | None, *, every: bool
    ) -> list[Backend | None]:
        """To whom a prompt is to be sent; None: to whoever is asked for it."""
        if endpoint.pool and only is None and every:
            return [*self.pools[endpoint.name].router.replicas.usable()] or [None]
        return [only]

    def passing(self, exchange: Exchange, asked: Asked, endpoint: Endpoint, method: str) -> Journey:
        """Of a request to a pool that is passed through."""
        journey = Journey(exchange, once=method not in _IDEMPOTENT)
        if asked.path.startswith(_RESPONSES):
            response_id = asked.path.removeprefix(_RESPONSES).partition("/")[0]
            journey.owner = self.pools[endpoint.name].router.owner(response_id)
        return journey

    def begun(self, endpoint: Endpoint, journey: Journey) -> None:
        """The first byte of a successful answer came."""
        self.pools[endpoint.name].router.begun(journey)

    def learn(self, endpoint: Endpoint, journey: Journey, answer: Answer | None) -> None:
        """The call is over, and its answer was read, or could not be. Once for each journey with a
        prompt that was answered.
        """
        self.pools[endpoint.name].router.learn(journey, answer)

    def prefill_s(self, endpoint: Endpoint, journey: Journey, tokens: int) -> float | None:
        """About how long the replica that was asked would have computed so many tokens of a prompt;
        None where its speed is not known.
        """
        return self.pools[endpoint.name].router.prefill_s(journey.backend, tokens)

    def told(self) -> dict[str, dict[str, dict[str, Any]]]:
        """By pool and replica, what is thought of it."""
        return {name: pool.router.told() for name, pool in self.pools.items()}

    # --- how ------------------------------------------------------------------------------------

    @staticmethod
    def _key_of(turn: Turn) -> bytes:
        """The client's own credential; empty for none."""
        pairs = forwarding.pairs(turn.request.headers)
        return identity.credential(pairs, turn.known.endpoint.provider)

    @staticmethod
    def _known(journey: Journey, read: Read, session: int, pool: Pooled) -> None:
        journey.wish = Wish(read.trail, session)
        journey.lead = read.lead
        if read.previous:
            journey.owner = pool.router.owner(read.previous)

    def _heat(self, pool: Pooled, journey: Journey, path: str, sent: bytes) -> None:
        trail, api = journey.wish.trail, journey.api

        def body() -> bytes | None:
            document = lead_document(api, orjson.loads(sent))
            return None if document is None else orjson.dumps(document)

        try:
            at = journey.lead - 1
            pool.hot.saw(trail.prints[at], trail.ends[at], path, body, self._timer())
        except Exception:  # noqa: BLE001 - a prefix less to warm with
            self._failed()

    async def _read(self, api: str, body: bytes, *, keeps: bool = True) -> Read | None:
        """What is read of a body, and, unless told otherwise, remembered for the next turn; None
        where nothing is.
        """
        trails = self.trails
        if trails is None or api not in WITH_TRAIL:
            return None
        try:
            if len(body) <= _SHORT_BYTES or (
                len(body) <= _LONG_BYTES and body.count(b"{") <= _MANY_OBJECTS
            ):
                reading = trails.begin(api, body)
                read = reading.read()
                if keeps:
                    trails.keep(reading)
                return read
            # What a long one is read as takes many times its size, and is held until it is kept.
            async with asyncio.timeout(_THREAD_WAIT_S), self.long:
                return await self._read_beside(trails, api, body, keeps=keeps)
        except (ValueError, NotUnderstood):
            # No JSON, or compressed: whatever the upstream makes of it.
            return None
        except Exception:  # noqa: BLE001 - the request goes on
            self._failed()
            return None

    async def _read_beside(self, trails: Trails, api: str, body: bytes, *, keeps: bool) -> Read:
        reading = trails.begin(api, body)
        loop = asyncio.get_running_loop()
        read = await loop.run_in_executor(self.thread, reading.read)
        if keeps:
            trails.keep(reading)
        return read

    def _failed(self) -> None:
        self._failures += 1
        now = self._timer()
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            _log.exception("a request's way can't be read", failures=self._failures)

"""The way of one request: performs, in order, what core decides. The only file where decisions
meet I/O.

Rule 1: what goes wrong in the cache, the store or telemetry never fails a request.
Rule 2: bytes that we did not mean to change go on exactly as they came, in both directions.
Rule 3: a client that goes away ends the upstream call.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

import structlog

from gateway.acceptance import REFUSALS, accepted_as
from gateway.answering import not_in_cache, passed_on
from gateway.core import directives as cache_control
from gateway.core import samples
from gateway.core.model import Reason, Result
from gateway.core.policy import Pass, before_lookup
from gateway.errors import GatewayError, ShuttingDown, let_go
from gateway.exchange import Exchange
from gateway.explained import is_asked_to
from gateway.providers import registry
from gateway.recognition import Sender
from gateway.server import body as request_body
from gateway.server import forwarding, relay, replies, stream
from gateway.server.listener import who_went
from gateway.server.tunnel import tunnel
from gateway.telemetry.metrics import ROUTES
from gateway.telemetry.spans import NULL_SPANS
from gateway.turn import Turn
from gateway.upstream.choice import take_apart
from gateway.wire.table import APIS, error_api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiohttp import web

    from gateway.acceptance import Acceptance
    from gateway.answering import Answering
    from gateway.batches import Batches
    from gateway.budget import Budget, Share
    from gateway.cache import Clock, ResponseCache
    from gateway.config import Config
    from gateway.door import Known
    from gateway.explained import Explained
    from gateway.keeping import Keeping
    from gateway.recognition import Recognition
    from gateway.routing import Routing
    from gateway.telemetry.setup import Telemetry
    from gateway.telling import Telling
    from gateway.upstream.choice import Asked, Choice
    from gateway.wire.base import WireApi

_log = structlog.get_logger("warmgate.proxy")

_SAMPLES = "x-gateway-cache-samples"
# A response that the provider keeps, and what it says of one that it keeps no longer.
_RECORD = re.compile(r"/v1/responses/([^/]+)/?")
_GONE = frozenset({200, 202, 204, 404, 410})


class Proxy:
    """Handles every request on the API port."""

    def __init__(
        self,
        *,
        config: Config,
        choice: Choice,
        routing: Routing,
        recognition: Recognition,
        cache: ResponseCache,
        keeping: Keeping,
        answering: Answering,
        batches: Batches,
        explained: Explained,
        acceptance: Acceptance,
        budget: Budget,
        telemetry: Telemetry,
        telling: Telling,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._config = config
        self._choice = choice
        self._routing = routing
        self._recognition = recognition
        self._cache = cache
        self._keeping = keeping
        self._answering = answering
        self._batches = batches
        self._explained = explained
        self._budget = budget
        self._acceptance = acceptance
        self._telemetry = telemetry
        self._telling = telling
        self._clock = clock
        self._random = random_bytes
        self._traces = telemetry.spans is not NULL_SPANS
        self._tenant_header = config.cache.tenant_header.lower()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. Raises only what ends the connection."""
        target = request.raw_path
        exchange = self._exchange(request)
        self._telemetry.metrics.inflight(+1)
        try:
            return await self._answer(request, target, exchange)
        except GatewayError as problem:
            let_go(problem)
            exchange.failed(problem.code)
            if exchange.begun:
                # The head is out: all that is left is to show that the answer is cut short.
                exchange.gave_up("upstream")
                return relay.cut(request)
            exchange.status = problem.status
            return replies.error(
                problem, error_api(exchange.path, request.headers), exchange.request_id
            )
        except (stream.ClientGone, ConnectionError) as gone:
            let_go(gone)
            exchange.gave_up(who_went(request))
            return relay.Cut()
        except asyncio.CancelledError:
            exchange.gave_up(who_went(request))
            raise
        except Exception:  # noqa: BLE001 - the client gets an answer whatever it was
            _log.exception("request failed", request_id=exchange.request_id)
            exchange.failed(GatewayError.code)
            if exchange.begun:
                return relay.cut(request)
            exchange.status = GatewayError.status
            internal = GatewayError("the gateway failed; its log has the details")
            return replies.error(
                internal, error_api(exchange.path, request.headers), exchange.request_id
            )
        finally:
            self._telemetry.metrics.inflight(-1)
            self._telling.over(exchange, self._clock.monotonic())

    async def refuse(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one that came when nothing new was taken any more: nothing of it was sent on."""
        exchange = self._exchange(request)
        problem = ShuttingDown("this gateway is stopping: try again, so that another one answers")
        exchange.failed(problem.code)
        exchange.status = problem.status
        self._telling.over(exchange, self._clock.monotonic())
        return replies.error(
            problem, error_api(exchange.path, request.headers), exchange.request_id
        )

    def _exchange(self, request: web.BaseRequest) -> Exchange:
        return Exchange(
            request_id=f"gw_{self._random(12).hex()}",
            method=request.method,
            path=request.raw_path.partition("?")[0],
            scheme=request.scheme,
            started=self._clock.monotonic(),
            at=self._clock.now(),
        )

    async def _answer(
        self, request: web.BaseRequest, target: str, exchange: Exchange
    ) -> web.StreamResponse:
        if exchange.path == "/" and request.method in {"GET", "HEAD"}:
            exchange.status = 200
            return replies.index()
        asked = take_apart(target)
        exchange.route = asked.path if asked.path in ROUTES else None
        if self._traces:
            exchange.span = self._telemetry.spans.server(
                method=request.method,
                route=exchange.route,
                path=exchange.path,
                scheme=request.scheme,
                host=None,
                port=self._config.server.port or None,
                headers=request.headers,
            )
        api = APIS.get(asked.path) if request.method == "POST" else None
        sender = Sender(forwarding.pairs(request.headers), request.headers, request.remote)
        if is_asked_to(request.headers):
            return await self._explained.answer(request, asked, sender, exchange)
        if api is None:
            return await self._pass_through(request, asked, sender, exchange)
        with self._budget.share() as share:
            return await self._understood(
                request, asked, sender, api, share=share, exchange=exchange
            )

    # --- requests that we understand ------------------------------------------------------------

    async def _understood(
        self,
        request: web.BaseRequest,
        asked: Asked,
        sender: Sender,
        api: WireApi,
        *,
        share: Share,
        exchange: Exchange,
    ) -> web.StreamResponse:
        began = self._clock.monotonic()
        body = await request_body.read(request, self._config.server.body_limit_bytes, share)
        exchange.elsewhere_s += self._clock.monotonic() - began
        known = await self._recognition.recognise_beside(sender, asked, api, body)
        exchange.to(known.endpoint)
        exchange.model = known.ask.model if known.ask else None
        exchange.api, exchange.scope = api.name, known.who[:4].hex()
        policy = self._choice.policy(asked, exchange.model or "")
        turn = Turn(
            request=request,
            asked=asked,
            api=api,
            body=body,
            known=known,
            rules=registry.rules(known.endpoint.provider, api.name),
            policy=policy,
            directives=cache_control.parse(request.headers.getall("Cache-Control", ())),
            exchange=exchange,
            share=share,
            proven=self._proven(known),
            samples=samples.wanted(request.headers.get(_SAMPLES), policy.samples),
        )
        decision = before_lookup(known.pass_reason, known.ask, policy, turn.directives)
        if isinstance(decision, Pass):
            exchange.decided(Result.PASS, decision.reason)
            if turn.directives.only_if_cached:
                raise not_in_cache(decision.reason)
            return await self._answering.alone(turn)
        turn.lookup = self._cache.dated(decision)
        exchange.key_hex8 = known.identities[0][:4].hex()
        if known.batch is not None:
            answered = await self._batches.answer(turn, known.batch, turn.lookup)
            if answered is None and turn.directives.only_if_cached:
                raise not_in_cache(Reason.ABSENT)
            return answered or await self._answering.alone(turn)
        return await self._answering.cached(turn, turn.lookup)

    def _proven(self, known: Known) -> bool:
        """May the credential be served what somebody else paid for?"""
        bound = known.ask is not None and known.ask.bound
        own = self._config.cache.scope == "credential" or bound
        return own or self._acceptance.proven(accepted_as(known.who, known.endpoint))

    # --- everything else ------------------------------------------------------------------------

    async def _pass_through(
        self, request: web.BaseRequest, asked: Asked, sender: Sender, exchange: Exchange
    ) -> web.StreamResponse:
        """Pass a request on byte for byte, its body as it arrives."""
        endpoint = self._choice.endpoint(asked, sender.lookup, "")
        exchange.to(endpoint)
        exchange.decided(Result.PASS, Reason.ROUTE)
        directives = cache_control.parse(request.headers.getall("Cache-Control", ()))
        if directives.only_if_cached and request.method == "POST":
            raise not_in_cache(Reason.ROUTE)
        headers = forwarding.request_headers(request.headers, endpoint, self._tenant_header)
        body: bytes | AsyncIterator[bytes] | None = None
        if request.body_exists:
            length = request.headers.get("Content-Length")
            if length is not None:
                headers["Content-Length"] = length
            # What is all there needs no waiting for its pieces.
            whole = length is not None and request.content.is_eof()
            body = request.content.read_nowait() if whole else request_body.pieces(request)
        upgrade = forwarding.upgrade(request)
        if upgrade is not None:
            headers["Connection"], headers["Upgrade"] = "Upgrade", upgrade
        began = self._clock.monotonic()
        routing = self._routing
        journey = None
        if endpoint.pool:
            journey = routing.passing(exchange, asked, endpoint, request.method)
            journey.span = exchange.span.route()
        try:
            async with routing.call(
                request.method, asked, headers, body, endpoint, exchange.span.attempt, journey
            ) as upstream:
                if upstream.status in REFUSALS:
                    who = self._recognition.who(sender, endpoint)
                    self._acceptance.learn_refusal(accepted_as(who, endpoint))
                if request.method == "DELETE" and upstream.status in _GONE:
                    record = _RECORD.fullmatch(asked.path)
                    if record is not None:
                        self._keeping.forget_record(endpoint, unquote(record[1]))
                if upstream.status == 101:
                    exchange.begun = True
                    answered = forwarding.response_headers(upstream.headers)
                    exchange.forwarded(answered, upstream.status)
                    answered["Connection"] = "Upgrade"
                    answered["Upgrade"] = upstream.headers.get("Upgrade", upgrade or "")
                    return await tunnel(request, upstream, answered)
                return await passed_on(request, upstream, exchange)
        finally:
            exchange.elsewhere_s += self._clock.monotonic() - began

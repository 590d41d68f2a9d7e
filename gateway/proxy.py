"""The way of one request: performs, in order, what core decides. The only file where decisions
meet I/O.

Rule 1: what goes wrong in the cache, the store or telemetry never fails a request.
Rule 2: bytes that we did not mean to change go on exactly as they came, in both directions.
Rule 3: a client that goes away ends the upstream call.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, assert_never
from urllib.parse import unquote

import structlog

from gateway.cache import judged, rendered
from gateway.core import directives as cache_control
from gateway.core import samples
from gateway.core.directives import cache_status
from gateway.core.mint import Mint
from gateway.core.model import Form, Reason, Result
from gateway.core.policy import Hit, Miss, Pass, Unsatisfiable, before_lookup
from gateway.errors import GatewayError, NotInCache
from gateway.exchange import Exchange, ModelCall
from gateway.providers import registry
from gateway.recognition import Sender
from gateway.server import body as request_body
from gateway.server import forwarding, relay, replies, stream
from gateway.server.tunnel import tunnel
from gateway.telemetry.metrics import ROUTES
from gateway.turn import Turn
from gateway.upstream.choice import take_apart, url
from gateway.wire.table import APIS, OPENAI_EMBEDDINGS, error_api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import aiohttp
    from aiohttp import web

    from gateway.acceptance import Acceptance
    from gateway.batches import Batches
    from gateway.cache import Clock, ResponseCache
    from gateway.config import Config
    from gateway.core.model import Answer
    from gateway.door import Known
    from gateway.recognition import Recognition
    from gateway.telemetry.setup import Telemetry
    from gateway.telemetry.spans import AttemptSpan
    from gateway.upstream.choice import Asked, Choice
    from gateway.upstream.client import UpstreamClient
    from gateway.wire.base import WireApi

_log = structlog.get_logger("warmgate.proxy")

_SAMPLES = "x-gateway-cache-samples"
_REPLAY = "x-gateway-replay"
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
        client: UpstreamClient,
        recognition: Recognition,
        cache: ResponseCache,
        batches: Batches,
        acceptance: Acceptance,
        telemetry: Telemetry,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._config = config
        self._choice = choice
        self._client = client
        self._recognition = recognition
        self._cache = cache
        self._batches = batches
        self._acceptance = acceptance
        self._telemetry = telemetry
        self._clock = clock
        self._random = random_bytes
        self._tenant_header = config.cache.tenant_header.lower()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. Raises only what ends the connection."""
        target = request.raw_path
        exchange = Exchange(
            request_id=f"gw_{self._random(12).hex()}",
            method=request.method,
            path=target.partition("?")[0],
            scheme=request.scheme,
            started=self._clock.monotonic(),
        )
        self._telemetry.metrics.inflight(+1)
        try:
            return await self._answer(request, target, exchange)
        except GatewayError as problem:
            exchange.failed(problem.code)
            if exchange.begun:
                # The head is out: all that is left is to show that the answer is cut short.
                exchange.gave_up("upstream")
                return relay.cut(request)
            exchange.status = problem.status
            return replies.error(
                problem, error_api(exchange.path, request.headers), exchange.request_id
            )
        except (stream.ClientGone, ConnectionError):
            exchange.gave_up("client")
            return relay.Cut()
        except asyncio.CancelledError:
            exchange.gave_up("client")
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
            exchange.end(self._clock.monotonic(), self._telemetry.metrics)

    async def _answer(
        self, request: web.BaseRequest, target: str, exchange: Exchange
    ) -> web.StreamResponse:
        if exchange.path == "/" and request.method in {"GET", "HEAD"}:
            exchange.status = 200
            return replies.index()
        asked = take_apart(target)
        exchange.route = asked.path if asked.path in ROUTES else None
        exchange.span = self._telemetry.spans.server(
            method=request.method,
            route=exchange.route,
            path=exchange.path,
            scheme=request.scheme,
            host=request.host.partition(":")[0],
            port=self._config.server.port or None,
            headers=request.headers,
        )
        api = APIS.get(asked.path) if request.method == "POST" else None
        sender = Sender(forwarding.pairs(request.headers), request.headers, request.remote)
        if api is None:
            return await self._pass_through(request, asked, sender, exchange)
        return await self._understood(request, asked, sender, api, exchange)

    # --- requests that we understand ------------------------------------------------------------

    async def _understood(
        self,
        request: web.BaseRequest,
        asked: Asked,
        sender: Sender,
        api: WireApi,
        exchange: Exchange,
    ) -> web.StreamResponse:
        began = self._clock.monotonic()
        body = await request_body.read(request, self._config.server.body_limit_bytes)
        exchange.elsewhere_s += self._clock.monotonic() - began
        known = await self._recognition.recognise_beside(sender, asked, api, body)
        exchange.to(known.endpoint)
        exchange.model = known.ask.model if known.ask else None
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
            proven=self._proven(known),
            samples=samples.wanted(request.headers.get(_SAMPLES), policy.samples),
        )
        decision = before_lookup(known.pass_reason, known.ask, policy, turn.directives)
        if isinstance(decision, Pass):
            exchange.decided(Result.PASS, decision.reason)
            if turn.directives.only_if_cached:
                raise _not_in_cache(decision.reason)
            return await self._forward(turn)
        turn.lookup = decision
        exchange.key_hex8 = known.identities[0].hex()[:8]
        if known.batch is not None:
            answered = await self._batches.answer(turn, known.batch, decision)
            if answered is None and turn.directives.only_if_cached:
                raise _not_in_cache(Reason.ABSENT)
            return answered or await self._forward(turn)
        found = await self._cache.look(turn, decision, self._random(8))
        match found:
            case Hit():
                served = await self._served(turn, found)
                if served is not None:
                    return served
                exchange.decided(Result.MISS, Reason.UNREADABLE)
            case Unsatisfiable(reason):
                exchange.decided(Result.MISS, reason)
                raise _not_in_cache(reason)
            case Miss(reason):
                exchange.decided(Result.MISS, reason)
            case _:
                assert_never(found)
        return await self._forward(turn)

    def _proven(self, known: Known) -> bool:
        """May the credential be served what somebody else paid for?"""
        bound = known.ask is not None and known.ask.bound
        own = self._config.cache.scope == "credential" or bound
        return own or self._acceptance.proven(known.who)

    async def _served(self, turn: Turn, hit: Hit) -> web.StreamResponse | None:
        """The hit as a response; None when the entry turns out not to be servable after all."""
        ask, entry, exchange = turn.known.ask, hit.entry, turn.exchange
        assert ask is not None
        mint = Mint(int(self._clock.now()), self._random(16))
        try:
            payload = await rendered(turn, entry, mint)
        except Exception:  # noqa: BLE001 - a broken entry must cost a call, not the request
            _log.exception("an entry can't be served", key=exchange.key_hex8, api=turn.api.name)
            return None
        exchange.decided(Result.HIT, Reason.EXACT)
        exchange.status = 200
        if turn.api is OPENAI_EMBEDDINGS:
            exchange.inputs = (1, 0)
        if entry.usage is not None:
            provider = turn.known.endpoint.provider.name
            exchange.usage = entry.usage
            exchange.span.saved(entry.usage)
            self._telemetry.metrics.saved(entry.usage, provider, entry.model)
        headers = {
            "Age": str(int(hit.age_s)),
            "Cache-Status": cache_status(Result.HIT, Reason.EXACT, ttl_left_s=hit.ttl_left_s),
            turn.api.request_id_header: f"req_{self._random(16).hex()}",
        }
        exchange.mark(headers)
        if ask.form is Form.BODY:
            return replies.document(payload, headers)
        if turn.request.headers.get(_REPLAY, "").strip().lower() == "original":
            exchange.begun = True
            began = self._clock.monotonic()
            try:
                return await replies.paced_stream(turn.request, payload, headers, entry.gaps_ms)
            finally:
                exchange.elsewhere_s += self._clock.monotonic() - began
        return replies.whole_stream(payload, headers)

    async def _forward(self, turn: Turn) -> web.StreamResponse:
        """Ask the upstream; tee its answer into the cache if it has a say."""
        api, known, exchange, request = turn.api, turn.known, turn.exchange, turn.request
        endpoint = known.endpoint
        if api is OPENAI_EMBEDDINGS and turn.lookup is not None and exchange.inputs is None:
            exchange.inputs = (0, 1)
        headers = forwarding.request_headers(request.headers, endpoint, self._tenant_header)
        sent = turn.body
        asked_usage = False
        if turn.lookup is not None and turn.lookup.write and known.ask is not None:
            changed = None
            if not turn.directives.no_transform:
                changed = api.with_stream_usage(turn.body, known.ask, turn.rules)
            if changed is not None:
                sent, asked_usage = changed, True
            forwarding.ask_only_for_decodable(headers, plain=asked_usage)
        where = url(endpoint, turn.asked)
        call = ModelCall(exchange, api.operation, known, self._telemetry, self._clock.monotonic)
        taken: stream.Recording | None = None
        answer: Answer | None = None
        try:
            async with self._client.call(
                request.method,
                where,
                headers,
                sent,
                endpoint,
                lambda attempt: call.span.attempt(request.method, where, attempt),
            ) as upstream:
                self._acceptance.learn(known.who, upstream.status)
                call.span.http(upstream.status)
                if upstream.status == 200:
                    limit = self._config.cache.max_entry_bytes
                    taken = stream.recording(upstream, limit, self._clock.monotonic)
                sieve = None
                if asked_usage and taken and taken.form is Form.STREAM and taken.plain:
                    sieve = stream.Sieve(api.without_unasked_usage)
                return await self._relay(
                    request, upstream, exchange, taken, sieve, call.first_chunk
                )
        except GatewayError as problem:
            call.span.error(problem.code)
            raise
        finally:
            call.over()
            if taken is not None:
                answer = self._keep(turn, taken)
                exchange.answered = answer is not None
            elif turn.lookup is not None and exchange.begun:
                not_ok = exchange.status != 200
                self._cache.skip(exchange, Reason.STATUS if not_ok else Reason.CONTENT_TYPE)
            call.end(answer)

    def _keep(self, turn: Turn, taken: stream.Recording) -> Answer | None:
        """Read what was recorded, and store it if the cache has a say."""
        try:
            answer = judged(turn.api, turn.rules, taken)
            if isinstance(answer, Reason):
                if turn.lookup is not None:
                    self._cache.skip(turn.exchange, answer)
                return None
            if turn.lookup is not None and turn.known.batch is not None:
                if not self._batches.keep(turn, turn.known.batch, answer.payload):
                    self._cache.skip(turn.exchange, Reason.UNREADABLE)
            elif turn.lookup is not None:
                self._cache.keep(turn, answer, taken.gaps_ms)
        except Exception:  # noqa: BLE001 - the client has its answer; keeping it is extra
            _log.exception("an answer can't be kept", api=turn.api.name)
            return None
        return answer

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
            raise _not_in_cache(Reason.ROUTE)
        headers = forwarding.request_headers(request.headers, endpoint, self._tenant_header)
        body: AsyncIterator[bytes] | None = None
        if request.body_exists:
            body = request_body.pieces(request)
            if "Content-Length" in request.headers:
                headers["Content-Length"] = request.headers["Content-Length"]
        upgrade = forwarding.upgrade(request)
        if upgrade is not None:
            headers["Connection"], headers["Upgrade"] = "Upgrade", upgrade
        began = self._clock.monotonic()

        def attempt_span(attempt: int) -> AttemptSpan:
            return exchange.span.attempt(request.method, url(endpoint, asked), attempt)

        try:
            async with self._client.call(
                request.method, url(endpoint, asked), headers, body, endpoint, attempt_span
            ) as upstream:
                who = self._recognition.who(sender, endpoint)
                self._acceptance.learn_refusal(who, upstream.status)
                if request.method == "DELETE" and upstream.status in _GONE:
                    record = _RECORD.fullmatch(asked.path)
                    if record is not None:
                        self._cache.forget_record(endpoint, unquote(record[1]))
                if upstream.status == 101:
                    exchange.begun = True
                    answered = forwarding.response_headers(upstream.headers)
                    exchange.forwarded(answered, upstream.status)
                    answered["Connection"] = "Upgrade"
                    answered["Upgrade"] = upstream.headers.get("Upgrade", upgrade or "")
                    return await tunnel(request, upstream, answered)
                return await self._relay(request, upstream, exchange, None, None, lambda: None)
        finally:
            exchange.elsewhere_s += self._clock.monotonic() - began

    async def _relay(  # noqa: PLR0917
        self,
        request: web.BaseRequest,
        upstream: aiohttp.ClientResponse,
        exchange: Exchange,
        taken: stream.Recording | None,
        sieve: stream.Sieve | None,
        on_first: Callable[[], None],
    ) -> web.StreamResponse:
        """The upstream's response to the client, as it comes."""
        headers = forwarding.response_headers(upstream.headers)
        exchange.forwarded(headers, upstream.status)
        exchange.begun = True
        return await stream.relay_response(request, upstream, headers, taken, sieve, on_first)


def _not_in_cache(reason: Reason) -> NotInCache:
    return NotInCache(
        f"only-if-cached was asked for, and there is no answer to serve ({reason.value})"
    )

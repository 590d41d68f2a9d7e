"""One call of a model: opened, told in spans and metrics, recorded, and its answer kept.

Whoever passes the answer on does so inside the context; when it ends, in whatever way, what came is
judged and stored if the cache has a say.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from gateway.cache import LONG_BYTES, judged
from gateway.core.model import Form, Reason
from gateway.errors import GatewayError
from gateway.exchange import ModelCall
from gateway.server import forwarding, stream
from gateway.upstream.choice import url
from gateway.wire.table import OPENAI_EMBEDDINGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gateway.acceptance import Acceptance
    from gateway.budget import Budget
    from gateway.cache import Clock
    from gateway.config import Config
    from gateway.core.model import Answer
    from gateway.keeping import Keeping
    from gateway.telemetry.setup import Telemetry
    from gateway.turn import Turn
    from gateway.upstream.client import UpstreamClient
    from gateway.upstream.response import Response

_log = structlog.get_logger("warmgate.asking")


@dataclass(slots=True)
class Underway:
    """A call that the upstream has answered; its body is still to come."""

    upstream: Response
    call: ModelCall
    taken: stream.Recording | None = None
    """What is recorded of the body, for whoever passes it on to feed."""
    asked_usage: bool = False
    """The usage event was asked for by us, not by the client."""
    answer: Answer | None = None
    """What the body was read as, once the context has ended (or whoever read it says so)."""
    stored: bool = False
    """It is being written to the store."""

    @property
    def live(self) -> bool:
        """The answer is a stream whose events can be told apart while they pass."""
        return self.taken is not None and self.taken.form is Form.STREAM and self.taken.plain


class Asking:
    """Makes calls of models."""

    def __init__(
        self,
        *,
        config: Config,
        client: UpstreamClient,
        keeping: Keeping,
        acceptance: Acceptance,
        budget: Budget,
        telemetry: Telemetry,
        clock: Clock,
    ) -> None:
        self._limit = config.cache.max_entry_bytes
        self._tenant_header = config.cache.tenant_header.lower()
        self._client = client
        self._keeping = keeping
        self._acceptance = acceptance
        self._budget = budget
        self._telemetry = telemetry
        self._clock = clock

    @asynccontextmanager
    async def call(
        self,
        turn: Turn,
        sent: bytes,
        *,
        decodable: bool,
        plain: bool,
        settle: Callable[[Underway], Awaitable[None]] | None = None,
    ) -> AsyncIterator[Underway]:
        """Send `sent` in the place of the turn's body. `decodable`: ask for codings only that we
        can read; `plain`: for none at all. `settle` is called when the body has been passed on, in
        whatever way that ended. Raises the upstream client's errors.
        """
        request, known, exchange = turn.request, turn.known, turn.exchange
        headers = forwarding.request_headers(request.headers, known.endpoint, self._tenant_header)
        if decodable:
            forwarding.ask_only_for_decodable(headers, plain=plain)
        where = url(known.endpoint, turn.asked)
        timer = self._clock.monotonic
        call = ModelCall(exchange, turn.api.operation, known, self._telemetry, timer)
        underway: Underway | None = None
        failed: str | None = None
        try:
            async with self._client.call(
                request.method,
                where,
                headers,
                sent,
                known.endpoint,
                lambda attempt: call.span.attempt(request.method, where, attempt),
            ) as upstream:
                self._acceptance.learn(known.who, upstream.status)
                call.span.http(upstream.status)
                underway = Underway(upstream, call)
                if upstream.status >= 400:
                    failed = str(upstream.status)
                if upstream.status == 200:
                    share = self._budget.share(optional=True)
                    underway.taken = stream.recording(upstream, self._limit, timer, share)
                yield underway
        except GatewayError as problem:
            call.span.error(problem.code)
            failed = failed or problem.code
            raise
        finally:
            call.over()
            try:
                if underway is not None and settle is not None:
                    await settle(underway)
            finally:
                if underway is not None and underway.taken is not None:
                    underway.taken.forget()
                call.end(underway.answer if underway is not None else None, failed)

    @asynccontextmanager
    async def ask(
        self, turn: Turn, *, plain: bool = False, on_stored: Callable[[], None] | None = None
    ) -> AsyncIterator[Underway]:
        """Send the request, with what we need to keep its answer, and keep it afterwards.

        `plain`: the events of a stream must be readable as they pass. `on_stored` is called when
        the writing is over, if there was any (`Underway.stored`).
        """
        sent, asked_usage = turn.body, False
        if turn.api is OPENAI_EMBEDDINGS and turn.lookup and turn.exchange.inputs is None:
            turn.exchange.inputs = (0, 1)
        ask, lookup = turn.known.ask, turn.lookup
        keeps = lookup is not None and lookup.write and ask is not None
        if keeps and ask is not None and not turn.directives.no_transform:
            changed = turn.api.with_stream_usage(turn.body, ask, turn.rules)
            if changed is not None:
                sent, asked_usage = changed, True
        plain = (plain and ask is not None and ask.form is Form.STREAM) or asked_usage

        async def settle(underway: Underway) -> None:
            await self._settle(turn, underway, on_stored)

        async with self.call(turn, sent, decodable=keeps, plain=plain, settle=settle) as underway:
            underway.asked_usage = asked_usage
            yield underway

    async def _settle(
        self, turn: Turn, underway: Underway, on_stored: Callable[[], None] | None
    ) -> None:
        exchange, taken = turn.exchange, underway.taken
        if taken is not None:
            await self._keep(turn, taken, underway, on_stored)
            exchange.answered = underway.answer is not None
        elif turn.lookup is not None and underway.upstream.status != 200:
            self._keeping.skip(exchange, Reason.STATUS)
        elif turn.lookup is not None:
            self._keeping.skip(exchange, Reason.CONTENT_TYPE)

    async def _keep(
        self,
        turn: Turn,
        taken: stream.Recording,
        underway: Underway,
        on_stored: Callable[[], None] | None,
    ) -> None:
        """Read what was recorded, and store it if the cache has a say."""
        gone: asyncio.CancelledError | None = None
        try:
            if taken.size > LONG_BYTES:
                answer, gone = await _read_beside(turn, taken)
            else:
                answer = judged(turn.api, turn.rules, taken)
            if isinstance(answer, Reason):
                if turn.lookup is not None:
                    self._keeping.skip(turn.exchange, answer)
                return
            if turn.lookup is not None:
                underway.stored = self._keeping.keep(turn, answer, taken.gaps_ms, on_stored)
            underway.answer = answer
        except Exception:  # noqa: BLE001 - the client has its answer; keeping it is extra
            _log.exception("an answer can't be kept", api=turn.api.name)
        finally:
            if gone is not None:
                raise gone


async def _read_beside(
    turn: Turn, taken: stream.Recording
) -> tuple[Answer | Reason, asyncio.CancelledError | None]:
    """The answer, read in a thread, and whether this was cancelled meanwhile: what is read is paid
    for, and the thread reads on whoever leaves.
    """
    gone = None
    # Not the future's result: it lies in a cycle, and would be held until the collector comes by.
    read: list[Answer | Reason] = []
    loop = asyncio.get_running_loop()
    reading = loop.run_in_executor(None, lambda: read.append(judged(turn.api, turn.rules, taken)))
    try:
        await asyncio.shield(reading)
    except asyncio.CancelledError as error:
        gone = error
        await reading
    return read.pop(), gone

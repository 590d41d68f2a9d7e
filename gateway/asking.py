"""One call of a model: opened, told in spans and metrics, recorded, and its answer kept.

Whoever passes the answer on does so inside the context; when it ends, in whatever way, what came is
judged and stored if the cache has a say.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from gateway import traced
from gateway.acceptance import accepted_as
from gateway.cache import LONG_BYTES, judged
from gateway.core.model import Form, Reason
from gateway.errors import GatewayError, UpstreamUnreachable
from gateway.exchange import ModelCall
from gateway.server import forwarding, stream
from gateway.wire.table import OPENAI_EMBEDDINGS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from multidict import CIMultiDict

    from gateway.acceptance import Acceptance
    from gateway.accounts import Accounts
    from gateway.budget import Budget
    from gateway.cache import Clock
    from gateway.config import Config
    from gateway.core.model import Answer
    from gateway.journey import Journey
    from gateway.keeping import Keeping
    from gateway.planned import Planned
    from gateway.routed import Routed
    from gateway.routing import Routing
    from gateway.telemetry.setup import Telemetry
    from gateway.turn import Turn
    from gateway.upstream.client import Call
    from gateway.upstream.response import Response

_log = structlog.get_logger("warmgate.asking")

_READ_AT_ONCE = 2
"""Long answers: while it is read one takes five times its size, and several threads read no faster."""


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
        routing: Routing,
        keeping: Keeping,
        acceptance: Acceptance,
        budget: Budget,
        telemetry: Telemetry,
        clock: Clock,
        accounts: Accounts,
    ) -> None:
        self.accounts = accounts
        self.limit = config.cache.max_entry_bytes
        self._tenant_header = config.cache.tenant_header.lower()
        self.routing = routing
        self.keeping = keeping
        self.acceptance = acceptance
        self.budget = budget
        self.telemetry = telemetry
        self.timer = clock.monotonic
        self._reading = asyncio.Semaphore(_READ_AT_ONCE)

    def call(self, turn: Turn, sent: bytes, *, decodable: bool, plain: bool) -> Asked:
        """A context that sends `sent` in the place of the turn's body. `decodable`: ask for codings
        only that we can read; `plain`: for none at all. Raises the upstream client's errors.
        """
        request, known = turn.request, turn.known
        headers = forwarding.request_headers(request.headers, known.endpoint, self._tenant_header)
        if decodable:
            forwarding.ask_only_for_decodable(headers, plain=plain)
        return Asked(self, turn, headers, sent)

    def ask(
        self,
        turn: Turn,
        *,
        plain: bool = False,
        on_stored: Callable[[], None] | None = None,
        planned: Planned | None = None,
        as_it_came: bool = False,
    ) -> Asked:
        """A context that sends the request, with what we need to keep its answer, and keeps it
        afterwards.

        `plain`: the events of a stream must be readable as they pass. `on_stored` is called when
        the writing is over, if there was any (`Underway.stored`). `planned` is what is sent in the
        place of the turn's body; `as_it_came`: nothing at all is added to it.
        """
        sent, asked_usage = turn.body if planned is None else planned.body, False
        # What was planned, or sent to a replica, is learned from by what the answer says it took.
        learns = turn.known.endpoint.pool or (planned is not None and planned.changes)
        if turn.api is OPENAI_EMBEDDINGS and turn.lookup and turn.exchange.inputs is None:
            turn.exchange.inputs = (0, 1)
        ask, lookup = turn.known.ask, turn.lookup
        keeps = lookup is not None and lookup.write and ask is not None
        may_change = not (as_it_came or turn.directives.no_transform)
        if (keeps or learns) and may_change and ask is not None:
            changed = turn.api.with_stream_usage(sent, ask, turn.rules)
            if changed is not None:
                sent, asked_usage = changed, True
        plain = (plain and ask is not None and ask.form is Form.STREAM) or asked_usage
        asked = self.call(turn, sent, decodable=keeps or learns, plain=plain)
        if planned is not None:
            asked.planned = planned
            asked.headers.update(planned.headers)
        asked.asked_usage = asked_usage
        asked.as_it_came = as_it_came
        asked.keeps = True
        asked.on_stored = on_stored
        return asked

    def settle(
        self, turn: Turn, underway: Underway, on_stored: Callable[[], None] | None
    ) -> Awaitable[None] | None:
        """Judge what came and store it, if the cache has a say. What takes long is still to be
        awaited.
        """
        taken = underway.taken
        if taken is None:
            if turn.lookup is not None:
                failed = underway.upstream.status != 200
                self.keeping.skip(turn.exchange, Reason.STATUS if failed else Reason.CONTENT_TYPE)
            return None
        if taken.size > LONG_BYTES:
            return self._settle_beside(turn, underway, taken, on_stored)
        try:
            self._keep(turn, underway, taken, judged(turn.api, turn.rules, taken), on_stored)
        except Exception:  # noqa: BLE001 - the client has its answer; keeping it is extra
            _log.exception("an answer can't be kept", api=turn.api.name)
        turn.exchange.answered = underway.answer is not None
        return None

    async def _settle_beside(
        self,
        turn: Turn,
        underway: Underway,
        taken: stream.Recording,
        on_stored: Callable[[], None] | None,
    ) -> None:
        gone: asyncio.CancelledError | None = None
        try:
            answer, gone = await _read_beside(turn, taken, self._reading)
            self._keep(turn, underway, taken, answer, on_stored)
        except Exception:  # noqa: BLE001 - as in `settle`
            _log.exception("an answer can't be kept", api=turn.api.name)
        if gone is not None:
            raise gone
        turn.exchange.answered = underway.answer is not None

    def _keep(
        self,
        turn: Turn,
        underway: Underway,
        taken: stream.Recording,
        answer: Answer | Reason,
        on_stored: Callable[[], None] | None,
    ) -> None:
        if isinstance(answer, Reason):
            if turn.lookup is not None:
                self.keeping.skip(turn.exchange, answer)
            return
        if turn.lookup is not None:
            underway.stored = self.keeping.keep(turn, answer, taken.gaps_ms, on_stored)
        underway.answer = answer


class Asked(AbstractAsyncContextManager["Underway"]):
    """One call as a context. A class, because a generator's context costs more."""

    __slots__ = (
        "_asking",
        "_call",
        "_failed",
        "_journey",
        "_sending",
        "_sent",
        "_turn",
        "_underway",
        "as_it_came",
        "asked_usage",
        "headers",
        "keeps",
        "on_stored",
        "planned",
    )

    def __init__(self, asking: Asking, turn: Turn, headers: CIMultiDict[str], sent: bytes) -> None:
        self._asking = asking
        self._turn = turn
        self.headers = headers
        self._sent = sent
        self._underway: Underway | None = None
        self._failed: str | None = None
        self._call: ModelCall
        self._sending: Call | Routed
        self._journey: Journey | None = None
        self.asked_usage = False
        self.as_it_came = False
        """Nothing may be added to it."""
        self.keeps = False
        """What came is settled in the end."""
        self.on_stored: Callable[[], None] | None = None
        self.planned: Planned | None = None

    async def __aenter__(self) -> Underway:
        """Send it; returns when the head of the response is there."""
        asking, turn = self._asking, self._turn
        known, timer, endpoint = turn.known, asking.timer, turn.known.endpoint
        if endpoint.pool:
            may_change = not (self.as_it_came or turn.directives.no_transform)
            span = turn.exchange.span.route()
            self._journey = await asking.routing.journey(turn, self._sent, may_change=may_change)
            self._journey.span = span
        call = self._call = ModelCall(
            *(turn.exchange, turn.api.operation, known, asking.telemetry, timer),
            attributes=traced.attributes(turn),
        )
        try:
            self._sending = asking.routing.call(
                turn.request.method,
                turn.asked,
                self.headers,
                self._sent,
                endpoint,
                call.span.attempt,
                self._journey,
            )
            upstream = await self._sending.__aenter__()
        except BaseException as problem:
            self._note(problem)
            call.over()
            # (What could not be sent costs nothing. Of anything else nobody knows.)
            self._count(None, failed=isinstance(problem, UpstreamUnreachable))
            call.end(None, self._failed)
            raise
        # It has gone out, and is not sent again.
        self._sent = b""
        asking.acceptance.learn(accepted_as(known.who, known.endpoint), upstream.status)
        call.span.http(upstream.status)
        underway = self._underway = Underway(upstream, call, asked_usage=self.asked_usage)
        if upstream.status >= 400:
            self._failed = str(upstream.status)
        if upstream.status == 200:
            share = asking.budget.share(optional=True)
            underway.taken = stream.recording(upstream, asking.limit, timer, share)
            if (journey := self._journey) is not None:
                call.on_first = lambda: asking.routing.begun(endpoint, journey)
        return underway

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        underway, call = self._underway, self._call
        assert underway is not None
        try:
            self._sending.end(problem)
        except BaseException as mapped:
            self._note(mapped)
            raise
        else:
            if problem is not None:
                self._note(problem)
        finally:
            call.over()
            try:
                if self.keeps:
                    long = self._asking.settle(self._turn, underway, self.on_stored)
                    if long is not None:
                        await long
            finally:
                if underway.taken is not None:
                    underway.taken.forget()
                if self._journey is not None:
                    endpoint = self._turn.known.endpoint
                    self._asking.routing.learn(endpoint, self._journey, underway.answer)
                self._count(underway.answer, failed=underway.upstream.status >= 300)
                self._tell(underway)

    def _count(self, answer: Answer | None, *, failed: bool) -> None:
        prefill_s = None
        usage = answer.usage if answer is not None else None
        if usage is not None and usage.cache_read and self._journey is not None:
            endpoint = self._turn.known.endpoint
            prefill_s = self._asking.routing.prefill_s(endpoint, self._journey, usage.cache_read)
        self._asking.accounts.asked(
            self._turn, self.planned, answer, failed=failed, prefill_s=prefill_s
        )

    def _tell(self, underway: Underway) -> None:
        call, turn, answer = self._call, self._turn, underway.answer
        arrived_ms = underway.taken.arrived_ms if underway.taken is not None else ()
        content = None
        if call.span.captures:
            content = partial(traced.content, turn, answer, self._asking.keeping.entry)
        call.end(answer, self._failed, arrived_ms, content)

    def _note(self, problem: BaseException) -> None:
        if isinstance(problem, GatewayError):
            self._call.span.error(problem.code)
            self._failed = self._failed or problem.code


async def _read_beside(
    turn: Turn, taken: stream.Recording, gate: asyncio.Semaphore
) -> tuple[Answer | Reason, asyncio.CancelledError | None]:
    """The answer, read in a thread, and whether this was cancelled meanwhile: what is read is paid
    for, and the thread reads on whoever leaves.
    """
    gone = None
    # Not the future's result: it lies in a cycle, and would be held until the collector comes by.
    read: list[Answer | Reason] = []
    loop = asyncio.get_running_loop()
    try:
        await gate.acquire()
    except asyncio.CancelledError as error:
        gone = error
        await gate.acquire()
    try:
        reading = loop.run_in_executor(
            None, lambda: read.append(judged(turn.api, turn.rules, taken))
        )
        try:
            await asyncio.shield(reading)
        except asyncio.CancelledError as error:
            gone = error
            await reading
    finally:
        gate.release()
    return read.pop(), gone

"""One request through a pool: sent to the replica that is best for it, and to the next one where that
has not begun to answer.

Rule 1: nothing is sent twice once the first byte of an answer is there. Before that, what a replica
did not take, or lost by breaking off, goes to the next; what it refuses for now (429, 502, 503, 504)
as well, as far as the pool's budget of retries goes, unless it is the one that keeps what is asked for.
Silence is waited for, unless probes say that the replica hangs.
Rule 2: a body that can't be had twice goes on only where nothing of it was taken; and so does what is
passed through and may change something.
So is one whose kept connection breaks before the head of an answer (llama.cpp ends a connection after
each stream): the replica is well, and is asked again on a new one.
Rule 3: a request is in flight at its replica from the moment it is sent to its last byte.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from gateway.core.route import Branch
from gateway.errors import GatewayError, UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
from gateway.upstream.backend import failure_of
from gateway.upstream.choice import url
from gateway.wire.members import with_member

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType

    from multidict import CIMultiDict

    from gateway.journey import Journey
    from gateway.pooled import Pooled
    from gateway.router import Route
    from gateway.telemetry.spans import AttemptSpan
    from gateway.upstream.backend import Backend
    from gateway.upstream.choice import Asked
    from gateway.upstream.client import Call
    from gateway.upstream.response import Response

ELSEWHERE = frozenset((429, 502, 503, 504))
"""Statuses of a replica that can't take the request now: another one may."""
_BAD = frozenset((502, 503, 504))
_NOT_DONE = frozenset((429, 503))
"""Refusals before anything was done; behind the other two, somebody may have done it."""
_MOST_ATTEMPTS = 5
_MOST_BROKEN = 2
"""Replicas that may break off before they answer one request: perhaps it is the request that breaks them."""
_MOST_STALE = 3
"""Kept connections of one replica that broke, one after the other: then it is more than that."""


class Routed(AbstractAsyncContextManager["Response"]):
    """As `upstream.client.Call`, of one attempt or several."""

    __slots__ = (
        *(
            "_asked",
            "_attempt_span",
            "_backend",
            "_body",
            "_broken",
            "_call",
            "_headers",
            "_journey",
        ),
        *("_method", "_number", "_pool", "_scope", "_stale", "_status"),
    )

    def __init__(  # noqa: PLR0917
        self,
        pool: Pooled,
        method: str,
        asked: Asked,
        headers: CIMultiDict[str],
        body: bytes | AsyncIterator[bytes] | None,
        attempt_span: Callable[[str, str, int], AttemptSpan],
        journey: Journey,
    ) -> None:
        self._pool = pool
        self._method = method
        self._asked = asked
        self._headers = headers
        self._body = body
        self._attempt_span = attempt_span
        self._journey = journey
        self._number = 0
        self._broken = 0
        self._status = 0
        self._stale = False
        self._backend: Backend
        self._call: Call
        self._scope: asyncio.Timeout | None = None

    async def __aenter__(self) -> Response:
        """Send the request; returns when its response has begun: of a stream, with the first byte."""
        pool, journey = self._pool, self._journey
        began = pool.timer()
        try:
            route = pool.router.route(journey)
        except GatewayError as problem:
            journey.span.error(problem.code)
            raise
        else:
            wait_s = route.placement.wait_s if route.placement is not None else 0.0
            policy = pool.router.replicas.settings.policy
            journey.span.chosen(policy.value, route.order[0].name, route.branch, wait_s)
        finally:
            journey.span.end()
        if journey.exchange is not None:
            journey.exchange.step("route", began, pool.timer())
        branch = route.branch
        last = min(len(route.order), _MOST_ATTEMPTS) - 1
        for number, backend in enumerate(route.order):
            try:
                response = await self._asked_of(route, backend, branch)
            except GatewayError as problem:
                if number >= last or not self._can_go_on(problem):
                    raise
                reason = problem.code
            else:
                status = response.status
                # (Who keeps what is asked for, and can't now, isn't stood in for: another one would say
                # that there is no such thing.)
                final = number >= last or backend.name == journey.owner
                if status not in ELSEWHERE or final or not self._may_repeat():
                    return response
                reason = str(status)
                self.end(None)
                pool.router.over(journey)
            pool.retried(journey, backend, reason)
            branch = Branch.MOVED_HEALTH
        raise AssertionError  # the last attempt returned or raised

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(problem)

    def end(self, problem: BaseException | None) -> None:
        """See `Call.end`."""
        backend = self._backend
        try:
            self._call.end(problem)
        except GatewayError as told:
            if isinstance(told, UpstreamBroken | UpstreamTimeout):
                backend.broke_off(failure_of(told), self._pool.timer())
            raise
        else:
            if problem is None and self._status < 500:
                backend.ended()
        finally:
            backend.in_flight -= 1

    def abandon(self) -> None:
        """The replica hangs: don't wait for it any longer, if it has not begun to answer."""
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def _asked_of(self, route: Route, backend: Backend, branch: Branch) -> Response:
        for _ in range(_MOST_STALE):
            try:
                return await self._ask(route, backend, branch)
            except UpstreamBroken:
                if not (self._stale and self._may_be_done_twice):
                    raise
        return await self._ask(route, backend, branch)

    async def _ask(self, route: Route, backend: Backend, branch: Branch) -> Response:
        pool, journey = self._pool, self._journey
        self._stale = False
        self._backend, self._status = backend, 0
        number, self._number = self._number, self._number + 1
        method, where = self._method, url(backend.endpoint, self._asked)
        journey.went(backend.name, branch)
        pool.counted(branch)

        def span(attempt: int) -> AttemptSpan:
            opened = self._attempt_span(method, where, number + attempt)
            opened.routed(backend.name, branch)
            return opened

        self._call = pool.client.call(
            method, where, self._headers, self._body_for(route, backend), backend.endpoint, span,
            attempts=1,
        )  # fmt: skip
        pool.router.sent(journey, route, backend)
        began = pool.timer()
        pool.waiting(backend.name, self)
        try:
            async with asyncio.timeout(None) as self._scope:
                response = await self._head()
                if journey.streams and response.status == 200:
                    await self._first_byte(response)
        except BaseException as problem:
            backend.in_flight -= 1
            pool.router.over(journey)
            if isinstance(problem, TimeoutError):
                # (Those of the upstream's own come mapped.)
                raise UpstreamBroken(
                    f"replica {backend.name} of upstream {pool.router.replicas.name!r} hangs: it "
                    "answers no probes"
                ) from problem
            if (
                isinstance(problem, UpstreamUnreachable | UpstreamBroken | UpstreamTimeout)
                and not self._stale
            ):
                backend.failed(failure_of(problem), pool.timer())
            raise
        finally:
            self._scope = None
            pool.waited(backend.name, self)
        status = self._status = response.status
        now = pool.timer()
        if status in _BAD:
            backend.failed(f"status {status}", now)
        elif status < 500 and status not in ELSEWHERE:
            # (A 500 may be the request's own fault: who repeats it must not eject one after another.)
            backend.succeeded(now, now - began if journey.streams and status == 200 else None)
        return response

    async def _head(self) -> Response:
        try:
            return await self._call.__aenter__()
        except UpstreamBroken:
            self._stale = self._call.was_kept
            raise

    async def _first_byte(self, response: Response) -> None:
        """Some (vLLM, llama.cpp) send the head of a stream before they compute its prompt: that is no
        answer yet, and another one can still give it.
        """
        try:
            await response.begun()
        except BaseException as problem:
            self._call.end(problem)
            raise

    def _body_for(self, route: Route, backend: Backend) -> bytes | AsyncIterator[bytes] | None:
        """With the slot that the first of them should compute it in."""
        body, placement = self._body, route.placement
        if (
            placement is not None
            and placement.slot is not None
            and self._journey.pins
            and isinstance(body, bytes)
            and backend is route.order[0]
        ):
            return with_member(body, "id_slot", placement.slot)
        return body

    def _can_go_on(self, problem: GatewayError) -> bool:
        if isinstance(problem, UpstreamUnreachable):
            return True
        if not isinstance(problem, UpstreamBroken) or not self._may_be_done_twice:
            return False
        self._broken += 1
        return self._broken < _MOST_BROKEN

    def _may_repeat(self) -> bool:
        if self._journey.once and self._status not in _NOT_DONE:
            return False
        return self._twice and self._pool.router.replicas.may_retry(self._pool.timer())

    @property
    def _may_be_done_twice(self) -> bool:
        return self._twice and not self._journey.once

    @property
    def _twice(self) -> bool:
        return self._body is None or isinstance(self._body, bytes)

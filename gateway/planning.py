"""What is done for the provider's prompt cache, request by request: planned, told, learned from.

Rule 1: nothing here fails a request: whatever goes wrong, it goes out as it came.
Rule 2: a request is planned by who makes the call, just before it: those who share its answer, and
the response cache's identity, never see a marker.
Rule 3: what is remembered are fingerprints, counts and times (`core.planner`), bounded in bytes.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import orjson
import structlog

from gateway.core import identity
from gateway.core.hints import Hinting
from gateway.core.plan import Markers, PlanReason
from gateway.core.prompt_policy import markers_for, untouchable
from gateway.core.rewrites import Case, Rewrite
from gateway.learned import Learned
from gateway.planned import Planned, is_short
from gateway.providers.prompt_cache_rules import cache_rules
from gateway.wire.base import NotUnderstood
from gateway.wire.marking import marked
from gateway.wire.members import with_member
from gateway.wire.note_place import unmarked_from
from gateway.wire.refusals import names_of
from gateway.wire.rewriting import Asker
from gateway.wire.system_text import APIS, read_lead

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.cache import Clock
    from gateway.config import Config
    from gateway.core.canonical import Json
    from gateway.core.model import Answer, Usage
    from gateway.core.planner import CachePlanner
    from gateway.core.prefix import CachePrompt, Path
    from gateway.core.ticket import Ticket
    from gateway.door import Known
    from gateway.providers.prompt_cache import CacheRules
    from gateway.telemetry.setup import Telemetry
    from gateway.telemetry.spans import PlanSpan
    from gateway.turn import Turn
    from gateway.upstream.choice import Choice, Endpoint
    from gateway.wire.rewriting import Rewriter

_log = structlog.get_logger("warmgate.planning")

_MARKERS = "x-gateway-markers"

# Where the thread has so much to do, the request goes as it came.
_THREAD_WAIT_S = 3.0
_LONG_AT_ONCE = 2
# Planning more than these would be a tenth of a second in which nobody else is served, and no model
# has room for as many that are worth an entry.
MOST_BLOCKS = 32_768
_REWRITTEN = b"signature"  # of thinking that turns out to be bound to the text as it was
_LOG_EVERY_S = 60.0

_T = TypeVar("_T")


class Planning:
    """Plans by one config, and by what is known of prompts. For one event loop."""

    def __init__(
        self,
        *,
        config: Config,
        choice: Choice,
        telemetry: Telemetry,
        clock: Clock,
        tenant: Callable[[Turn], str | None],
        planner: CachePlanner | None = None,
        rewriter: Rewriter | None = None,
        learned: Learned | None = None,
    ) -> None:
        """`tenant` names whom a trusted proxy speaks for, if anybody; `learned` is what is known already."""
        learned = self.learned = learned or Learned(
            *(config, choice, telemetry.metrics, clock.monotonic),
            planner=planner,
            rewriter=rewriter,
        )
        self.rewriter, self.watching = learned.rewriter, learned.watching
        self.planner, self.proving = learned.planner, learned.proving
        self.foreseeing = learned.foreseeing
        self._beginnings, self._takers = learned.beginnings, learned.takers
        self._thread = learned.thread
        self._choice = choice
        self._telemetry = telemetry
        self._timer = clock.monotonic
        self._tenant = tenant
        self._isolates = config.prompt_cache.isolate
        self._hinting = Hinting(
            learned.keys, hints=config.prompt_cache.hints, isolates=self._isolates
        )
        self._long = asyncio.Semaphore(_LONG_AT_ONCE)
        self._failures = 0
        self._logged_at = float("-inf")
        self.on_answered: Callable[[Turn, Planned], None] | None = None
        """Told of each answer that a model gave."""

    def __repr__(self) -> str:
        return f"<Planning, {self._takers}, {self._failures} failures>"

    def close(self) -> None:
        """Let the threads go. What is being done in them is not waited for."""
        self.learned.close()

    async def plan(self, turn: Turn) -> Planned:
        """The request as it is to be sent. Never raises."""
        began, span = self._timer(), turn.exchange.span.plan()
        ask = turn.known.ask
        provider, model = turn.known.endpoint.caches_as, ask.model if ask else ""
        try:
            planned = await self._plan(turn, provider, model)
        except NotUnderstood:
            planned = Planned(turn.body, PlanReason.NOT_UNDERSTOOD, provider, model)
        except Exception:  # noqa: BLE001 - the request goes as it came
            self._failed(turn)
            planned = Planned(turn.body, PlanReason.FAILED, provider, model)
        except BaseException:
            span.end()
            raise
        ended = self._timer()
        turn.exchange.step("plan", began, ended)
        self._tell(turn, planned, ended - began, span)
        return planned

    def begun(self, turn: Turn, planned: Planned) -> None:
        """The first byte of a successful answer came."""
        planned.turn = turn
        if planned.names:
            self._takers.took(planned.key)
        if planned.ticket is not None:
            self._guarded(lambda t: self.planner.begun(t, self._timer()), planned.ticket)
            self._guarded(self.foreseeing.begun, planned)

    def learn(self, planned: Planned, answer: Answer | None) -> None:
        """The call is over; None: it failed, or its answer could not be read."""
        usage = answer.usage if answer is not None else None
        turn = planned.turn
        if turn is not None:
            self._guarded(lambda t: self.proving.prove(t, planned, self._domain(t)), turn)
            self._guarded(
                lambda t: self.foreseeing.judge(t, planned, self._domain(t), answer), turn
            )
            self._guarded(self._watch, planned)
        if planned.ticket is not None:
            self._guarded(lambda t: self.planner.learn(t, usage, self._timer()), planned.ticket)
        if self.on_answered is not None and turn is not None and usage is not None:
            told = self.on_answered
            self._guarded(lambda t: told(t, planned), turn)

    def _watch(self, planned: Planned) -> None:
        turn, planned.turn = planned.turn, None
        if turn is not None:
            sent = planned.body if planned.rewrites else None
            prompt = None if planned.ticket is None else planned.ticket.prompt
            noticed = self.watching.watch(
                turn, lambda: self._domain(turn), sent, planned.lead, prompt
            )
            planned.lead = None
            if noticed is not None:
                turn.exchange.span.volatile(*noticed)

    def as_it_came(self, turn: Turn, planned: Planned) -> Planned:
        """The request without what we added: the provider may have refused it for that."""
        self.learn(planned, None)
        asis = Planned(
            turn.body, PlanReason.REFUSED, planned.provider, planned.model, planned.rules
        )
        asis.key = planned.key
        turn.exchange.markers, turn.exchange.rewrites = asis.told(), None
        turn.exchange.prompt_cache = None
        turn.exchange.span.planned(asis.reason.value, 0, 0, ())
        return asis

    def was_taken(self, planned: Planned) -> bool:
        """Has the provider ever (as far as is remembered) taken what we add for this model?"""
        return self._takers.has_taken(planned.key)

    def refused(self, planned: Planned) -> None:
        """The provider took the request as it came, and had refused what was `planned`: nothing is
        added for this model for a while.
        """
        self._takers.refused(planned.key, self._timer())
        self._telemetry.metrics.prompt_cache.refused(planned.provider, planned.model)
        _log.warning(
            "a provider refused what was added; sent again as it came",
            provider=planned.provider,
            model=planned.model,
            added=planned.told(),
        )

    # --- prompts that are sent for their cache alone --------------------------------------------

    def expect(self, endpoint: Endpoint, prompt: CachePrompt, rules: CacheRules) -> Ticket:
        """A prompt with markers of its own is about to be sent with the endpoint's credential."""
        who = domain_of(endpoint)
        ticket = self.planner.plan(who, prompt, rules, Markers.RESPECT, self._timer())
        self.foreseeing.expect(endpoint, who, ticket)
        return ticket

    def hint_of(self, ticket: Ticket, endpoint: Endpoint) -> dict[str, str]:
        """The member that those who ask for this prompt send to keep it on one machine."""
        assert ticket.rules is not None
        hint = self._hinting.hint(ticket.rules, ticket.prompt.api)
        if not hint or hint.startswith("x-") or ticket.prompt.client_key:
            return {}
        value = self._hinting.value(hint, domain_of(endpoint), ticket, self._timer())
        self.foreseeing.hinted(ticket, value)
        return {hint: value} if value else {}

    def kept(self, ticket: Ticket, usage: Usage | None, *, ok: bool) -> None:
        """What became of it."""
        if ok:
            self._guarded(lambda t: self.planner.begun(t, self._timer()), ticket)
        self._guarded(lambda t: self.planner.learn(t, usage, self._timer()), ticket)
        self._guarded(lambda t: self.foreseeing.kept(t, usage), ticket)

    # --- deciding -------------------------------------------------------------------------------

    async def _plan(self, turn: Turn, provider: str, model: str) -> Planned:
        known = turn.known
        policy = self._choice.prompt_policy(turn.asked, model)
        markers = markers_for(policy, turn.request.headers.get(_MARKERS))
        planned = Planned(turn.body, PlanReason.NO_MARKERS, provider, model)
        planned.key = (b"", turn.api.name, model)
        why = untouchable(markers, turn.directives, known.pass_reason, known.ask)
        deployment = known.endpoint.deployment
        rules = planned.rules = cache_rules(provider, turn.api.name, model, deployment=deployment)
        if why is not None or rules is None:
            planned.reason = why or PlanReason.UNKNOWN_MODEL
            return planned
        who = self._domain(turn)
        planned.key = (who, turn.api.name, model)
        if self._takers.stands_down(planned.key, self._timer()):
            planned.reason = PlanReason.REFUSED
            return planned
        hint = self._hinting.hint(rules, turn.api.name)
        if rules.takes_markers or hint or policy.rewrites:
            if is_short(turn.body):
                await self._change(turn, planned, policy.rewrites, markers, hint)
                return planned
            # What a long one is read as takes many times its size, and is held until it is marked.
            async with asyncio.timeout(_THREAD_WAIT_S):
                await self._long.acquire()
            try:
                await self._change(turn, planned, policy.rewrites, markers, hint)
            finally:
                self._long.release()
        return planned

    async def _change(
        self,
        turn: Turn,
        planned: Planned,
        wanted: frozenset[Rewrite],
        markers: Markers,
        hint: str,
    ) -> None:
        """Rewrite, mark and hint, in that order: each finds what the one before has left."""
        who, api, _ = planned.key
        rules, body = planned.rules, turn.body
        assert rules is not None
        made: frozenset[Rewrite] = frozenset()
        note: Path | None = None
        if wanted:
            document = await self._beside(body, partial(orjson.loads, body))
            if api in APIS and isinstance(document, dict):
                planned.lead = read_lead(api, document)
            case = Case(wanted, planned.provider, rules)
            asker = Asker(api, who, turn.known.endpoint.name, turn.asked.path)
            now = self._timer()
            rewritten = await self.searching(
                lambda: self.rewriter.rewrite(body, document, case, asker, now), _THREAD_WAIT_S
            )
            if rewritten.made:
                body, made, note = rewritten.body, rewritten.made, rewritten.note
        start = self._beginnings.begin(api, body, rules)
        reading = await self._beside(body, start.read)
        if len(reading.prompt.blocks) > MOST_BLOCKS:
            planned.reason = PlanReason.NOT_UNDERSTOOD
            return
        self._beginnings.keep(start, reading)
        document, prompt, landmark = reading.document, reading.prompt, reading.landmark
        if planned.lead is None and api in APIS and isinstance(document, dict):
            planned.lead = read_lead(api, document)
        if note is not None:
            prompt = unmarked_from(prompt, note)
        ticket = self.planner.plan(who, prompt, rules, markers, self._timer())
        plan = ticket.plan
        try:
            sent = body
            names: tuple[bytes, ...] = (_REWRITTEN,) if made else ()
            if plan.changes:
                sent = await self._beside(body, lambda: marked(body, prompt, plan, rules, landmark))
                names += names_of(plan, prompt, rules)
            planned.body, planned.names = sent, names
            planned.ticket, planned.reason = ticket, plan.reason
            planned.rewrites = tuple(each.value for each in Rewrite if each in made)
            self._add_hint(turn, planned, hint, document)
            self._guarded(lambda d: self.foreseeing.foresee(turn, planned, d), document)
        except BaseException:
            # Nothing of what was planned will be written.
            self.planner.learn(ticket, None, self._timer())
            raise

    def _add_hint(self, turn: Turn, planned: Planned, hint: str, document: Json) -> None:
        ticket = planned.ticket
        if not hint or ticket is None or not isinstance(document, dict):
            return
        if ticket.plan.cache_key or self._hinting.is_given(hint, document, turn.request.headers):
            return
        value = self._hinting.value(hint, planned.key[0], ticket, self._timer())
        if not value:
            return
        planned.hint, planned.hint_value = hint, value
        if hint.startswith("x-"):
            planned.headers = {hint: value}
            return
        planned.body = with_member(planned.body, hint, value)
        planned.names = (*planned.names, hint.encode())

    def _domain(self, turn: Turn) -> bytes:
        return self.domain(turn.known, self._tenant(turn) if self._isolates else None)

    def domain(self, known: Known, tenant: str | None) -> bytes:
        """Whose cache it is: that of the credential that the provider sees."""
        apart: tuple[bytes, ...] = ()
        if self._isolates:
            apart = (b"credential", known.who) if tenant is None else (b"tenant", tenant.encode())
        if known.endpoint.api_key is not None:
            return domain_of(known.endpoint, *apart)
        return domain_of(known.endpoint, b"", known.who, *apart)

    async def _beside(self, body: bytes, work: Callable[[], _T]) -> _T:
        """The work done, for a long body in a thread: nobody else waits for it."""
        return work() if is_short(body) else await self.searching(work, _THREAD_WAIT_S)

    async def searching(self, work: Callable[[], _T], within_s: float | None = None) -> _T:
        """The work done in the one thread that searches in texts: what the rewriter remembers of them
        is that thread's alone, and a text that is new takes half a millisecond for each kilobyte.
        Raises TimeoutError for what isn't done `within_s`.
        """
        # Not the future's result: it lies in a cycle, and what was read would be held until the
        # collector comes by.
        done: list[_T] = []
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(within_s):
            await loop.run_in_executor(self._thread, lambda: done.append(work()))
        return done.pop()

    # --- telling --------------------------------------------------------------------------------

    def _tell(self, turn: Turn, planned: Planned, seconds: float, span: PlanSpan) -> None:
        exchange, plan = turn.exchange, planned.plan
        exchange.markers = planned.told()
        exchange.rewrites = ", ".join(planned.rewrites) or None
        injected = len(plan.marks) if plan is not None and planned.names else 0
        expected = plan.read_tokens if plan is not None else 0
        for each in (span, exchange.span):
            each.planned(planned.reason.value, injected, expected, planned.rewrites)
        span.end()
        told = self._telemetry.metrics.prompt_cache
        told.planned(planned.reason, planned.provider, planned.model, seconds, planned.rewrites)
        told.marked(planned.reason, injected, planned.client_marks)

    def _guarded(self, work: Callable[[_T], None], what: _T) -> None:
        try:
            work(what)
        except Exception:  # noqa: BLE001 - the client has its answer; learning from it is extra
            self._failed(None)

    def _failed(self, turn: Turn | None) -> None:
        self._failures += 1
        now = self._timer()
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            api = turn.api.name if turn is not None else None
            _log.exception("planning failed", failures=self._failures, api=api)


def domain_of(endpoint: Endpoint, *apart: bytes) -> bytes:
    """The cache of an endpoint; of its configured credential where nothing says whose apart."""
    return identity.digest((b"prompt cache", endpoint.identity, *apart))[:16]

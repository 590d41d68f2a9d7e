"""What a provider's prompt cache should give, told before a request is sent; what it gave and why it
gave less, told when it is answered.

Rule 1: nothing here fails or delays a request. A prompt that is read for its plan is looked at before
it is sent; any other when its answer has come, and then nothing is foreseen of it.
Rule 2: what is remembered are fingerprints, counts and times (`core.foresight`), bounded in bytes.
Rule 3: what takes long to read is read in a thread, one at a time; what comes meanwhile, is longer
still or has very many blocks is not looked at.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import structlog

from gateway.core.blocks import Section
from gateway.core.breakers import Breakers
from gateway.core.diagnosed import diagnosed
from gateway.core.foresight import Foresight, Sent
from gateway.core.miss import MissCause
from gateway.core.money import usd
from gateway.core.prefix import chain
from gateway.core.sightings import Effort, Sightings
from gateway.core.volatile import Confidence
from gateway.providers.prices import price
from gateway.wire.base import NotUnderstood
from gateway.wire.diagnostics import diagnosis
from gateway.wire.told_reads import tells_reads

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from gateway.core.breakers import Breaker
    from gateway.core.canonical import Json
    from gateway.core.foreseen import Foreseen
    from gateway.core.miss import Miss
    from gateway.core.model import Answer, Usage
    from gateway.core.neighbours import Difference
    from gateway.core.prefix import CachePrompt, Path
    from gateway.core.ticket import Ticket
    from gateway.planned import Planned
    from gateway.telemetry.metrics import Metrics
    from gateway.turn import Turn
    from gateway.upstream.choice import Endpoint
    from gateway.wire.beginnings import Beginnings, Reading, Start

_log = structlog.get_logger("warmgate.foreseeing")

_SHORT_BYTES = 128 * 1024
_LONGEST_BYTES = 4 * 1024 * 1024
_MOST_WAITING = 1
# What is looked at for more of them would hold up the loop for longer than others should wait.
MOST_BLOCKS = 2000
_MOST_WARMING = 256
_MOST_CHARACTERS = 64 * 1024
"""Of a changed text, in which it is looked for what changes with requests."""
_SAME_SIZE = 48
"""Bytes by which a text with another moment or id in it may have grown."""
_TOLD_BY_TEXT = frozenset({"system", "message"})


class Foreseeing:
    """Foresees and judges. For one event loop."""

    def __init__(
        self,
        beginnings: Beginnings,
        metrics: Metrics,
        timer: Callable[[], float],
        thread: Executor,
        budget_bytes: int,
        *,
        wanted: bool = True,
    ) -> None:
        """`beginnings` remembers what was read, `thread` reads what is long. About `budget_bytes`
        are remembered. `wanted` False: nothing is looked at.
        """
        self.foresight = Foresight(budget_bytes)
        self._breakers = Breakers()
        self._beginnings = beginnings
        self._metrics = metrics
        self._timer = timer
        self._thread = thread
        self.wanted = wanted
        self._sightings = Sightings(budget_bytes // 64)
        self._waiting = 0
        self._warming: dict[int, tuple[Ticket, bytes, str]] = {}
        """By the ticket's id, which holds as long as the ticket is kept here."""

    def __repr__(self) -> str:
        return f"<Foreseeing {self.foresight}, {self._waiting} waiting>"

    def breakers(self, now: float, most: int = 50) -> list[Breaker]:
        """What keeps prompts from beginning alike, the costliest first."""
        return self._breakers.ranked(now, most)

    # --- prompts that are sent for their cache alone --------------------------------------------

    def expect(self, endpoint: Endpoint, domain: bytes, ticket: Ticket) -> None:
        """One is about to be sent there, as it is. Which replicas of a pool get it is not known."""
        if self.wanted and ticket.rules is not None and not endpoint.pool:
            self._warming[id(ticket)] = ticket, domain, ticket.prompt.client_key
            if len(self._warming) > _MOST_WARMING:
                del self._warming[next(iter(self._warming))]

    def hinted(self, ticket: Ticket, value: str) -> None:
        """It is sent with this value of the member that keeps it on one machine."""
        if id(ticket) in self._warming:
            self._warming[id(ticket)] = *self._warming[id(ticket)][:2], value

    def kept(self, ticket: Ticket, usage: Usage | None) -> None:
        """What became of it: nobody missed anything, but what it wrote can be read."""
        known = self._warming.pop(id(ticket), None)
        if known is None or usage is None or ticket.rules is None:
            return
        if len(ticket.prompt.blocks) > MOST_BLOCKS:
            return
        _, domain, key = known
        fingers = ticket.chain or chain(ticket.prompt)
        sent = Sent(domain, ticket.prompt, ticket.rules, None, key, fingers)
        now = self._timer()
        found = self.foresight.foresee(sent, "", now)
        if found is not None:
            self.foresight.judge(found, usage, "", now)

    # --- before ---------------------------------------------------------------------------------

    def foresee(self, turn: Turn, planned: Planned, document: Json) -> None:
        """Say what is to be expected of a planned request, whose body `document` is (messages that
        are known may be missing in it).
        """
        ticket, rules = planned.ticket, planned.rules
        if not self.wanted or ticket is None or rules is None:
            return
        if not 0 < len(ticket.prompt.blocks) <= MOST_BLOCKS:
            return
        plan = ticket.plan
        key = plan.cache_key or ticket.prompt.client_key or planned.hint_value
        fingers = ticket.chain or chain(ticket.prompt)
        pool = bool(turn.known.endpoint.pool)
        sent = Sent(planned.key[0], ticket.prompt, rules, plan, key, fingers, pool, turn.known.who)
        found = self.foresight.foresee(sent, turn.exchange.request_id, self._timer())
        if found is None:
            return
        self._look_closer(found, document)
        planned.foreseen = found
        exchange = turn.exchange
        exchange.foreseen = found.outcome
        # The answer may never come, or say nothing of it: what is foreseen only is no miss.
        exchange.prompt_cache = found.outcome._replace(miss=None)

    def _look_closer(self, found: Foreseen, document: Json) -> None:
        """Is what changed a text with a value that changes with requests?"""
        changed = found.difference
        if changed is None or changed.kind not in _TOLD_BY_TEXT:
            return
        if abs(changed.was_size - changed.is_size) > _SAME_SIZE:
            return
        kind = self._volatile_kind(found.sent.prompt, changed, document)
        if kind:
            found.difference = changed._replace(kind=kind)
            found.outcome = found.outcome._replace(miss=found.foreseen())

    def _volatile_kind(self, prompt: CachePrompt, changed: Difference, document: Json) -> str:
        blocks, at = prompt.blocks, changed.block
        block = blocks[at]
        leads = block.section is Section.SYSTEM or (
            # Of later ones some may be missing in the document.
            at == 0 or blocks[at - 1].section is not Section.MESSAGES
        )
        text = _text_at(document, block.path) if leads else ""
        if not text:
            return ""
        is_piece = at > 0 and blocks[at - 1].path == block.path
        start = blocks[at - 1].until if is_piece else 0
        end = block.until or len(text)
        found = [
            each
            for each in self._sightings.find(text[:_MOST_CHARACTERS], Effort())
            if start <= each.start < end
        ]
        sure = [each for each in found if each.confidence > Confidence.WEAK] or found
        best = max(sure, key=lambda each: (each.pace, each.confidence), default=None)
        return best.kind.value if best is not None else ""

    # --- after ----------------------------------------------------------------------------------

    def begun(self, planned: Planned) -> None:
        """The first byte of a successful answer came."""
        if planned.foreseen is not None:
            self.foresight.begun(planned.foreseen, self._timer())

    def judge(self, turn: Turn, planned: Planned, domain: bytes, answer: Answer | None) -> None:
        """The answer came, or could not be read. `domain` is that of the provider's cache."""
        if not self.wanted or answer is None or answer.usage is None:
            return
        if planned.foreseen is not None:
            self._tell(turn, planned, planned.foreseen, answer)
            return
        body, rules, api = planned.body, planned.rules, turn.api.name
        if rules is None or turn.known.ask is None or len(body) > _LONGEST_BYTES:
            return
        if planned.ticket is not None:
            # It was looked at, and has too many blocks.
            return
        start = self._beginnings.begin(api, body, rules)
        fresh = len(body) - (start.known.at if start.known is not None else 0)
        come = partial(self._come, turn, planned, domain, answer, start)
        if fresh <= _SHORT_BYTES:
            come(_read(start))
        elif self._waiting < _MOST_WAITING:
            self._waiting += 1
            loop = asyncio.get_running_loop()
            reading = loop.run_in_executor(self._thread, _read, start)
            reading.add_done_callback(partial(self._late, come))

    def _late(
        self, come: Callable[[Reading | None], None], reading: asyncio.Future[Reading | None]
    ) -> None:
        self._waiting -= 1
        if reading.cancelled():
            return
        try:
            come(reading.result())
        except Exception as odd:  # noqa: BLE001 - nobody waits for it
            _log.warning("a prompt can't be compared", error=type(odd).__name__)

    def _come(  # noqa: PLR0917 - all that is known of the request
        self,
        turn: Turn,
        planned: Planned,
        domain: bytes,
        answer: Answer,
        start: Start,
        reading: Reading | None,
    ) -> None:
        """A prompt that was not looked at before it was sent has been read."""
        if reading is None or not 0 < len(reading.prompt.blocks) <= MOST_BLOCKS:
            return
        self._beginnings.keep(start, reading)
        assert planned.rules is not None
        prompt, pool = reading.prompt, bool(turn.known.endpoint.pool)
        key = prompt.client_key
        sent = Sent(domain, prompt, planned.rules, None, key, chain(prompt), pool, turn.known.who)
        now = self._timer()
        found = self.foresight.foresee(sent, turn.exchange.request_id, now)
        if found is not None:
            self._look_closer(found, reading.document)
            self._tell(turn, planned, found, answer)

    def _tell(self, turn: Turn, planned: Planned, found: Foreseen, answer: Answer) -> None:
        exchange, provider, model = turn.exchange, planned.provider, planned.model
        machine, now = exchange.backend or "", self._timer()
        states = tells_reads(answer)
        outcome = self.foresight.judge(found, answer.usage, machine, now, states_read=states)
        outcome = outcome._replace(
            miss=diagnosed(outcome, diagnosis(turn.api.name, turn.body, answer))
        )
        exchange.prompt_cache = outcome
        exchange.span.prompt_cache(outcome)
        miss = outcome.miss
        if miss is None:
            return
        self._metrics.prompt_cache.missed(miss, provider, model)
        if miss.cause is MissCause.PREFIX_CHANGED:
            cost = self._cost(turn, planned, miss)
            self._breakers.count(provider, model, miss, cost, exchange.request_id, now)

    @staticmethod
    def _cost(turn: Turn, planned: Planned, miss: Miss) -> float | None:
        """What the lost tokens cost more than they would have, read; None without a price."""
        listed = price(planned.provider, turn.api.name, planned.model)
        if listed is None:
            return None
        rates = listed.at(miss.lost_tokens)
        return usd(miss.lost_tokens * max(0, rates.input - rates.read))


def _read(start: Start) -> Reading | None:
    """None for what is no request at all."""
    try:
        return start.read()
    except (ValueError, NotUnderstood):
        return None


def _text_at(document: Json, path: Path) -> str:
    """The text of the block that stands there; empty where it is none, or isn't in the document."""
    here = document
    for step in path:
        if isinstance(here, dict) and isinstance(step, str):
            here = here.get(step)
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
        else:
            return ""
    if isinstance(here, dict):
        here = here.get("text")
    return here if isinstance(here, str) else ""

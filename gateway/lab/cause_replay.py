"""A trace through the serving code and a simulated provider that knows each miss: is it told right?

For every call the gateway's own path is taken, as in `cache_replay`: blocks, plan, markers in the
body's bytes, and what is foreseen of the provider's cache and judged of its answer. The simulated
provider says for the same call what it missed and why. Nothing is shared between the two but the
bytes, the time and the usage.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.foresight import Foresight, Sent
from gateway.core.plan import Markers
from gateway.core.planner import CachePlanner
from gateway.core.prefix import chain
from gateway.lab import sim_pieces
from gateway.lab.cache_replay import forwarded, prompt_of, shown_as
from gateway.lab.cache_sim import GRAIN, CacheSim, MarksRefused
from gateway.lab.sim_causes import Case, Causes
from gateway.lab.sim_losses import Losses
from gateway.lab.sim_machines import Machines
from gateway.providers.prompt_cache import MarkerForm

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from gateway.core.miss import Miss, MissCause
    from gateway.core.model import Usage
    from gateway.lab.cache_policies import Marking
    from gateway.lab.cache_replay import Against, Shown
    from gateway.lab.trace import Call, Trace

_DOMAIN = b"replay"
_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Options:
    """How the simulated provider behaves."""

    losses: float = 0.0
    """The share of entries that are gone when they would be read."""
    overflows: bool = False
    """A prefix that is asked for too often goes to another machine, where that is documented."""
    seed: int = 1


class Disagreement(NamedTuple):
    """One call of which the two say different things."""

    number: int
    at: float
    true: Miss | None
    told: Miss | None


@dataclass(slots=True)
class Verdict:
    """What came of one trace under one provider's rules."""

    trace: str
    against: str
    options: Options
    requests: int = 0
    causes: Counter[tuple[MissCause | None, MissCause | None]] = field(default_factory=Counter)
    """By what is true and what was told; None for no miss."""
    places: Counter[bool] = field(default_factory=Counter)
    """Of changed prefixes that both tell: is it the same place?"""
    too_small: int = 0
    """Requests told to have missed nothing that lacked no more than one step of a provider which
    rounds what it reads down to steps: nobody can tell that from what it says. Counted as no miss."""
    disagreements: list[Disagreement] = field(default_factory=list)
    """The first ones."""

    @property
    def misses(self) -> int:
        """Requests that missed something."""
        return sum(count for (true, _), count in self.causes.items() if true is not None)

    @property
    def right(self) -> int:
        """Misses whose cause was told."""
        return sum(
            n for (true, told), n in self.causes.items() if true is not None and true is told
        )

    @property
    def invented(self) -> int:
        """Requests that missed nothing, and of which a miss was told."""
        return sum(
            n for (true, told), n in self.causes.items() if true is None and told is not None
        )

    def add(
        self, number: int, at: float, true: Miss | None, told: Miss | None, step: int = 0
    ) -> None:
        """One more request: the trace's call of that number. `step`: tokens that the provider rounds
        down to, if it does.
        """
        if told is None and true is not None and 0 < true.lost_tokens <= step:
            self.too_small += 1
            true = None
        causes = true and true.cause, told and told.cause
        self.requests += 1
        self.causes[causes] += 1
        right = causes[0] is causes[1]
        if right and true is not None and told is not None and true.path:
            right = (true.block, true.path) == (told.block, told.path)
            self.places[right] += 1
        if not right and len(self.disagreements) < _MOST_SHOWN:
            self.disagreements.append(Disagreement(number, at, true, told))


class _Provider:
    """The simulated one, with all that it knows."""

    def __init__(self, against: Against, options: Options) -> None:
        self._keyed = against.rules.form is MarkerForm.BREAKPOINT
        self._most_a_minute = against.rules.hint_rpm if options.overflows else 0
        self._machines = Machines()
        losses = Losses(share=options.losses, seed=options.seed)
        self._sim = CacheSim(against.rules, Causes(), losses)

    def ask(
        self, call: Call, planned: Shown, sent: Shown, marking: Marking
    ) -> tuple[Usage | None, Miss | None]:
        """What one call reads and writes, and what it missed; neither if it was refused."""
        blocks = sent.prompt.blocks
        whose = call.scope, marking.key
        machine: Hashable = self._machines.asked(
            call.at, whose, blocks, sent.chain, self._most_a_minute
        )
        apart = marking.key if self._keyed else ""
        pieces = sim_pieces.of_prompt(planned.prompt, apart)
        case = Case(call.scope, (call.scope, apart), machine, pieces, planned.prompt.blocks)
        try:
            usage = self._sim.request(
                call.at,
                (*whose, machine),
                sent.chain,
                sent.tokens,
                blocks=blocks,
                marks=marking.marks,
                automatic_ttl=marking.automatic_ttl,
                mode=marking.mode,
                first_byte_at=call.at + call.begins_s,
                case=case,
            )
        except MarksRefused:
            return None, None
        return usage, case.miss


class _Gateway:
    """The serving code: plans, and tells of each call what it missed."""

    def __init__(self, against: Against, options: Options, *, exact: bool) -> None:
        self._rules = against.rules
        self._exact = exact
        self._planner = CachePlanner()
        self._foresight = Foresight()
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = 0
        self._provider = _Provider(against, options)

    def ask(
        self, call: Call, shown: Shown, say: Callable[[Miss | None, Miss | None], None]
    ) -> None:
        """One call; `say` is told what is true and what was told of it, when it is over."""
        self.pass_time(call.at)
        self._number += 1
        domain = _DOMAIN + call.scope.encode()
        ticket = self._planner.plan(domain, shown.prompt, self._rules, Markers.AUTO, call.at)
        sent, marking = forwarded(call, shown, ticket, exact=self._exact)
        foreseen = self._foresight.foresee(
            Sent(
                domain,
                shown.prompt,
                self._rules,
                ticket.plan,
                marking.key,
                ticket.chain or chain(shown.prompt),
            ),
            str(self._number),
            call.at,
        )
        assert foreseen is not None
        usage, true = self._provider.ask(call, shown, sent, marking)

        def begun(now: float) -> None:
            self._planner.begun(ticket, now)
            self._foresight.begun(foreseen, now)

        def over(now: float) -> None:
            self._planner.learn(ticket, usage, now)
            told = self._foresight.judge(foreseen, usage, "", now, states_read=True)
            if usage is not None:
                say(true, told.miss)

        if usage is not None:
            self._at(call.at + call.begins_s, begun)
        self._at(call.at + call.ends_s, over)

    def _at(self, when: float, what: Callable[[float], None]) -> None:
        heapq.heappush(self._due, (when, self._number, what))
        self._number += 1

    def pass_time(self, now: float) -> None:
        """What has happened until then is known."""
        while self._due and self._due[0][0] <= now:
            when, _, what = heapq.heappop(self._due)
            what(when)


def replay(trace: Trace, against: Against, options: Options | None = None) -> Verdict:
    """Run all calls of a trace past both. Raises as `cache_replay.replay` does."""
    options = options or Options()
    gateway = _Gateway(against, options, exact=trace.exact_tokens)
    verdict = Verdict(trace.name, str(against), options)
    step = GRAIN if against.rules.form is MarkerForm.NONE else 0
    for number, call in enumerate(trace.calls):
        prompt = prompt_of(call, against)
        if not prompt.blocks:
            continue
        shown = shown_as(prompt, exact=trace.exact_tokens)
        gateway.ask(call, shown, partial(verdict.add, number, call.at, step=step))
    gateway.pass_time(float("inf"))
    return verdict

"""A trace through the serving code and a simulated provider: what each policy would have cost.

For every call the gateway's own path is taken: blocks of the body, a plan, markers written into the
body's bytes; the simulated provider then reads them from those bytes. Fixed policies say their
markers directly. All policies see the same calls, each with a cache of its own.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import orjson

from gateway.core.model import Usage
from gateway.core.money import bill
from gateway.core.plan import Markers
from gateway.core.planner import CachePlanner
from gateway.core.prefix import CachePrompt, Kind, chain
from gateway.lab.cache_policies import POLICIES, Marking
from gateway.lab.cache_sim import CacheSim, MarksRefused, eligible_endings, rendered_chain
from gateway.lab.optimum import Optimum
from gateway.lab.optimum_block import Seen
from gateway.providers.prices import PER_USD
from gateway.providers.prompt_cache import MarkerForm
from gateway.wire.marking import marked
from gateway.wire.prompt_blocks import cache_prompt
from gateway.wire.table import APIS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gateway.core.prefix import PrefixBlock
    from gateway.core.ticket import Ticket
    from gateway.lab.trace import Call, Trace
    from gateway.providers.prices import Price
    from gateway.providers.prompt_cache import CacheRules

GATEWAY = "gateway"
POLICY_NAMES = (*POLICIES, GATEWAY)

_BYTES_PER_TOKEN = {Kind.TEXT: 3.6, Kind.THINKING: 3.6, Kind.MEDIA: 4.0}
_BYTES_PER_TOKEN_OF_JSON = 3.0
"""What the simulated provider counts. Not what the gateway supposes, which has to learn it."""
_EXACT = 4
_DOMAIN = b"replay"
_SPOKEN = {
    "anthropic": frozenset({"anthropic_messages"}),
    "openai": frozenset({"openai_chat", "openai_responses"}),
}


class UnspokenRoute(ValueError):
    """A body went to a route that this provider doesn't have, or that takes no prompt."""


@dataclass(frozen=True, slots=True)
class Against:
    """The provider that a trace is replayed against."""

    provider: str
    model: str
    api: str
    rules: CacheRules
    price: Price

    def __str__(self) -> str:
        return f"{self.provider}:{self.model}"


@dataclass(frozen=True, slots=True)
class Options:
    """Of the gateway policy only."""

    seed: int = 0
    restart_every_s: float = 0.0
    """The planner forgets all so often; 0 for never."""
    replicas: int = 1
    """Planners that know nothing of each other; each call goes to one of them at random."""


@dataclass(slots=True)
class Spent:
    """What one policy used, in tokens, and cost, in picodollars."""

    cost: int = 0
    read: int = 0
    write_5m: int = 0
    write_1h: int = 0
    uncached: int = 0
    rejected: int = 0

    def add(self, usage: Usage, price: Price) -> None:
        """One request's."""
        self.cost += bill(usage, price).input
        self.read += usage.cache_read
        self.write_5m += usage.cache_write_5m
        self.write_1h += usage.cache_write_1h
        self.uncached += usage.uncached_input

    @property
    def usd(self) -> float:
        """The cost in dollars."""
        return self.cost / PER_USD


@dataclass(slots=True)
class Outcome:
    """What came of one trace."""

    trace: str
    against: str
    requests: int = 0
    input_tokens: int = 0
    without_cache: int = 0
    """Picodollars, had nothing been read or written."""
    optimum: float = 0.0
    """Picodollars."""
    optimum_is: str = "bound"
    policies: dict[str, Spent] = field(default_factory=dict)
    notes: Sequence[str] = ()
    timeline: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    """By policy: seconds, and picodollars spent until then."""


def tokens_of(blocks: Iterable[PrefixBlock], *, exact: bool) -> list[int]:
    """Cumulative tokens at the end of each block, as the simulated provider counts them."""
    if exact:
        return list(accumulate(block.size // _EXACT for block in blocks))
    sizes = accumulate(
        block.size / _BYTES_PER_TOKEN.get(block.kind, _BYTES_PER_TOKEN_OF_JSON) for block in blocks
    )
    return [int(size) for size in sizes]


class Shown(NamedTuple):
    """A prompt as the simulated provider sees it."""

    prompt: CachePrompt
    chain: list[int]
    tokens: list[int]


class _Provider:
    """One policy's cache and bill."""

    def __init__(self, against: Against) -> None:
        self._sim = CacheSim(against.rules)
        self._price = against.price
        self._keyed = against.rules.form is MarkerForm.BREAKPOINT
        self.spent = Spent()
        self.timeline: list[tuple[float, int]] = []

    def ask(self, call: Call, shown: Shown, marking: Marking) -> Usage | None:
        """Bill one call; None if it was refused."""
        try:
            usage = self._sim.request(
                call.at,
                (call.scope, marking.key) if self._keyed else call.scope,
                shown.chain,
                shown.tokens,
                blocks=shown.prompt.blocks,
                marks=marking.marks,
                automatic_ttl=marking.automatic_ttl,
                mode=marking.mode,
                first_byte_at=call.at + call.begins_s,
            )
        except MarksRefused:
            # It would be sent again without markers; the client has seen an error all the same.
            self.spent.rejected += 1
            self.spent.add(Usage(uncached_input=shown.tokens[-1]), self._price)
            return None
        self.spent.add(usage, self._price)
        self.timeline.append((call.at, self.spent.cost))
        return usage


class _Gateway:
    """The serving code's decisions, by as many planners as there are replicas."""

    def __init__(self, against: Against, options: Options, *, exact: bool) -> None:
        self._against = against
        self._options = options
        self._exact = exact
        self._dice = random.Random(f"{options.seed}: replicas")  # noqa: S311 - to be repeated
        self._planners = [CachePlanner() for _ in range(options.replicas)]
        self._restart_at = options.restart_every_s
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = 0
        self.provider = _Provider(against)

    def ask(self, call: Call, shown: Shown) -> None:
        self._pass_time(call.at)
        planner = self._planners[0]
        if len(self._planners) > 1:
            planner = self._dice.choice(self._planners)
        rules = self._against.rules
        domain = _DOMAIN + call.scope.encode()
        ticket = planner.plan(domain, shown.prompt, rules, Markers.AUTO, call.at)
        shown, marking = forwarded(call, shown, ticket, exact=self._exact)
        usage = self.provider.ask(call, shown, marking)
        self._learn_later(planner, ticket, call, usage)

    def _learn_later(
        self, planner: CachePlanner, ticket: Ticket, call: Call, usage: Usage | None
    ) -> None:
        if usage is not None:
            self._at(call.at + call.begins_s, lambda now: planner.begun(ticket, now))
        self._at(call.at + call.ends_s, lambda now: planner.learn(ticket, usage, now))

    def _at(self, when: float, what: Callable[[float], None]) -> None:
        self._number += 1
        heapq.heappush(self._due, (when, self._number, what))

    def _pass_time(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            when, _, what = heapq.heappop(self._due)
            what(when)
        every = self._options.restart_every_s
        if every and now >= self._restart_at:
            self._restart_at = (now // every + 1) * every
            # What is under way tells the old ones, which nobody asks again.
            self._planners = [CachePlanner() for _ in self._planners]


def forwarded(call: Call, shown: Shown, ticket: Ticket, *, exact: bool) -> tuple[Shown, Marking]:
    """What the provider sees of a planned call: where it has a body, in the bytes that are sent."""
    plan, rules = ticket.plan, ticket.rules
    if call.body is None:
        marks = tuple((mark.block, mark.ttl_s) for mark in plan.marks)
        return shown, Marking(marks, mode=plan.mode, key=plan.cache_key)
    prompt = shown.prompt
    if plan.changes:
        assert rules is not None
        body = marked(orjson.dumps(call.body), prompt, plan, rules)
        prompt = cache_prompt(prompt.api, orjson.loads(body), rules)
        shown = shown_as(prompt, exact=exact)
    marks = tuple(
        (index, block.client_ttl_s)
        for index, block in enumerate(prompt.blocks)
        if block.client_ttl_s
    )
    return shown, Marking(marks, prompt.automatic_ttl_s, prompt.client_mode, prompt.client_key)


def shown_as(prompt: CachePrompt, *, exact: bool) -> Shown:
    """The prompt as the simulated provider counts it."""
    return Shown(prompt, rendered_chain(prompt), tokens_of(prompt.blocks, exact=exact))


def replay(
    trace: Trace, against: Against, policies: Sequence[str], options: Options | None = None
) -> Outcome:
    """Run all calls of a trace past each policy. Raises NotUnderstood for a body that is none,
    UnspokenRoute for one of another provider's, KeyError for a policy not among POLICY_NAMES.
    """
    fixed = {name: (POLICIES[name], _Provider(against)) for name in policies if name != GATEWAY}
    gateway = None
    if GATEWAY in policies:
        gateway = _Gateway(against, options or Options(), exact=trace.exact_tokens)
    optimum = Optimum(against.rules)
    outcome = Outcome(trace.name, str(against), notes=trace.notes)
    rules, price = against.rules, against.price
    empty = 0
    for call in trace.calls:
        prompt = prompt_of(call, against)
        if not prompt.blocks:
            empty += 1
            continue
        shown = shown_as(prompt, exact=trace.exact_tokens)
        total = shown.tokens[-1]
        outcome.requests += 1
        outcome.input_tokens += total
        outcome.without_cache += bill(Usage(uncached_input=total), price).input
        seen = Seen(call.at, call.at + call.begins_s, price.at(total).input)
        # Pieces may be split off, so that the bound counts them as shared.
        optimum.add(seen, call.scope, chain(prompt), shown.tokens, _ends(prompt, rules))
        for choose, provider in fixed.values():
            provider.ask(call, shown, choose(prompt, rules))
        if gateway is not None:
            gateway.ask(call, shown)
    if empty:
        outcome.notes = (*trace.notes, f"{empty:,} bodies without a prompt are left out")
    outcome.optimum, is_exact = optimum.cost()
    outcome.optimum_is = "exact" if is_exact else "bound"
    for name in policies:
        provider = gateway.provider if name == GATEWAY and gateway else fixed[name][1]
        outcome.policies[name] = provider.spent
        outcome.timeline[name] = provider.timeline
    return outcome


def _ends(prompt: CachePrompt, rules: CacheRules) -> list[bool]:
    """After which blocks an entry can end, split or not, asked for or not."""
    if rules.form is MarkerForm.NONE:
        return [True] * len(prompt.blocks)
    found = [block.can_mark for block in prompt.blocks]
    if rules.implicit:
        for index in eligible_endings(prompt.blocks):
            found[index] = True
    return found


def prompt_of(call: Call, against: Against) -> CachePrompt:
    """A call's prompt as the gateway reads it. Raises UnspokenRoute."""
    if call.body is None:
        return CachePrompt(against.api, against.model, call.blocks, call.seed, 0)
    path = call.route.partition("?")[0]
    api = next((api.name for route, api in APIS.items() if path.endswith(route)), "")
    if api not in _SPOKEN[against.provider]:
        raise UnspokenRoute(f"route {call.route}: no prompt goes there at {against.provider}")
    return cache_prompt(api, call.body, against.rules)

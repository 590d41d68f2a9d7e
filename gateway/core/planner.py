"""Plans each request's markers from all that came before it: `CachePlanner`.

The same object serves traffic and is replayed on recorded traces: it takes the time as an argument
and keeps nothing but fingerprints, counts and times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.cache_domain import CacheDomain
from gateway.core.deciding import Deciding
from gateway.core.experience import Experience
from gateway.core.plan import Markers, Plan, PlanReason
from gateway.core.ticket import Ticket
from gateway.core.top_prefixes import TopPrefix, ranked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.core.model import Usage
    from gateway.core.prefix import CachePrompt
    from gateway.core.prefix_tree import Node
    from gateway.providers.prompt_cache import CacheRules

BUDGET_BYTES = 64 * 1024 * 1024
_MOST_COPIED = 1024 * 1024
"""Bytes of a tree; copying so much takes a hundredth of a second."""


class CachePlanner:
    """Plans, and learns from what became of it. Bounded by `budget_bytes` in all."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._budget = budget_bytes
        self._domains: dict[tuple[bytes, str, str], CacheDomain] = {}
        self._bytes = 0
        self._experience = Experience()

    @property
    def size_bytes(self) -> int:
        """About what all trees take."""
        return self._bytes

    def plan(
        self,
        domain: bytes,
        prompt: CachePrompt,
        rules: CacheRules | None,
        markers: Markers,
        now: float,
    ) -> Ticket:
        """Decide one request's markers. `domain` names the cache: provider and credential; `now`
        counts seconds from any origin, and never goes back.
        """
        if rules is None:
            return Ticket(Plan(PlanReason.UNKNOWN_MODEL), prompt, None)
        if not rules.takes_markers or not prompt.blocks:
            return Ticket(Plan(PlanReason.NO_MARKERS), prompt, rules)
        known = self._domain((domain, prompt.api, prompt.model))
        known.pass_time(now)
        ticket = Deciding(known, prompt, rules, markers, now).ticket()
        self._count(known)
        # The least recently used go first; this one is the last.
        while len(self._domains) > 1 and self._bytes > self._budget:
            gone = self._domains.pop(next(iter(self._domains)))
            self._bytes -= gone.counted_bytes
        return ticket

    def rehearsal(  # noqa: PLR0917 - what `plan` takes, and how to copy
        self,
        domain: bytes,
        prompt: CachePrompt,
        rules: CacheRules | None,
        markers: Markers,
        now: float,
        copied: Callable[[Any], Callable[[], Any]],
    ) -> Callable[[], Ticket] | None:
        """Does what `plan` would, but on a copy of what is known now, so that nothing is learned from
        it, in any thread; None where too much is known to be copied in a moment. `copied` copies at
        once, and gives the copy when it is called for.
        """
        name = domain, prompt.api, prompt.model
        known = self._domains.get(name)
        if known is not None and known.tree.size_bytes > _MOST_COPIED:
            return None
        memory, budget = copied((self._experience, known)), self._budget

        def rehearse() -> Ticket:
            apart = CachePlanner(budget)
            apart._experience, there = memory()
            if there is not None:
                apart._domains[name] = there
            return apart.plan(domain, prompt, rules, markers, now)

        return rehearse

    def prefixes(self, now: float, most: int) -> Iterator[list[TopPrefix]]:
        """What several requests began with, in portions as `PrefixTree.shared`, of each the `most`
        heaviest.
        """
        for (whose, _, model), known in list(self._domains.items()):
            where = whose.hex()[:8]
            for portion in known.tree.shared():
                of = known.requests
                yield ranked(
                    (
                        _top(fingerprint, node, where, model, of=max(of, node.seen), now=now)
                        for fingerprint, node in portion
                    ),
                    most,
                )

    def _domain(self, name: tuple[bytes, str, str]) -> CacheDomain:
        found = self._domains.pop(name, None)
        if found is None:
            found = CacheDomain(self._budget // 2, self._experience)
        self._domains[name] = found
        return found

    def _count(self, known: CacheDomain) -> None:
        size = known.size_bytes
        self._bytes += size - known.counted_bytes
        known.counted_bytes = size

    def begun(self, ticket: Ticket, now: float) -> None:
        """The answer's first byte came: what was written can be read from now on."""
        if ticket.domain is not None:
            ticket.begun(now)

    def learn(self, ticket: Ticket, usage: Usage | None, now: float) -> None:
        """What the answer said; None where it failed or said nothing."""
        ticket.learn(usage, now)


def _top(fingerprint: int, node: Node, where: str, model: str, *, of: int, now: float) -> TopPrefix:
    assert node.detail is not None
    held = max(node.detail.held, key=lambda each: each.used_at + each.ttl_s, default=None)
    left_s = None if held is None else max(0.0, held.used_at + held.ttl_s - now)
    return TopPrefix(
        fingerprint,
        where,
        model,
        node.seen,
        of,
        node.detail.tokens,
        left_s,
        0 if held is None else held.ttl_s,
    )

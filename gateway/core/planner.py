"""Plans each request's markers from all that came before it: `CachePlanner`.

The same object serves traffic and is replayed on recorded traces: it takes the time as an argument
and keeps nothing but fingerprints, counts and times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.cache_domain import CacheDomain
from gateway.core.deciding import Deciding
from gateway.core.plan import Markers, Plan, PlanReason
from gateway.core.ticket import Ticket

if TYPE_CHECKING:
    from gateway.core.model import Usage
    from gateway.core.prefix import CachePrompt
    from gateway.providers.prompt_cache import CacheRules

BUDGET_BYTES = 64 * 1024 * 1024
_MOST_DOMAINS = 4096


class CachePlanner:
    """Plans, and learns from what became of it. Bounded by `budget_bytes` in all."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._budget = budget_bytes
        self._domains: dict[tuple[bytes, str, str], CacheDomain] = {}

    @property
    def size_bytes(self) -> int:
        """About what all trees take."""
        return sum(domain.tree.size_bytes for domain in self._domains.values())

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
        return Deciding(known, prompt, rules, markers, now).ticket()

    def _domain(self, name: tuple[bytes, str, str]) -> CacheDomain:
        found = self._domains.pop(name, None)
        if found is None:
            found = CacheDomain(self._budget // 2)
        self._domains[name] = found
        # The least recently used go first; a new one takes next to nothing.
        while len(self._domains) > 1 and (
            len(self._domains) > _MOST_DOMAINS
            or (found.tree.size_bytes and self.size_bytes > self._budget)
        ):
            self._domains.pop(next(iter(self._domains)))
        return found

    def begun(self, ticket: Ticket, now: float) -> None:
        """The answer's first byte came: what was written can be read from now on."""
        if ticket.domain is not None:
            ticket.begun(now)

    def learn(self, ticket: Ticket, usage: Usage | None, now: float) -> None:
        """What the answer said; None where it failed or said nothing."""
        ticket.learn(usage, now)

"""One request as it goes out, after it was planned: what was changed, and what its answer cost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gateway.core.causes import Cause, Share, facts, shares
from gateway.core.prefix import CLIENT_TTL_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.foreseen import Foreseen
    from gateway.core.model import Usage
    from gateway.core.plan import Plan, PlanReason
    from gateway.core.ticket import Ticket
    from gateway.providers.prompt_cache import CacheRules
    from gateway.turn import Turn
    from gateway.wire.system_text import Lead

_LONG_BYTES = 1024 * 1024
_SHORT_BYTES = 128 * 1024
"""Takes less, whatever it holds."""
_MANY_OBJECTS = 8192
"""Messages, parts, tools, and what is in them."""


@dataclass(slots=True)
class Planned:
    """One request as it goes out."""

    body: bytes
    """The client's own object where nothing is changed."""
    reason: PlanReason
    provider: str
    model: str
    rules: CacheRules | None = None
    ticket: Ticket | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """To be sent beside the client's."""
    hint: str = ""
    """The member or header that was added to keep the prefix on one machine."""
    rewrites: tuple[str, ...] = ()
    names: tuple[bytes, ...] = ()
    """What a provider that refuses our changes would name."""
    key: tuple[bytes, str, str] = (b"", "", "")
    """Whose cache it is: domain, API, model."""
    lead: Lead | None = None
    """What leads the client's request, where it was read; until the answer was learned from."""
    turn: Turn | None = None
    """Whose request it is, once its answer began."""
    hint_value: str = ""
    """Of the hint."""
    foreseen: Foreseen | None = None
    """Of the provider's cache, where it was looked at before it was sent."""

    @property
    def changes(self) -> bool:
        """Does the body differ from the client's?"""
        return bool(self.names)

    @property
    def plan(self) -> Plan | None:
        """What the planner decided, if it was asked."""
        return None if self.ticket is None else self.ticket.plan

    @property
    def client_marks(self) -> int:
        """How many markers of the client's own stand in what goes out."""
        ticket = self.ticket
        if ticket is None or (self.names and ticket.plan.strips):
            return 0
        return sum(map(bool, map(CLIENT_TTL_S, ticket.prompt.blocks))) + bool(
            ticket.prompt.automatic_ttl_s
        )

    def told(self) -> str:
        """In the words of the response header."""
        plan, rules = self.plan, self.rules
        if plan is None or not plan.marks or rules is None or not self.names:
            parts = ["none", f"reason={self.reason.value}"]
        else:
            spelled = dict.fromkeys(rules.lifetime(mark.ttl_s).wire for mark in plan.marks)
            parts = ["placed", f"n={len(plan.marks)}", f"ttl={','.join(spelled)}"]
        if plan is not None and self.names:
            parts += [f"mode={plan.mode}"] if plan.mode else []
            parts += ["stripped"] if plan.strips else []
        parts += [f"hint={self.hint}"] if self.hint else []
        return "; ".join(parts)


def shares_of(planned: Planned, usage: Usage) -> dict[Cause, Share]:
    """Who caused what was read and written."""
    ticket, rules = planned.ticket, planned.rules
    if ticket is not None and ticket.tokens:
        plan = ticket.plan
        if not planned.names:
            # What was planned was not sent.
            plan = replace(plan, marks=(), strips=False, mode="")
        return shares(usage, facts(ticket.prompt, plan, ticket.tokens, rules))
    # Nothing of ours: markers can only be the client's, where the provider waits for any.
    by_marks = rules is not None and rules.takes_markers and not rules.implicit
    all_of_it = Share(usage.cache_read, usage.cache_write_5m, usage.cache_write_1h)
    found = dict.fromkeys(Cause, Share())
    found[Cause.CLIENT if by_marks else Cause.AUTOMATIC] = all_of_it
    return found


def is_short(body: bytes) -> bool:
    """Whether it is read in less time than others should have to wait for. A longer one is
    read in a thread.
    """
    if len(body) <= _SHORT_BYTES:
        return True
    return len(body) <= _LONG_BYTES and body.count(b"{") <= _MANY_OBJECTS

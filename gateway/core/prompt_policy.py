"""What may be done to a request for its provider's prompt cache: the config's word, then the
client's, which narrows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.model import Reason
from gateway.core.plan import Markers, PlanReason

if TYPE_CHECKING:
    from gateway.core.directives import Directives
    from gateway.core.model import Ask
    from gateway.core.rewrites import Rewrite

# How much each does to a request. Stripping its own markers is the client's to ask for: it could
# have left them out.
_REACH = {Markers.OFF: 0, Markers.RESPECT: 1, Markers.AUTO: 2, Markers.STRIP: 2}


@dataclass(frozen=True, slots=True)
class PromptPolicy:
    """What the config says about one route."""

    markers: Markers = Markers.AUTO
    rewrites: frozenset[Rewrite] = frozenset()


def markers_for(policy: PromptPolicy, asked: str | None) -> Markers:
    """The mode for a request whose `x-gateway-markers` says `asked`: less than the policy or as
    much, never more; what is not a mode is ignored.
    """
    try:
        wanted = Markers((asked or "").strip().lower())
    except ValueError:
        return policy.markers
    return wanted if _REACH[wanted] <= _REACH[policy.markers] else policy.markers


def untouchable(
    markers: Markers, directives: Directives, pass_reason: Reason | None, ask: Ask | None
) -> PlanReason | None:
    """Why a request has to go as it came, whatever its prompt; None where it may be changed."""
    if markers is Markers.OFF:
        return PlanReason.OFF
    if directives.no_transform:
        return PlanReason.NO_TRANSFORM
    if pass_reason is Reason.SIGNED:
        return PlanReason.SIGNED
    if ask is None:
        # Encoded, not JSON, or JSON of which nobody knows how the provider reads it.
        return PlanReason.NOT_UNDERSTOOD
    return None

"""What the config of a pool comes to for those who decide."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gateway.core.route import RoutePolicy, RouteSettings

if TYPE_CHECKING:
    from gateway.config.pools import Routing

# Where no policy makes anybody wait on purpose.
_ODD_S = 2.0


def settings_of(routing: Routing) -> RouteSettings:
    """What decides who gets a request."""
    return RouteSettings(
        policy=RoutePolicy(routing.policy),
        break_s=routing.break_s,
        keep_factor=routing.keep_factor,
        new_break_s=routing.new_break_s,
        cache_tokens=routing.cache_tokens,
        prefill_tokens_per_s=routing.prefill_tokens_per_s,
        mirror_bytes=routing.mirror_bytes,
    )


def patience_s(settings: RouteSettings) -> float:
    """By how many seconds a replica may keep requests waiting on purpose."""
    match settings.policy:
        case RoutePolicy.SESSION:
            # Whoever waits there waits for its conversation, however long.
            return math.inf
        case RoutePolicy.PREFIX:
            return max(_ODD_S, 2 * settings.break_s, 2 * settings.new_break_s)
        case _:
            return _ODD_S

"""Where conversations live: `Homes`, by the name that they carry, or by where their prompts ended.

A prompt that goes on from an earlier one begins with all of it, so the end of the earlier one (its
*tip*) is among its steps. Bounded: who has not been heard of for longest is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from gateway.core.trail import Trail

R = TypeVar("R")

MOST_TIPS = 1 << 16
MOST_SESSIONS = 1 << 15

RETURN_S = 120.0
"""Who had to leave a replica that couldn't be asked may return to it for so long."""


class Home(NamedTuple, Generic[R]):
    """Where a conversation lives."""

    replica: R
    former: R | None = None
    """Where it lived until that couldn't be asked."""
    left_at: float = 0.0


def tip_of(trail: Trail) -> int:
    """How many steps of the prompt what goes on from it is sure to share; 0: none."""
    steps = len(trail.prints)
    return steps - 1 if trail.is_open and steps > 1 else steps


class Homes(Generic[R]):
    """Of one pool's conversations."""

    __slots__ = ("_sessions", "_tips", "most_sessions", "most_tips")

    def __init__(self, most_tips: int = MOST_TIPS, most_sessions: int = MOST_SESSIONS) -> None:
        self.most_tips = most_tips
        self.most_sessions = most_sessions
        self._tips: OrderedDict[int, Home[R]] = OrderedDict()
        self._sessions: OrderedDict[int, Home[R]] = OrderedDict()

    def __len__(self) -> int:
        """Tips and sessions that are known."""
        return len(self._tips) + len(self._sessions)

    def named(self, session: int) -> Home[R] | None:
        """Of the conversation of this name."""
        return self._sessions.get(session) if session else None

    def extended(self, trail: Trail, head: int) -> Home[R] | None:
        """Of the conversation that this prompt goes on from: of the deepest tip in it, behind the
        first `head` steps, which say nothing about whose it is.
        """
        tips = self._tips
        prints = trail.prints
        for index in range(len(prints) - 1, head - 1, -1):
            found = tips.get(prints[index])
            if found is not None:
                return found
        return None

    def settle(self, trail: Trail, session: int, head: int, home: Home[R]) -> None:
        """The conversation lives there from now on."""
        if session:
            self._sessions[session] = home
            self._sessions.move_to_end(session)
            while len(self._sessions) > self.most_sessions:
                self._sessions.popitem(last=False)
        depth = tip_of(trail)
        if depth > head:
            tip = trail.prints[depth - 1]
            self._tips[tip] = home
            self._tips.move_to_end(tip)
            while len(self._tips) > self.most_tips:
                self._tips.popitem(last=False)

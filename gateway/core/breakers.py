"""What breaks prompts' beginnings, and what that costs a day: `Breakers`.

Rule 1: one line for each provider, model, place and kind of change; bounded: of many, those go that
have cost least lately.
Rule 2: per day means: of what was lost, a day later a half counts, so that what was mended fades;
nothing is extrapolated from the first hours.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.findings import MENDS, Shape, What
from gateway.core.volatile import Kind

if TYPE_CHECKING:
    from gateway.core.miss import Miss

_DAY_S = 86_400.0
_RATE = math.log(2) / _DAY_S
_MOST = 512
_ANY = re.compile(r"(?<=[a-z]\[)\d+(?=\])")
"""Any turn, any tool is as good as another."""
_SHAPES: dict[str, What] = {
    "tool_order": Shape.TOOL_ORDER,
    "tools": Shape.TOOLS_CHANGED,
    "system": Shape.SYSTEM_CHANGED,
    "history": Shape.HISTORY_REWRITTEN,
    "message": Shape.CHANGING_TEXT,
}
_SETTINGS = {
    "model": "each model has a cache of its own: keep a conversation on one",
    "cache_key": "send one `prompt_cache_key` with all requests that begin alike",
    "tool_choice": "leave `tool_choice` as it is within a conversation",
    "settings": "leave thinking, schemas and the like as they are within a conversation",
}


_MENDS = {
    **_SETTINGS,
    **{kind: MENDS[shape] for kind, shape in _SHAPES.items()},
    **{kind.value: MENDS[kind] for kind in Kind},
}


class Breaker(NamedTuple):
    """What keeps prompts from beginning alike, in one place."""

    provider: str
    model: str
    path: str
    """With `*` in the place of indexes: `$.messages[*].content`."""
    kind: str
    """As in `Miss`."""
    requests: int
    """That it has broken, since it is known."""
    tokens_per_day: float
    usd_per_day: float | None
    """What those tokens cost more than they would have, read; None where no price is known."""
    mend: str
    """What to do about it, in a sentence."""
    last_at: float
    """When it was last seen, by the clock that is given."""
    request_id: str
    """Of a request that shows it, the latest."""
    neighbour: str
    """And of the one it was compared with."""


class _Line:
    __slots__ = ("at", "neighbour", "request_id", "requests", "tokens", "usd")

    def __init__(self, now: float) -> None:
        self.at = now
        self.requests = 0
        self.tokens = 0.0
        self.usd: float | None = 0.0
        self.request_id = self.neighbour = ""

    def faded(self, now: float) -> float:
        """What is left of what was lost until it was last seen, of 1."""
        return math.exp(-_RATE * max(0.0, now - self.at))


class Breakers:
    """Counts. Times are seconds of any one clock."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str, str, str], _Line] = {}

    def __repr__(self) -> str:
        return f"<Breakers {len(self._lines)}>"

    def count(  # noqa: PLR0917 - all that is told of one miss
        self,
        provider: str,
        model: str,
        miss: Miss,
        usd: float | None,
        request_id: str,
        now: float,
    ) -> None:
        """One more request that missed because of a change; `usd`: what it cost, where there is a
        price. One without a place is not counted.
        """
        if not miss.path:
            return
        key = provider, model, _ANY.sub("*", miss.path), miss.kind
        line = self._lines.get(key)
        if line is None:
            if len(self._lines) >= _MOST:
                self._make_room(now)
            line = self._lines[key] = _Line(now)
        fade = line.faded(now)
        line.at, line.requests = now, line.requests + 1
        line.tokens = line.tokens * fade + miss.lost_tokens
        line.usd = None if usd is None or line.usd is None else line.usd * fade + usd
        line.request_id, line.neighbour = request_id, miss.neighbour

    def _make_room(self, now: float) -> None:
        cost = {key: line.tokens * line.faded(now) for key, line in self._lines.items()}
        for key in sorted(cost, key=cost.__getitem__)[: _MOST // 8]:
            del self._lines[key]

    def ranked(self, now: float, most: int = 50) -> list[Breaker]:
        """The costliest first."""
        found = []
        for (provider, model, path, kind), line in self._lines.items():
            # (What comes steadily and halves each day adds up to a day's amount over ln 2.)
            share = line.faded(now) * math.log(2)
            usd = None if line.usd is None else line.usd * share
            found.append(
                Breaker(
                    *(provider, model, path, kind, line.requests, line.tokens * share, usd),
                    *(mend(kind), line.at, line.request_id, line.neighbour),
                )
            )
        found.sort(key=lambda each: -each.tokens_per_day)
        return found[:most]


def mend(kind: str) -> str:
    """What to do about a kind of change, as `Miss.kind` names it; empty where nothing is known."""
    return _MENDS.get(kind, "")

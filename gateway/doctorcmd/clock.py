"""This machine's clock, against what servers said of the time while they were asked for other things."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from statistics import median
from typing import TYPE_CHECKING

from gateway.doctorcmd.finding import fine, look, mend, skipped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.doctorcmd.finding import Finding

# A `Date` has whole seconds, and may come from a cache in between.
_WORTH_A_WORD_S = 5.0
_BROKEN_S = 60.0


class Clocks:
    """How far others' clocks are ahead of ours, in seconds, by who said so."""

    def __init__(self) -> None:
        self.ahead_s: dict[str, float] = {}

    def said(self, who: str, their_s: float, our_s: float) -> None:
        """Both Unix times, of the same moment."""
        self.ahead_s[who] = their_s - our_s

    def dated(self, who: str, headers: Mapping[str, str], our_s: float) -> None:
        """By an answer's `Date`, if it has a good one that was not kept in a cache."""
        if "Age" in headers:
            return
        try:
            then = parsedate_to_datetime(headers.get("Date", "")).timestamp()
        except (ValueError, TypeError, OverflowError):
            return
        # It says the second that had begun.
        self.said(who, then + 0.5, our_s)


def clock(clocks: Clocks) -> Finding:
    """What they say together. One that is alone with its opinion is the wrong one itself."""
    told = clocks.ahead_s
    if not told:
        return skipped("clock", "nobody was asked who tells the time")
    off = median(told.values())
    facts = {"ahead_s": {who: round(each, 2) for who, each in sorted(told.items())}}
    direction = "behind" if off > 0 else "ahead"
    if abs(off) > _WORTH_A_WORD_S:
        which = mend if abs(off) > _BROKEN_S else look
        return which(
            "clock",
            f"this machine's clock is {abs(off):.0f} s {direction} of {_names(told)}",
            "set it by NTP: ages of answers, the ledger's days and certificates depend on it",
            **facts,
        )
    odd = [who for who, each in sorted(told.items()) if abs(each - off) > _WORTH_A_WORD_S]
    if odd:
        return look(
            "clock",
            f"the clocks of {', '.join(odd)} differ from this machine's and the others'",
            "set them by NTP",
            **facts,
        )
    return fine("clock", f"within {_WORTH_A_WORD_S:g} s of {_names(told)}", **facts)


def _names(told: Mapping[str, float]) -> str:
    names = sorted(told)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more

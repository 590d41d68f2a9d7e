"""`Cache-Control` in, `Cache-Status` and `Age` out.

We are an application cache that borrows the request directives and words of RFC 9111, not an
RFC 9111 cache of POST (RFC 9110 section 9.3.3 asks for more than any LLM API sends).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.model import Reason, Result

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Directives:
    """What a request's `Cache-Control` says (RFC 9111 section 5.2.1); durations in seconds.

    `stale-if-error` is RFC 5861's; `stale-while-revalidate`, there a response's, is ours here.
    """

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    no_transform: bool = False
    max_age_s: float | None = None
    min_fresh_s: float = 0.0
    stale_while_revalidate_s: float | None = None
    stale_if_error_s: float | None = None


NOTHING = Directives()


def parse(values: Iterable[str]) -> Directives:
    """Read all `Cache-Control` lines of a request; unknown and malformed members are skipped."""
    members: dict[str, str] = {}
    for value in values:
        for member in value.split(","):
            name, _, argument = member.strip().partition("=")
            if name:
                members.setdefault(name.strip().lower(), argument.strip().strip('"'))
    if not members:
        return NOTHING
    max_age = _seconds(members.get("max-age"))
    return Directives(
        # RFC: max-age=0 asks for validation, which for us is to ask the model again.
        no_cache="no-cache" in members or max_age == 0,
        no_store="no-store" in members,
        only_if_cached="only-if-cached" in members,
        no_transform="no-transform" in members,
        max_age_s=max_age,
        min_fresh_s=_seconds(members.get("min-fresh")) or 0.0,
        stale_while_revalidate_s=_seconds(members.get("stale-while-revalidate")),
        stale_if_error_s=_seconds(members.get("stale-if-error")),
    )


_LONGEST_S = 2.0**31


def _seconds(argument: str | None) -> float | None:
    if argument is None or not (argument.isascii() and argument.isdigit()):
        return None  # delta-seconds is digits only
    # RFC 9111 section 1.2.2: what is too large to hold counts as 2^31.
    return min(float(argument), _LONGEST_S)


_NAME = "gateway"


def cache_status(
    result: Result,
    reason: Reason,
    *,
    status: int | None = None,
    stored: bool = False,
    ttl_left_s: float | None = None,
) -> str:
    """Our member of `Cache-Status` (RFC 9211): `gateway; hit; ttl=2710`.

    `stored` only where the answer really was or will be stored as far as is known when the
    headers leave.
    """
    if result is Result.STALE:
        # RFC 9211 section 2.2: what was forwarded is no hit, even where its answer was of no use.
        how = "hit" if reason is Reason.STALE_WHILE_REVALIDATE else "fwd=stale"
        if status is not None:
            how += f"; fwd-status={status}"
        left = f"; ttl={math.floor(ttl_left_s)}" if ttl_left_s is not None else ""
        return f"{_NAME}; {how}{left}; detail={reason}"
    if result is Result.HIT:
        left = f"; ttl={int(ttl_left_s)}" if ttl_left_s is not None else ""
        return f"{_NAME}; hit{left}"
    if result is Result.COLLAPSED:
        return f"{_NAME}; fwd=miss; collapsed"
    forwarded = "bypass" if result is Result.PASS else _FORWARDED.get(reason, "miss")
    parts = [_NAME, f"fwd={forwarded}"]
    if status is not None:
        parts.append(f"fwd-status={status}")
    if stored:
        parts.append("stored")
    elif reason is not Reason.ABSENT:
        parts.append(f"detail={reason}")
    return "; ".join(parts)


_FORWARDED = {
    Reason.NO_CACHE: "request",
    Reason.TOO_OLD: "request",
    Reason.EXPIRED: "stale",
    Reason.STORE_UNAVAILABLE: "bypass",
}

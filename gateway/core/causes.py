"""Who caused what was read and written: a mark of ours, one of the client's, or the provider alone.

Rule 1: ours is only what would not have happened without us. What a client's mark, or the
provider by itself, would have read or written anyway isn't ours, even where ours stood there too.
Rule 2: shares add up to the usage, token by token, whatever a server states.
Rule 3: places are estimates (scaled to the prompt's true length), so a read is taken to end at a
mark when it ends near it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.prefix import CLIENT_TTL_S
from gateway.providers.prompt_cache import MarkerForm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.model import Usage
    from gateway.core.plan import Plan
    from gateway.core.prefix import CachePrompt
    from gateway.providers.prompt_cache import CacheRules

_HOUR_S = 3600
_NEAR_TOKENS = 64
_NEAR_PART = 20
"""A read ends near a mark within 64 tokens, or a twentieth of what was read."""


class Cause(StrEnum):
    """Who made the provider read or write."""

    OURS = "ours"
    CLIENT = "client"
    AUTOMATIC = "automatic"


# (To go through an enum's members takes longer than all else here.)
_ALL = tuple(Cause)


class Share(NamedTuple):
    """What one cause accounts for, in tokens."""

    read: int = 0
    write_5m: int = 0
    write_1h: int = 0


class Standing(NamedTuple):
    """A mark that stood in the request as it was sent."""

    tokens: int
    """Estimated tokens of the prompt up to its end."""
    ttl_s: int
    cause: Cause
    """`OURS` or `CLIENT`."""


class Facts(NamedTuple):
    """What a request that was sent said about caching."""

    marks: tuple[Standing, ...]
    automatic: bool
    """The provider caches by itself: it takes no markers, or writes the prompt's end unasked."""
    prompt_tokens: int
    """All of the prompt, by the same estimate as the marks' places."""


def facts(
    prompt: CachePrompt, plan: Plan, tokens: Sequence[int], rules: CacheRules | None
) -> Facts:
    """What the request said after `plan` was carried out; `tokens` as in `planner.Ticket`: estimated
    and cumulative, at each block's end. Without rules the provider is taken to heed the client.
    """
    total = tokens[-1] if tokens else 0
    if rules is not None and rules.form is MarkerForm.NONE:
        return Facts((), automatic=True, prompt_tokens=total)
    marks = [Standing(tokens[mark.block], mark.ttl_s, Cause.OURS) for mark in plan.marks]
    if not plan.strips:
        if any(map(CLIENT_TTL_S, prompt.blocks)):
            marks += [
                Standing(tokens[at], ttl_s, Cause.CLIENT)
                for at, ttl_s in enumerate(map(CLIENT_TTL_S, prompt.blocks))
                if ttl_s
            ]
        if prompt.automatic_ttl_s:
            marks.append(Standing(total, prompt.automatic_ttl_s, Cause.CLIENT))
    mode = plan.mode or prompt.client_mode
    implicit = rules is not None and rules.implicit and mode != "explicit"
    return Facts(tuple(sorted(marks)), automatic=implicit, prompt_tokens=total)


def shares(usage: Usage, of: Facts) -> dict[Cause, Share]:
    """What each cause accounts for; together exactly what was read and written."""
    marks = _scaled(usage, of)
    read = _reads(usage, marks, automatic=of.automatic)
    short, long = _writes(usage, marks, automatic=of.automatic)
    return {cause: Share(read[cause], short[cause], long[cause]) for cause in _ALL}


def _none() -> dict[Cause, int]:
    return dict.fromkeys(_ALL, 0)


def _scaled(usage: Usage, of: Facts) -> list[Standing]:
    """The marks, at the places that the prompt's true length gives them."""
    if not of.prompt_tokens:
        return list(of.marks)
    return [
        mark._replace(tokens=mark.tokens * usage.input // of.prompt_tokens) for mark in of.marks
    ]


def _reads(usage: Usage, marks: list[Standing], *, automatic: bool) -> dict[Cause, int]:
    end = usage.cache_read
    found = _none()
    near = max(_NEAR_TOKENS, end // _NEAR_PART)
    close = {mark.cause for mark in marks if abs(mark.tokens - end) <= near}
    beyond = {mark.cause for mark in marks if mark.tokens > end + near}
    if Cause.CLIENT in close or (not close and Cause.CLIENT in beyond):
        found[Cause.CLIENT] = end
    elif Cause.OURS in close or (not automatic and Cause.OURS in beyond):
        # It ends at a mark of ours, or was found looking back from one, and no other's would have
        # come as far. An earlier mark of the client's would still have read up to there.
        theirs = [mark.tokens for mark in marks if mark.cause is Cause.CLIENT]
        found[Cause.CLIENT] = max((t for t in theirs if t < end), default=0)
        found[Cause.OURS] = end - found[Cause.CLIENT]
    else:
        found[Cause.AUTOMATIC] = end
    return found


def _writes(
    usage: Usage, marks: list[Standing], *, automatic: bool
) -> tuple[dict[Cause, int], dict[Cause, int]]:
    """By lifetime: up to an hour, an hour."""
    short, long = _none(), _none()
    total = usage.cache_write_5m + usage.cache_write_1h
    ours, theirs = (
        [mark for mark in marks if mark.cause is cause] for cause in (Cause.OURS, Cause.CLIENT)
    )
    # Written is what lies between the end of what was read and the last mark. A mark of the
    # client's would have written up to its place anyway, the provider by itself up to the end.
    rest = Cause.AUTOMATIC if automatic or not ours else Cause.OURS
    if not ours and theirs and not automatic:
        rest = Cause.CLIENT
    depth = max((mark.tokens for mark in theirs), default=0) - usage.cache_read
    by_client = total if rest is Cause.CLIENT else min(total, max(0, depth))
    hours = {mark.cause for mark in marks if mark.ttl_s >= _HOUR_S}
    if hours == {Cause.OURS}:
        # Only we asked for an hour: its price is ours wherever it was paid.
        long[Cause.OURS] = usage.cache_write_1h
        short[Cause.CLIENT] = min(by_client, usage.cache_write_5m)
    else:
        # What lives longer stands first.
        long[Cause.CLIENT] = min(by_client, usage.cache_write_1h)
        long[rest] += usage.cache_write_1h - long[Cause.CLIENT]
        short[Cause.CLIENT] = by_client - long[Cause.CLIENT]
    short[rest] += usage.cache_write_5m - short[Cause.CLIENT]
    return short, long

"""What of a plan is in a request as it goes out: `standing`, `prefixes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.lookups import last_ending
from gateway.core.prefix import CLIENT_TTL_S, UNTIL, joined
from gateway.providers.prompt_cache import MarkerForm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.plan import Plan
    from gateway.core.prefix import CachePrompt
    from gateway.providers.prompt_cache import CacheRules

_UNSPLIT = 0xC2B2AE3D27D4EB4F


def prefixes(prompt: CachePrompt, plan: Plan | None, chain: Sequence[int], salt: int) -> list[int]:
    """The fingerprint of what is sent up to each block's end, in this cache: a text counts as split
    only where it is.
    """
    blocks = prompt.blocks
    if not any(map(UNTIL, blocks)):
        return [each ^ salt for each in chain]
    split: set[int] = set()
    if plan is not None:
        split = {*plan.splits, *(mark.block for mark in plan.marks)}
    found: list[int] = []
    before = form = 0
    for at, (block, fingerprint) in enumerate(zip(blocks, chain, strict=True)):
        if block.until:
            before = joined(before, fingerprint ^ (0 if at in split else _UNSPLIT))
            found.append(before ^ salt)
            continue
        form = before
        found.append(joined(form, fingerprint) ^ salt if form else fingerprint ^ salt)
    return found


def standing(
    prompt: CachePrompt, plan: Plan | None, rules: CacheRules
) -> tuple[list[int], tuple[tuple[int, int], ...], bool]:
    """Blocks that carry a marker as the request goes out; those at whose ends an entry is asked for,
    each with its lifetime in seconds; and whether OpenAI's implicit mode holds.
    """
    blocks = prompt.blocks
    if not rules.takes_markers:
        return [], (), False
    marks: dict[int, int] = {}
    mode = ""
    if plan is None or not plan.strips:
        mode = prompt.client_mode
        if any(map(CLIENT_TTL_S, blocks)):
            marks = {at: ttl_s for at, ttl_s in enumerate(map(CLIENT_TTL_S, blocks)) if ttl_s}
        if prompt.automatic_ttl_s:
            last = (at for at in range(len(blocks) - 1, -1, -1) if blocks[at].can_mark)
            marks.setdefault(next(last, len(blocks) - 1), prompt.automatic_ttl_s)
    if plan is not None:
        marks |= {mark.block: mark.ttl_s for mark in plan.marks}
        mode = plan.mode or mode
    implicit = rules.implicit and mode != "explicit"
    ordered, explicit = sorted(marks.items()), sorted(marks)
    if rules.form is MarkerForm.BREAKPOINT:
        ordered = ordered[-(rules.max_marks - implicit) :]
        if implicit and (last_one := last_ending(blocks)) >= 0 and last_one not in marks:
            ordered = sorted([*ordered, (last_one, rules.lifetimes[0].ttl_s)])
    return explicit, tuple(ordered), implicit

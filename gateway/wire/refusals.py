"""What a provider names when it refuses what we added to a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.providers.prompt_cache import MarkerForm

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.core.plan import Plan
    from gateway.core.prefix import CachePrompt
    from gateway.providers.prompt_cache import CacheRules

_MEMBERS = {
    MarkerForm.CACHE_CONTROL: (b"cache_control",),
    MarkerForm.BREAKPOINT: (b"prompt_cache_breakpoint", b"prompt_cache_options"),
    MarkerForm.CACHE_POINT: (b"cachePoint",),
    MarkerForm.NONE: (),
}


def names_of(plan: Plan, prompt: CachePrompt, rules: CacheRules) -> tuple[bytes, ...]:
    """Members that carrying out the plan adds or gives another form. Never empty where the plan
    changes anything.
    """
    named = list(_MEMBERS[rules.form])
    if plan.cache_key:
        named.append(b"prompt_cache_key")
    changed = [*(mark.block for mark in plan.marks), *plan.splits]
    for block in (prompt.blocks[index] for index in changed):
        # Text that stood as a bare string, or as one part, is a list of parts now.
        holder = block.path[-1] if block.path else ""
        if isinstance(holder, str):
            named.append(holder.encode())
        elif block.until or plan.splits:
            named.append(str(block.path[0]).encode())
    if plan.splits or plan.strips:
        # Thinking may turn out to be bound to the text as it was.
        named.append(b"signature")
    return tuple(dict.fromkeys(named)) or (b"cache",)


def names(answer: bytes, members: Iterable[bytes]) -> bool:
    """Does an error's body name one of them?"""
    return any(member in answer for member in members)

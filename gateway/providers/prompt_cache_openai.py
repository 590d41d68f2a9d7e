"""OpenAI's prompt cache: breakpoints from GPT-5.6 on, before that automatic with a routing key.

Read 2026-11. Azure serves the same models under names that their owners chose.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.providers.base import Rule
from gateway.providers.prompt_cache import CacheRules, Lifetime, MarkerForm

_GUIDE = "developers.openai.com/api/docs/guides/prompt-caching (2026-09-23)"
_PRICING = "openai.com/api/pricing (2026-11)"
_SDK = "openai-python e43b422 types/chat/completion_create_params.py (2026-08-21)"
_AZURE = "learn.microsoft.com/azure/foundry/openai/how-to/prompt-caching (2026-08-12)"
_CHEAP = f"{_GUIDE}; docs.apiyi.com (2026-09-29) and genai-prices 0.2.3, not the author's own"
_ROUTED = "openrouter.ai/docs/guides/best-practices/prompt-caching (2026-11)"

# Families that take breakpoints, and what reading costs: a tenth by the guide, whose "GPT-5.6 and
# later" covers all; `-pro`, audio, image and realtime models are left out, their prices differ.
BREAKPOINTS: dict[str, float] = {
    **dict.fromkeys(("gpt-5.6", "gpt-5.6-sol", "gpt-5.6-terra", "gpt-5.6-luna"), 0.1),
    **dict.fromkeys(("gpt-6-astra", "gpt-6-sol", "gpt-6-luna", "gpt-6.1-luna"), 0.1),
    **dict.fromkeys(("gpt-6.1-sol", "gpt-6.1-terra"), 0.05),
}

_IN_MEMORY = Lifetime(300, "in_memory", 1.0)
_DAY = Lifetime(86_400, "24h", 1.0)

# Older families, without markers and write prices: what reading costs, and how long they may keep.
AUTOMATIC: dict[str, tuple[float, tuple[Lifetime, ...]]] = {
    # Without a price for cached input, so that nothing is saved but time.
    **dict.fromkeys(("gpt-5-pro", "gpt-5.2-pro", "gpt-5.4-pro", "gpt-5.5-pro"), (1.0, (_DAY,))),
    **dict.fromkeys(("o1-pro", "o3-pro"), (1.0, (_IN_MEMORY,))),
    "gpt-5.5": (0.1, (_DAY,)),
    **dict.fromkeys(
        (
            *("gpt-5", "gpt-5-codex", "gpt-5-chat", "gpt-5-mini", "gpt-5-nano"),
            *("gpt-5.1", "gpt-5.1-codex", "gpt-5.1-codex-max", "gpt-5.1-codex-mini"),
            *("gpt-5.1-chat", "gpt-5.2", "gpt-5.2-codex", "gpt-5.2-chat"),
            *("gpt-5.3", "gpt-5.3-codex", "gpt-5.4", "gpt-5.4-mini", "gpt-5.4-nano"),
        ),
        (0.1, (_IN_MEMORY, _DAY)),
    ),
    **dict.fromkeys(("gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano"), (0.25, (_IN_MEMORY, _DAY))),
    **dict.fromkeys(("o3", "o4-mini"), (0.25, (_IN_MEMORY,))),
    **dict.fromkeys(("gpt-4o", "gpt-4o-mini", "o1", "o1-mini", "o3-mini"), (0.5, (_IN_MEMORY,))),
}

_APIS = frozenset({"openai_chat", "openai_responses"})


def rules(provider: str, api: str, model: str, deployment: str = "") -> CacheRules | None:
    """The rules for a family of OpenAI's (`gpt-5.6-sol`) at a provider; None: not known.

    `deployment`, of Azure: `standard` or `provisioned` where the operator says so and that its name
    is its model's; empty: neither is known.
    """
    if api not in _APIS:
        return None
    if model in BREAKPOINTS:
        here = _with_breakpoints(api, BREAKPOINTS[model])
    elif model in AUTOMATIC:
        here = _automatic(api, *AUTOMATIC[model])
    else:
        return None
    if provider == "azure":
        return _at_azure(here, deployment)
    if provider == "openrouter":
        return _at_openrouter(here)
    return replace(here, provider=provider)


def _with_breakpoints(api: str, read: float) -> CacheRules:
    return CacheRules(
        provider="openai",
        form=MarkerForm.BREAKPOINT,
        # Of visible tokens; counts are exact, no longer rounded to 128.
        minimum_tokens=1024,
        read=read,
        # A minimum: it may be held longer.
        lifetimes=(Lifetime(1800, "30m", 1.25),),
        source=Rule("breakpoints, from GPT-5.6 on", _GUIDE if read == 0.1 else _CHEAP),
        # Implicit mode's own counts as one. Beyond them the API drops marks and doesn't refuse.
        max_marks=4,
        # Not counted in positions: of the explicit marks of a request the first 2 and the latest 50
        # are looked up by the guide (the latest 80 by the API reference). Unmarked ends are not.
        look_back=0,
        marks_tools=False,
        marks_assistant=False,
        implicit=True,
        implicit_look_back=20,
        # No `hint`: since 2026-09 the guide needs no key for routing, and another key is a miss.
        binds_thinking=_binds(api),
        prewarm="prewarm" if api == "openai_responses" else "",
    )


def _binds(api: str) -> bool:
    """Of reasoning that Responses hands back encrypted it isn't said what it may be bound to; Chat
    Completions hands none back.
    """
    return api != "openai_chat"


def _automatic(api: str, read: float, lifetimes: tuple[Lifetime, ...]) -> CacheRules:
    return CacheRules(
        provider="openai",
        form=MarkerForm.NONE,
        minimum_tokens=1024,
        read=read,
        lifetimes=lifetimes,
        source=Rule("caches by itself; a key keeps it together", f"{_GUIDE}; {_PRICING}"),
        binds_thinking=_binds(api),
        hint="prompt_cache_key",
        # Of all prefixes that use one key; what is beyond goes to other machines.
        hint_rpm=15,
    )


def _at_azure(here: CacheRules, deployment: str) -> CacheRules:
    """A name proves nothing, an older API version refuses the key, a provisioned deployment takes
    no breakpoints: nothing is sent unless the operator says what it is.
    """
    sourced = replace(here, provider="azure", source=Rule(here.source.reason, f"{_AZURE}; {_SDK}"))
    if deployment == "standard":
        return sourced
    quiet = replace(sourced, form=MarkerForm.NONE, max_marks=0, prewarm="")
    if deployment == "provisioned":
        # It caches, and charges no writes.
        free = tuple(replace(lifetime, write=1.0) for lifetime in here.lifetimes)
        return replace(quiet, lifetimes=free, hint="prompt_cache_key", hint_rpm=15)
    return replace(quiet, hint="", hint_rpm=0)


def _at_openrouter(here: CacheRules) -> CacheRules:
    """It turns `cache_control` into breakpoints, but documents neither how many nor its lifetime:
    implicit caching is left to work, and a session keeps it at one host.
    """
    return replace(
        here,
        provider="openrouter",
        form=MarkerForm.NONE,
        max_marks=0,
        source=Rule("caches by itself; a session keeps it at one host", _ROUTED),
        # It hands reasoning back in Chat Completions, too.
        binds_thinking=True,
        hint="x-session-id",
        hint_rpm=0,
        prewarm="",
    )

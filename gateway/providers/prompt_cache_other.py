"""Who caches by itself: local engines, and providers that take a hint at most. Read 2026-11.

Engines have no prices: reading costs nothing, writing what any token does. What a provider doesn't
document is left at the careful end: no discount, no hint.
"""

from __future__ import annotations

from gateway.providers.base import Rule
from gateway.providers.prompt_cache import CacheRules, MarkerForm


def _engine(
    name: str, minimum: int, said: Rule, *, hint: str = "", prewarm: str = ""
) -> CacheRules:
    """An engine of one's own: it caches what it computed until it needs the room."""
    return CacheRules(
        provider=name,
        form=MarkerForm.NONE,
        minimum_tokens=minimum,
        read=0.0,
        lifetimes=(),
        source=said,
        # It renders what it is sent, and signs nothing.
        binds_thinking=False,
        hint=hint,
        prewarm=prewarm,
    )


_VLLM = "docs.vllm.ai design/prefix_caching and vllm/config/cache.py, 0.32 (2026-11)"
_BLOCKS = Rule("full blocks of 16 tokens; a salt keeps tenants apart", _VLLM)
_RADIX = Rule(
    "a radix tree over tokens; it ignores markers",
    "sgl-project/sglang docs, server arguments (2026-11)",
)
_SLOTS = Rule("each slot keeps its last prompt", "llama.cpp tools/server/README.md (2026-11)")
_CHATS = ("openai_chat", "openai_completions", "openai_responses", "anthropic_messages")

_ENGINES: dict[str, dict[str, CacheRules]] = {
    "vllm": {
        **dict.fromkeys(_CHATS, _engine("vllm", 16, _BLOCKS, hint="cache_salt")),
        # Its model of this API has no salt (entrypoints/anthropic/protocol.py).
        "anthropic_messages": _engine("vllm", 16, _BLOCKS),
    },
    "sglang": dict.fromkeys(_CHATS, _engine("sglang", 1, _RADIX)),
    "llamacpp": dict.fromkeys(_CHATS, _engine("llamacpp", 1, _SLOTS, prewarm="n_predict=0")),
}


def rules(provider: str, api: str, model: str) -> CacheRules | None:  # noqa: ARG001 - the same for all
    """The rules of a provider that isn't Anthropic or OpenAI, or None where nothing is known."""
    return _ENGINES.get(provider, {}).get(api)

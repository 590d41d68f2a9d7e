"""Who caches by itself, or takes markers and isn't served yet. Read 2026-11.

Engines of one's own have no prices: reading costs nothing, writing what any token does. What a
provider doesn't document is left at the careful end: no discount, no marker, no hint.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

from gateway.providers.base import Rule
from gateway.providers.prompt_cache import CacheRules, Lifetime, MarkerForm

_CHATS = ("openai_chat", "openai_completions", "openai_responses", "anthropic_messages")
_CHAT = ("openai_chat",)


class _Row(NamedTuple):
    """The rules of one provider for some of its models and APIs."""

    models: re.Pattern[str]
    apis: tuple[str, ...]
    rules: CacheRules


def _automatic(
    provider: str,
    minimum: int,
    read: float,
    said: Rule,
    *,
    lifetimes: tuple[Lifetime, ...] = (),
    hint: str = "",
) -> CacheRules:
    """A provider that caches by itself."""
    return CacheRules(
        provider=provider,
        form=MarkerForm.NONE,
        minimum_tokens=minimum,
        read=read,
        lifetimes=lifetimes,
        source=said,
        hint=hint,
    )


def _engine(
    name: str, minimum: int, said: Rule, *, hint: str = "", prewarm: str = ""
) -> CacheRules:
    """An engine of one's own: it caches what it computed until it needs the room. It renders what
    it is sent and signs nothing, so no thinking is bound.
    """
    alone = _automatic(name, minimum, 0.0, said, hint=hint)
    return replace(alone, binds_thinking=False, prewarm=prewarm)


_ANY = re.compile(".+", re.DOTALL)
_BLOCKS = Rule(
    "full blocks of 16 tokens; a salt keeps tenants apart",
    "docs.vllm.ai design/prefix_caching and vllm/config/cache.py, 0.32 (2026-11)",
)
_RADIX = Rule(
    "a radix tree over tokens; it ignores markers",
    "sgl-project/sglang docs, server arguments (2026-11)",
)
_SLOTS = Rule("each slot keeps its last prompt", "llama.cpp tools/server/README.md (2026-11)")

_TWO_HOURS = Lifetime(7200, "2h", 1.0)
_XAI = Rule("caches by itself, in steps of 128 tokens; 0.25 by users' bills", "docs.x.ai (2026-11)")
_DEEPSEEK = Rule(
    "a disk cache for hours or days; prices differ by hour, their ratio doesn't",
    "api-docs.deepseek.com (2026-10-27)",
)
_QWEN = Rule(
    "explicit caching; an entry exists only once the answer that wrote it has ended. Qwen4's has"
    " other lifetimes and isn't listed",
    "alibabacloud.com/help/en/model-studio/context-cache (2026-10-11)",
)
_GEMINI = Rule(
    "implicit, without guarantee; markers would make stored contents, which are rented",
    "ai.google.dev/gemini-api/docs/caching (2026-10-13)",
)
_KIMI = Rule(
    "writes are billed since 2026-10", "platform.moonshot.ai (2026-10), genai-prices 0.2.3"
)

_EXPLICIT = CacheRules(
    provider="qwen",
    form=MarkerForm.CACHE_CONTROL,
    minimum_tokens=1024,
    read=0.1,
    lifetimes=(Lifetime(300, "5m", 1.25),),
    source=_QWEN,
    max_marks=4,
    look_back=20,
)

# The first row that fits holds.
_ROWS: dict[str, tuple[_Row, ...]] = {
    "vllm": (
        # Its model of Anthropic's API has no salt (entrypoints/anthropic/protocol.py).
        _Row(_ANY, ("anthropic_messages",), _engine("vllm", 16, _BLOCKS)),
        _Row(_ANY, _CHATS, _engine("vllm", 16, _BLOCKS, hint="cache_salt")),
    ),
    "sglang": (_Row(_ANY, _CHATS, _engine("sglang", 1, _RADIX)),),
    "llamacpp": (_Row(_ANY, _CHATS, _engine("llamacpp", 1, _SLOTS, prewarm="n_predict=0")),),
    "xai": (
        _Row(
            re.compile("grok-.+"), _CHAT, _automatic("xai", 128, 0.25, _XAI, hint="x-grok-conv-id")
        ),
        _Row(
            re.compile("grok-.+"),
            ("openai_responses",),
            _automatic("xai", 128, 0.25, _XAI, hint="prompt_cache_key"),
        ),
    ),
    "deepseek": (
        _Row(
            re.compile("deepseek-(v4-)?flash"), _CHAT, _automatic("deepseek", 64, 0.02, _DEEPSEEK)
        ),
        _Row(
            re.compile("deepseek-v4-pro"),
            _CHAT,
            _automatic("deepseek", 64, 0.022 / 0.66, _DEEPSEEK),
        ),
    ),
    "qwen": (_Row(re.compile(r"qwen3\.6-plus|qwen3-coder-plus"), _CHAT, _EXPLICIT),),
    "gemini": (
        _Row(
            re.compile(r"gemini-(4-argon|3\.[568]-flash|3\.1-pro-preview)"),
            ("gemini",),
            _automatic("gemini", 4096, 0.1, _GEMINI),
        ),
        _Row(
            re.compile(r"gemini-2\.5-(flash|flash-lite|pro)"),
            ("gemini",),
            _automatic("gemini", 2048, 0.1, _GEMINI),
        ),
    ),
    "mistral": (
        _Row(
            re.compile("(mistral|ministral|magistral|codestral|devstral)-.+"),
            _CHAT,
            _automatic(
                "mistral",
                0,
                0.1,
                Rule("only with a key", "docs.mistral.ai prompt-caching (2026-11)"),
                hint="prompt_cache_key",
            ),
        ),
    ),
    "groq": (
        _Row(
            _ANY,
            _CHAT,
            _automatic(
                "groq",
                0,
                0.5,
                Rule("caches by itself", "console.groq.com/docs/prompt-caching (2026-11)"),
                lifetimes=(_TWO_HOURS,),
            ),
        ),
    ),
    "together": (
        _Row(
            _ANY,
            _CHAT,
            _automatic(
                "together",
                0,
                1.0,
                Rule(
                    "caches by itself; no price found",
                    "docs.together.ai/docs/inference/chat/prompt-caching (2026-11)",
                ),
            ),
        ),
    ),
    "fireworks": (
        _Row(
            _ANY,
            _CHAT,
            _automatic(
                "fireworks",
                0,
                0.5,
                Rule("half by default", "docs.fireworks.ai/guides/prompt-caching (2026-11)"),
                hint="x-session-affinity",
            ),
        ),
    ),
    "moonshot": (
        _Row(
            re.compile(r"kimi-k3(\.1-pro)?"),
            _CHAT,
            _automatic(
                "moonshot",
                0,
                0.1,
                _KIMI,
                lifetimes=(Lifetime(300, "5m", 1.0), Lifetime(3600, "1h", 2.0)),
            ),
        ),
    ),
    "zai": (
        _Row(
            re.compile(r"glm-5\.3"),
            _CHAT,
            _automatic("zai", 0, 0.26 / 1.40, Rule("by its prices", "openrouter.ai (2026-11)")),
        ),
    ),
    "minimax": (
        _Row(
            _ANY,
            ("anthropic_messages",),
            _automatic(
                "minimax",
                512,
                1.0,
                Rule("markers are accepted; neither limits nor prices found", "third parties"),
            ),
        ),
    ),
}


def rules(provider: str, api: str, model: str) -> CacheRules | None:
    """The rules of a provider that isn't Anthropic or OpenAI, or None where nothing is known."""
    for row in _ROWS.get(provider, ()):
        if api in row.apis and row.models.fullmatch(model):
            return row.rules
    return None


def rows() -> list[tuple[str, tuple[str, ...], CacheRules]]:
    """Every row, for the reference: pattern of models (`*` for any), APIs, rules."""
    return [
        ("*" if row.models is _ANY else row.models.pattern, row.apis, row.rules)
        for each in _ROWS.values()
        for row in each
    ]

"""Claude's prompt cache, wherever Claude is served: minimums, multipliers, who binds thinking.

Read 2026-11. A model that is not listed is unknown: it gets no markers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from gateway.providers.base import Rule
from gateway.providers.prompt_cache import CacheRules, Lifetime, MarkerForm

DOCS = "platform.claude.com/docs/en/build-with-claude/prompt-caching (2026-09)"
_TABLE_2026_10 = "the same page's table of minimums as quoted by third parties (2026-10-07)"
_THINKING = "platform.claude.com/docs/build-with-claude/preserved-thinking (2026-09)"
_LAUNCH_5_2 = "docs.apiyi.com/news/claude-fable-5-2-launch (2026-11-09), not the author's own"
_PRICES_10 = "claudit 1.9.2 and others (2026-10), not the author's own"
_AWS = "docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching (2026-05) and model cards"
_FOUNDRY = f"{DOCS}: on Microsoft Foundry; deployments are taken at their names"
_ROUTED = "openrouter.ai/docs/guides/best-practices/prompt-caching (2026-11)"

FIVE_MINUTES = Lifetime(300, "5m", 1.25)
ONE_HOUR = Lifetime(3600, "1h", 2.0)
_BOTH = (FIVE_MINUTES, ONE_HOUR)
_SHORT = (FIVE_MINUTES,)

_TENTH = 0.1
_TWENTIETH = 0.05
_FORTIETH = 0.025


class Claude(NamedTuple):
    """What differs from model to model on Anthropic's own API."""

    minimum: int
    read: float
    binds: bool
    """A thinking block's signature is bound to system, tools and all earlier messages."""
    source: Rule


def _row(minimum: int, why: str, source: str, read: float = _TENTH, *, binds: bool) -> Claude:
    return Claude(minimum, read, binds, Rule(why, source))


_NEW = "minimum 512; thinking is bound to all before it"
_FREE = "thinking is not bound to what stands before it"

MODELS: dict[str, Claude] = {
    **dict.fromkeys(
        ("claude-fable-5-2", "claude-mythos-5-2"),
        _row(
            2048,
            "minimum not documented: the largest that any Fable or Mythos ever had, which may only"
            " cost a mark; thinking is bound for all accounts",
            f"{_LAUNCH_5_2}; {DOCS}",
            _FORTIETH,
            binds=True,
        ),
    ),
    **dict.fromkeys(
        ("claude-fable-5-1", "claude-mythos-5-1"),
        _row(512, _NEW, f"{DOCS}; {_TABLE_2026_10}; {_THINKING}", _FORTIETH, binds=True),
    ),
    **dict.fromkeys(
        ("claude-opus-5-5", "claude-sonnet-5-5"),
        _row(512, _NEW, f"{_TABLE_2026_10}; {_PRICES_10}; {_THINKING}", _TWENTIETH, binds=True),
    ),
    "claude-haiku-5-5": _row(
        512,
        "minimum 512; released after binding began, so taken as bound",
        f"{_TABLE_2026_10}; {_PRICES_10}; {_THINKING}",
        binds=True,
    ),
    **dict.fromkeys(
        ("claude-fable-5", "claude-mythos-5", "claude-opus-5"),
        _row(512, f"minimum 512; {_FREE}", f"{DOCS}; {_THINKING}", binds=False),
    ),
    **dict.fromkeys(
        (
            "claude-opus-4-8",
            "claude-sonnet-5",
            "claude-sonnet-4-5",
            "claude-opus-4-1",
            "claude-opus-4",
            "claude-sonnet-4",
        ),
        _row(1024, f"minimum 1024; {_FREE}", f"{DOCS}; {_THINKING}", binds=False),
    ),
    "claude-sonnet-4-6": _row(
        1024,
        f"minimum 1024, though about 2048 was measured; {_FREE}",
        f"{DOCS}; anthropics/anthropic-sdk-python#1194; {_THINKING}",
        binds=False,
    ),
    **dict.fromkeys(
        ("claude-mythos-preview", "claude-opus-4-7", "claude-3-5-haiku"),
        _row(2048, f"minimum 2048; {_FREE}", f"{DOCS}; {_THINKING}", binds=False),
    ),
    **dict.fromkeys(
        ("claude-opus-4-6", "claude-opus-4-5", "claude-haiku-4-5"),
        _row(4096, f"minimum 4096; {_FREE}", f"{DOCS}; {_THINKING}", binds=False),
    ),
}

# Where Bedrock's minimum and lifetimes are documented; elsewhere it is the largest minimum of any
# Claude there, and five minutes.
_BEDROCK_MINIMUM = {
    **dict.fromkeys(("claude-opus-5", "claude-fable-5", "claude-mythos-5"), 512),
    **dict.fromkeys(("claude-sonnet-4-6", "claude-sonnet-5", "claude-opus-4-8"), 1024),
}
_BEDROCK_LARGEST = 4096
_BEDROCK_HOUR = frozenset(
    {
        "claude-opus-4-5",
        "claude-sonnet-4-5",
        "claude-haiku-4-5",
        "claude-opus-5",
        "claude-fable-5",
    }
)
_BEDROCK_LEGACY = frozenset(
    {
        "claude-opus-4-6",
        "claude-opus-4-5",
        "claude-opus-4-1",
        "claude-opus-4",
        "claude-sonnet-4-6",
        "claude-sonnet-4-5",
        "claude-sonnet-4",
        "claude-haiku-4-5",
        "claude-3-5-haiku",
        "claude-mythos-preview",
    }
)

_IGNORES_MARKS = Rule(
    "Anthropic's own OpenAI-compatible endpoint ignores markers and states no cached tokens",
    "getmunin/munin pull 889 (2026-09-03)",
)


def rules(provider: str, api: str, model: str) -> CacheRules | None:
    """The rules for a family of Claude (`claude-sonnet-4-5`) at a provider; None: not known."""
    known = MODELS.get(model)
    if known is None:
        return None
    if provider == "bedrock":
        return _at_bedrock(api, model, known)
    here = CacheRules(
        provider=provider,
        form=MarkerForm.CACHE_CONTROL,
        minimum_tokens=known.minimum,
        read=known.read,
        lifetimes=_BOTH,
        source=known.source,
        max_marks=4,
        look_back=20,
        runs_count_once=provider == "anthropic",
        automatic=True,
        binds_thinking=known.binds,
        prewarm="max_tokens=0",
    )
    if provider == "openrouter":
        return _at_openrouter(api, here)
    if api == "anthropic_messages":
        if provider == "azure":
            return replace(here, source=Rule(known.source.reason, _FOUNDRY))
        return here
    if provider == "anthropic" and api == "openai_chat":
        return CacheRules(
            provider=provider,
            form=MarkerForm.NONE,
            minimum_tokens=known.minimum,
            read=1.0,
            lifetimes=(),
            source=_IGNORES_MARKS,
            binds_thinking=known.binds,
        )
    return None


def _at_openrouter(api: str, here: CacheRules) -> CacheRules | None:
    """Any of several hosts may answer, so the narrower look-back holds, and none is asked to write
    without answering.
    """
    routed = replace(
        here,
        source=Rule(f"{here.source.reason}; routed to any host of the model", _ROUTED),
        hint="x-session-id",
        prewarm="",
    )
    if api == "anthropic_messages":
        return routed
    if api == "openai_chat":
        # Its schema of tools knows no marker: github.com/OpenRouterTeam/python-sdk/issues/51.
        return replace(routed, marks_tools=False)
    return None


def _at_bedrock(api: str, model: str, known: Claude) -> CacheRules | None:
    forms = {
        "bedrock_converse": MarkerForm.CACHE_POINT,
        "anthropic_messages": MarkerForm.CACHE_CONTROL,
    }
    form = forms.get(api)
    if form is None:
        return None
    return CacheRules(
        provider="bedrock",
        form=form,
        minimum_tokens=_BEDROCK_MINIMUM.get(model, _BEDROCK_LARGEST),
        read=known.read,
        lifetimes=_BOTH if model in _BEDROCK_HOUR else _SHORT,
        source=Rule("minimum 4096 and five minutes unless more is documented there", _AWS),
        max_marks=4,
        look_back=20,
        automatic=form is MarkerForm.CACHE_CONTROL and model not in _BEDROCK_LEGACY,
        binds_thinking=known.binds,
    )

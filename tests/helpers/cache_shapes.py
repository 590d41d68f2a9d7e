"""Rules and prompts of the simulated prompt cache, small enough to reckon by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.blocks import Section
from gateway.core.prefix import CachePrompt, Kind, PrefixBlock
from gateway.providers.base import Rule
from gateway.providers.prompt_cache import CacheRules, Lifetime, MarkerForm

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE = Rule("made up", "this test")
FIVE, HOUR = 300, 3600

ANTHROPIC = CacheRules(
    "anthropic",
    MarkerForm.CACHE_CONTROL,
    100,
    0.1,
    (Lifetime(FIVE, "5m", 1.25), Lifetime(HOUR, "1h", 2.0)),
    SOURCE,
    max_marks=4,
    look_back=20,
    runs_count_once=True,
    automatic=True,
)
OPENAI = CacheRules(
    "openai",
    MarkerForm.BREAKPOINT,
    100,
    0.1,
    (Lifetime(1800, "30m", 1.25),),
    SOURCE,
    max_marks=4,
    marks_tools=False,
    marks_assistant=False,
    implicit=True,
    implicit_look_back=20,
)
BY_ITSELF = CacheRules(
    "openai", MarkerForm.NONE, 1024, 0.5, (Lifetime(FIVE, "in_memory", 1.0),), SOURCE
)


def block(
    name: str,
    tokens: int = 100,
    kind: Kind = Kind.TEXT,
    *,
    section: Section = Section.MESSAGES,
    role: str = "user",
    can_mark: bool = True,
    ends: bool = True,
    until: int = 0,
) -> PrefixBlock:
    """A block of so many tokens; blocks of one name are the same text."""
    digest = int.from_bytes(name.encode().ljust(8, b"\0")[:8], "little")
    return PrefixBlock(
        section,
        kind,
        role,
        (name,),
        tokens * 4,
        digest,
        can_mark=can_mark,
        ends_message=ends,
        until=until,
    )


def prompt(blocks: Sequence[PrefixBlock], model: str = "m") -> CachePrompt:
    """A prompt of these blocks."""
    seed = int.from_bytes(model.encode()[:8], "little")
    return CachePrompt("anthropic_messages", model, tuple(blocks), seed, 2)

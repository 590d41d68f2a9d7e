"""The shape of a provider's prompt-cache rules: what its planner and its simulator both go by."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.providers.base import Rule


class MarkerForm(StrEnum):
    """How a marker is spelled on the wire."""

    CACHE_CONTROL = "cache_control"
    """Anthropic and who speaks like it: a member of the block."""
    BREAKPOINT = "prompt_cache_breakpoint"
    """OpenAI from GPT-5.6 on: a member of the content part, and `prompt_cache_options`."""
    CACHE_POINT = "cachePoint"
    """Bedrock Converse: an element of its own behind the block."""
    NONE = "none"
    """The provider caches by itself, or not at all."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """One lifetime that a written prefix can have."""

    ttl_s: int
    wire: str
    """How the marker spells it: `5m`, `1h`, `30m`."""
    write: float
    """Price of writing a token, as a multiple of an uncached one."""


@dataclass(frozen=True, slots=True)
class CacheRules:
    """What one provider documents of its prompt cache, for some models of one wire API."""

    provider: str
    form: MarkerForm
    minimum_tokens: int
    """A prefix below it is neither written nor read."""
    read: float
    """Price of reading a token, as a multiple of an uncached one."""
    lifetimes: tuple[Lifetime, ...]
    """That may be asked for, the shortest first. Without markers: what the provider's own cache
    does, for those who want to know how long it holds."""
    source: Rule
    max_marks: int = 0
    """That may stand in one request, all levels and the automatic one counted; 0 for none."""
    look_back: int = 0
    """Positions at which an earlier entry is looked for, the marked one included; 0 for no limit."""
    runs_count_once: bool = False
    """A run of tool uses, or of tool results, is one position of the look-back."""
    marks_tools: bool = True
    """Tool definitions can carry a marker."""
    marks_assistant: bool = True
    """Content of the assistant's messages can."""
    automatic: bool = False
    """A top-level marker moves along with the last block (Anthropic)."""
    implicit: bool = False
    """Without being told, the end of the prompt is written at each request (OpenAI from 5.6 on);
    explicit mode forbids that."""
    implicit_look_back: int = 0
    """Earlier message endings at which implicit mode looks for an entry."""
    refreshes: bool = True
    """Reading an entry renews its lifetime for free."""
    binds_thinking: bool = True
    """Thinking may be bound to all before it: no text may be split, sorted or moved. True wherever
    the provider doesn't say that it isn't."""
    hint: str = ""
    """Member or header that keeps one prefix on one machine: `prompt_cache_key`,
    `x-grok-conv-id`, `cache_salt`; empty for none."""
    hint_rpm: int = 0
    """Requests a minute that one hint's value should not exceed; 0 for no limit."""
    prewarm: str = ""
    """How a prefix is written without an answer: `max_tokens=0`, `prewarm`, `n_predict=0`;
    empty: by asking for one token."""

    @property
    def takes_markers(self) -> bool:
        """Is there anything to place?"""
        return self.form is not MarkerForm.NONE and self.max_marks > 0

    def lifetime(self, ttl_s: int) -> Lifetime:
        """The lifetime of so many seconds. Raises KeyError for one that can't be asked for."""
        for known in self.lifetimes:
            if known.ttl_s == ttl_s:
                return known
        raise KeyError(ttl_s)

"""What is decided about one request's prompt cache, and why: data only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Markers(StrEnum):
    """What may be done with markers, by route (`markers:`) and header (`x-gateway-markers`)."""

    OFF = "off"
    """Nothing: the prompt goes as it came, and nothing is added to it."""
    RESPECT = "respect"
    """Ours are placed only where the client places none at all."""
    AUTO = "auto"
    """The client's stay; ours are added beside them, up to the provider's limit."""
    STRIP = "strip"
    """The client's are taken out, and ours placed instead."""


class PlanReason(StrEnum):
    """Why a request got the markers that it got. For header, span, metric, log, `explain`."""

    PLACED = "placed"
    """Markers were added."""
    IMPLICIT = "implicit"
    """The provider writes the end of the prompt by itself, and is left to: that pays."""
    NOTHING_RECURS = "nothing-recurs"
    """No boundary is likely enough to be read again within a lifetime."""
    TOO_SHORT = "too-short"
    """The prompt is below the model's minimum."""
    CLIENT_MARKS = "client-marks"
    """The client's own markers are enough, or are to be left alone."""
    UNKNOWN_MODEL = "unknown-model"
    """No documented rules for this provider and model."""
    NO_MARKERS = "no-markers"
    """The provider caches by itself and takes no markers."""
    OFF = "off"
    NO_TRANSFORM = "no-transform"
    SIGNED = "signed"
    NOT_UNDERSTOOD = "not-understood"
    WITHDRAWN = "withdrawn"
    """What we marked before was not read: no more until something else is learned."""
    REFUSED = "refused"
    """The provider refused what we added: nothing is added for a while."""
    FAILED = "failed"
    """Planning failed; the request went as it came."""


class Mark(NamedTuple):
    """One marker of ours."""

    block: int
    """Index into the prompt's blocks. A piece (`until` > 0) means: split the text there."""
    ttl_s: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to change in a request for its provider's prompt cache."""

    reason: PlanReason
    marks: tuple[Mark, ...] = ()
    """In rendering order; never where the client's marker stays."""
    splits: tuple[int, ...] = ()
    """Pieces after which a text is split though no marker stands there in this turn, because the
    conversation was begun so."""
    strips: bool = False
    """The client's markers are taken out first."""
    mode: str = ""
    """OpenAI's `prompt_cache_options.mode` to set: `explicit`, `implicit`; empty leaves it."""
    cache_key: str = ""
    """OpenAI's `prompt_cache_key` to set; empty leaves it."""
    read_tokens: int = 0
    """Expected to be read, estimated."""
    write_tokens: int = 0
    """Expected to be written, estimated."""

    @property
    def changes(self) -> bool:
        """Is there anything to change in the body?"""
        return bool(self.marks or self.splits or self.strips or self.mode or self.cache_key)

"""What a provider's own diagnostics say beside what we think: `diagnosed`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.core.miss import Miss, MissCause

if TYPE_CHECKING:
    from gateway.core.miss import CacheOutcome

KINDS = frozenset(
    {
        *("model_changed", "system_changed", "tools_changed", "messages_changed"),
        *("prompt_cache_key_changed", "service_tier_changed", "text_format_changed"),
        *("reasoning_effort_changed", "verbosity_changed", "context_compacted", "input_changed"),
    }
)
"""What Anthropic and OpenAI document; only these are told as the kind of a miss."""


class Diagnosis(NamedTuple):
    """The provider's word."""

    reason: str
    """In the provider's own words: `tools_changed`, `previous_message_not_found`, ..."""
    lost_tokens: int
    """That it says were missed; 0 where it doesn't."""


def diagnosed(outcome: CacheOutcome, said: Diagnosis | None) -> Miss | None:
    """Why the cache gave less: as the provider says, where that is another reason than ours.

    It compares with one request that the client has named, we with all that we know: that it names
    a change where we do is agreement, whatever it was; a word that names no change says nothing.
    """
    ours = outcome.miss
    if said is None or said.reason not in KINDS:
        return ours
    if ours is None and not said.lost_tokens:
        return None
    if ours is not None and ours.cause is MissCause.PREFIX_CHANGED:
        return ours
    return Miss(
        MissCause.PROVIDER, said.lost_tokens or (ours.lost_tokens if ours else 0), kind=said.reason
    )

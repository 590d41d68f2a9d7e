"""The earlier prompt that is likest to one which is only looked at: `nearest`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xxhash import xxh3_64_intdigest

from gateway.core.lineup import lineup
from gateway.core.prefix import chain, joined
from gateway.providers.prompt_cache import MarkerForm

if TYPE_CHECKING:
    from gateway.core.neighbours import Difference, Neighbours
    from gateway.core.prefix import CachePrompt
    from gateway.providers.prompt_cache import CacheRules


def nearest(
    neighbours: Neighbours,
    owner: bytes,
    asker: bytes,
    prompt: CachePrompt,
    rules: CacheRules,
) -> Difference | None:
    """Where the likest earlier prompt of that owner and asker (as `core.foresight` names them) parts from this
    one. Nothing is remembered of it, and nothing counts as used.
    """
    key = prompt.client_key if rules.form is MarkerForm.BREAKPOINT else ""
    whose = joined(xxh3_64_intdigest(owner), xxh3_64_intdigest(prompt.api.encode()))
    line = lineup(prompt, chain(prompt), key)
    return neighbours.find((whose, prompt.api, asker), prompt, line, rules.minimum_tokens)

"""Does an answer say how much of its prompt was read from a cache, were it nothing? `tells_reads`.

Rule 1: silence is not zero. Who can't count says nothing, and some say nothing where there is nothing.
Rule 2: it is looked for where usage stands, at both ends of an answer, so that no answer takes long.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.core.model import Answer

_HEAD_BYTES, _TAIL_BYTES = 16 * 1024, 32 * 1024
# Within a text of the answer their quotes would be escaped.
_COUNT = re.compile(
    rb'"(?:cached_tokens|prompt_cache_hit_tokens|cache_read_input_tokens|cacheReadInputTokens'
    rb'|cachedContentTokenCount|cache_n)"\s*:\s*\d'
)


def tells_reads(answer: Answer) -> bool:
    """True where it states a count. Never raises."""
    said = answer.payload
    tail = max(0, len(said) - _TAIL_BYTES)
    return bool(_COUNT.search(said, tail) or (tail and _COUNT.search(said, 0, _HEAD_BYTES)))

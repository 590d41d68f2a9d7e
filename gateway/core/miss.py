"""Why a provider's prompt cache gave less than it could have: data only.

Rule 1: a request misses when less was read than the deepest boundary of its blocks at which an entry
was ever written in this cache; when, that being read, an earlier request parts from it with much
behind that recurs; and when nothing at all was read.
Rule 2: one request has one cause: the one that would have to be mended first.
Rule 3: one cache is that of a credential, an API and a model. Earlier requests count from the first
byte of their answers on; those of other models, too, for what was changed.
Rule 4: who wholly goes on from an earlier request was not changed from one that parts from it before
that one's end: two conversations that read the same file are no change of either.
Rule 5: much is the minimum that a cache keeps, and a quarter of what was not read.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class MissCause(StrEnum):
    """Why. One enum for header, span, metric, log line, ledger and page."""

    COLD = "cold"
    """No earlier request has sent (and had kept) a beginning of this one."""
    TTL_EXPIRED = "ttl_expired"
    """What had been kept was last used longer ago than it lives."""
    PREFIX_CHANGED = "prefix_changed"
    """An earlier request was like this one, but for a change with much behind it that recurs."""
    BELOW_MINIMUM = "below_minimum"
    """The prompt, or what it shares, is shorter than the shortest prefix that is kept."""
    LOOKBACK_EXCEEDED = "lookback_exceeded"
    """What is kept lies further back from the markers than the provider looks."""
    OTHER_BACKEND = "other_backend"
    """Another replica, or another machine of the provider, holds it than the one that was asked."""
    EVICTED = "evicted"
    """It should have been there by the documents and was not: the provider needed the room."""
    PROVIDER = "provider"
    """The provider's own diagnostics say something that none of the others says."""


class Miss(NamedTuple):
    """What was missed, and why."""

    cause: MissCause
    lost_tokens: int
    """Tokens that could have been read and were not; estimated before the answer."""
    path: str = ""
    """`prefix_changed`: JSON path of the first difference: `$.system[0].text`. With
    `below_minimum` and the others it is empty."""
    kind: str = ""
    """`prefix_changed`: what changed there: a kind of volatile text (`timestamp`, `uuid`, ...),
    `tool_order`, `tools`, `tool_choice`, `model`, `system`, `message`, ..."""
    block: int = -1
    """`prefix_changed`: index of the prompt's block, in rendering order; else -1."""
    neighbour: str = ""
    """Our id of the earlier request that it was compared with, where one is known."""
    was_size: int = 0
    """UTF-8 bytes of that block in the earlier request; 0 where it is a setting, or not known."""
    is_size: int = 0
    """The same in this one."""


class CacheOutcome(NamedTuple):
    """What was expected of a provider's prompt cache, and what came. Tokens."""

    expected: int = 0
    """Before the request was sent: estimated to be read."""
    read: int | None = None
    """As the answer says; None before it, and where it doesn't say."""
    written: int | None = None
    miss: Miss | None = None
    """None where all that could be read was."""


def spelled(outcome: CacheOutcome) -> str:
    """In the words of the response header."""
    miss = outcome.miss
    parts = [f"expected={outcome.expected}"]
    if miss is not None:
        parts.append(f"cause={miss.cause.value}")
        parts += [f"path={miss.path}"] if miss.path else []
        parts += [f"kind={miss.kind}"] if miss.kind else []
    return "; ".join(parts)

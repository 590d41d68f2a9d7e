"""Prompts that were sent, watched for what keeps them from beginning alike.

Rule 1: watching comes after the answer: it delays nobody, and never fails anything.
Rule 2: what is counted are places, times and fingerprints of values; no content is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import orjson

from gateway.core.blocks import BYTES_PER_TOKEN, tokens
from gateway.core.sightings import Sightings
from gateway.core.volatile import Confidence, Pace
from gateway.wire.rewriting import Asker
from gateway.wire.system_text import APIS, read_lead, turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.canonical import Json
    from gateway.core.volatile import Sighting
    from gateway.core.volatile_traffic import Seen
    from gateway.turn import Turn
    from gateway.wire.rewriting import Rewriter
    from gateway.wire.system_text import Lead, SystemText

# Longer bodies are not watched: reading one takes milliseconds in which nobody else is served.
_LONGEST_BYTES = 1024 * 1024
# New text that is searched for one request; the rest is searched in the next that has it.
_SEARCHED_CHARACTERS = 4096
# Less than this behind a value is not worth a word in every trace.
_LEAST_TOKENS = 64


class Noticed(NamedTuple):
    """What a trace says of the volatile text that costs most in a request."""

    path: str
    kind: str
    tokens_behind: int
    lost_per_day: int
    """Tokens, as `core.volatile_traffic` counts them."""


class Watching:
    """Counts what the system texts of requests hold that changes."""

    def __init__(self, rewriter: Rewriter, timer: Callable[[], float]) -> None:
        """What is counted goes to the rewriter's traffic; `timer` gives monotonic seconds."""
        self._rewriter = rewriter
        self._find = Sightings(searched_characters=_SEARCHED_CHARACTERS).find
        self._timer = timer

    def watch(self, turn: Turn, domain: bytes, sent: bytes | None = None) -> Noticed | None:
        """Count what the turn's request shows, as the client sent it; what to tell of it, if
        anything. `domain` is that of the provider's cache; `sent` is the body that went out
        rewritten: what is not in its system texts any more costs nothing.
        """
        if turn.api.name not in APIS or len(turn.body) > _LONGEST_BYTES:
            return None
        document: Json = orjson.loads(turn.body)
        if not isinstance(document, dict):
            return None
        api = turn.api.name
        lead = read_lead(api, document)
        asker = Asker(api, domain, turn.known.endpoint.name, turn.asked.path)
        seen = self._rewriter.seen(lead, asker, Behind(api, document, lead), self._find)
        if sent is not None:
            left = "\n".join(each.text for each in read_lead(api, orjson.loads(sent)).texts)
            seen = [s if s.value in left else s._replace(tokens_behind=0) for s in seen]
        now = self._timer()
        self._rewriter.traffic.count(seen, now)
        noticed = next((each for each in seen if self._is_telling(each)), None)
        if noticed is None:
            return None
        tally = self._rewriter.traffic.tally(noticed.place)
        lost = 0 if tally is None else round(tally.tokens_lost_per_day(now))
        place = noticed.place
        return Noticed(place.path, place.kind.value, noticed.tokens_behind, lost)

    def _is_telling(self, seen: Seen) -> bool:
        """Much stands behind it, and it was seen to change, or is sure to."""
        if seen.tokens_behind < _LEAST_TOKENS:
            return False
        tally = self._rewriter.traffic.tally(seen.place)
        if tally is None or tally.requests == 1:
            return seen.sighting.confidence is Confidence.SURE
        return tally.changes > 0


class Behind:
    """How much stands behind a sighting that a provider's cache could give back: the rest of the
    system texts; of what changes with each request also the conversation up to the model's last
    answer, which earlier turns have sent. Tokens, estimated from bytes.
    """

    def __init__(self, api: str, document: dict[str, Json], lead: Lead) -> None:
        self._lead = lead
        self._api = api
        self._document = document
        self._history: int | None = None

    def __call__(self, text: SystemText, sighting: Sighting) -> int:
        """Of this sighting in this text of the lead."""
        at = self._lead.texts.index(text)
        count = tokens(text.text[sighting.end :])
        count += sum(tokens(later.text) for later in self._lead.texts[at + 1 :])
        if sighting.pace is Pace.REQUEST:
            if self._history is None:
                self._history = self._measured()
            count += self._history
        return count

    def _measured(self) -> int:
        said = turns(self._api, self._document)
        spoke = [
            n for n, m in enumerate(said) if isinstance(m, dict) and m.get("role") == "assistant"
        ]
        return len(orjson.dumps(said[: spoke[-1] + 1])) // BYTES_PER_TOKEN if spoke else 0

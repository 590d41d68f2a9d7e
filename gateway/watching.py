"""Prompts that were sent, watched for what keeps them from beginning alike.

Rule 1: watching comes after the answer: it delays nobody, and never fails anything.
Rule 2: what is counted are places, times and fingerprints of values; no content is kept.
Rule 3: a body that nobody has read for another reason is read here only as often as costs a
hundredth of the time.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import orjson

from gateway.core.blocks import BYTES_PER_TOKEN, Section, tokens
from gateway.core.sightings import Effort, Sightings
from gateway.core.volatile import Confidence, Pace
from gateway.wire.rewriting import Asker
from gateway.wire.system_text import APIS, read_lead, turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.canonical import Json
    from gateway.core.prefix import CachePrompt
    from gateway.core.volatile import Sighting
    from gateway.core.volatile_traffic import Seen
    from gateway.turn import Turn
    from gateway.wire.rewriting import Rewriter
    from gateway.wire.system_text import Lead, SystemText

# Longer bodies are not watched: reading one takes milliseconds in which nobody else is served.
_LONGEST_BYTES = 1024 * 1024
# How long a body that had to be read for this alone is the last: so many times as long as it took.
_REST = 100
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
        self._sightings = Sightings()
        self._timer = timer
        self._rests_until = float("-inf")

    def watch(
        self,
        turn: Turn,
        domain: Callable[[], bytes],
        sent: bytes | None = None,
        lead: Lead | None = None,
        prompt: CachePrompt | None = None,
    ) -> Noticed | None:
        """Count what the turn's request shows, as the client sent it; what to tell of it, if
        anything. `domain` gives that of the provider's cache; `sent` is the body that went out
        rewritten: what is not in its system texts any more costs nothing. `lead` and `prompt` are
        what was read of the request, if it was.
        """
        api = turn.api.name
        # (What recognition can't read, this can't either: it may be encoded.)
        if api not in APIS or len(turn.body) > _LONGEST_BYTES or turn.known.ask is None:
            return None
        if lead is not None and prompt is not None:
            said = prompt
            return self._count(turn, domain(), sent, lead, lambda: _history(said))
        began = self._timer()
        if began < self._rests_until:
            return None
        document: Json = orjson.loads(turn.body)
        if not isinstance(document, dict):
            return None
        lead = read_lead(api, document)
        noticed = self._count(turn, domain(), sent, lead, lambda: measured(api, document))
        ended = self._timer()
        self._rests_until = ended + _REST * (ended - began)
        return noticed

    def _count(
        self,
        turn: Turn,
        domain: bytes,
        sent: bytes | None,
        lead: Lead,
        history: Callable[[], int],
    ) -> Noticed | None:
        api = turn.api.name
        asker = Asker(api, domain, turn.known.endpoint.name, turn.asked.path)
        # New text beyond it is searched in the next request that has it.
        effort = Effort()
        seen = self._rewriter.seen(
            lead,
            asker,
            Behind(lead, history),
            lambda text: self._sightings.find(text, effort),
        )
        if not seen:
            return None
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

    def __init__(self, lead: Lead, history: Callable[[], int]) -> None:
        """`history` gives the tokens up to the model's last answer; it is asked once at most."""
        self._lead = lead
        self._measure = history
        self._history: int | None = None
        self._later: list[int] = []
        """Behind each text; measured once."""

    def __call__(self, text: SystemText, sighting: Sighting) -> int:
        """Of this sighting in this text of the lead."""
        if not self._later:
            sizes = [tokens(each.text) for each in self._lead.texts]
            self._later = [sum(sizes) - until for until in accumulate(sizes)]
        count = tokens_behind(text.text, sighting.end)
        count += self._later[self._lead.texts.index(text)]
        if sighting.pace is Pace.REQUEST:
            if self._history is None:
                self._history = self._measure()
            count += self._history
        return count


def tokens_behind(text: str, end: int) -> int:
    """As `tokens(text[end:])`, without a copy of a text that is ASCII: it may be asked for a value on
    every line of it.
    """
    if text.isascii():
        return -(-(len(text) - end) // BYTES_PER_TOKEN)
    return tokens(text[end:])


def measured(api: str, document: dict[str, Json]) -> int:
    """Tokens of a conversation up to the model's last answer."""
    said = turns(api, document)
    spoke = [n for n, m in enumerate(said) if isinstance(m, dict) and m.get("role") == "assistant"]
    return len(orjson.dumps(said[: spoke[-1] + 1])) // BYTES_PER_TOKEN if spoke else 0


def _history(prompt: CachePrompt) -> int:
    """The same, of a prompt whose blocks are known."""
    size = upto = 0
    for block in prompt.blocks:
        if block.section is Section.MESSAGES:
            size += block.size
            if block.role == "assistant":
                upto = size
    return upto // BYTES_PER_TOKEN

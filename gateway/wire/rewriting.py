"""A request with what the config asks for rewritten, so that its prefix stays the same: `Rewriter`.

Rule 1: what is decided depends on the tools and system texts of the request (and, for what only
traffic can confirm, on what its conversation was begun with): so it is the same on every turn.
Rule 2: the identity was taken before: a rewrite changes what is asked, never what is remembered.
Rule 3: every character outside of what is changed stays the client's own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from gateway.core.prefix import shown
from gateway.core.rewrites import Case, Hindrance, Rewrite, allowed
from gateway.core.sightings import LONGEST, Sightings
from gateway.core.volatile import Confidence, Kind
from gateway.core.volatile_text import (
    Replacement,
    Value,
    movable,
    moved,
    note,
    rounded,
    without_billing,
)
from gateway.core.volatile_traffic import (
    Place,
    Seen,
    VolatileTraffic,
    all_words_around,
    blanked,
    conversation_of,
)
from gateway.wire import tool_order
from gateway.wire.note_place import note_edit, note_path
from gateway.wire.splice import Edit, applied, without
from gateway.wire.splicing import Located, respelled
from gateway.wire.system_text import APIS, read_lead, thinks

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.canonical import Json
    from gateway.core.prefix import Path
    from gateway.core.volatile import Sighting
    from gateway.wire.prompts import Object
    from gateway.wire.system_text import Lead, SystemText

Confirmed: TypeAlias = "dict[str, set[tuple[Kind, int]]]"
"""By path of a text: which of its likely sightings are confirmed (`volatile_text.movable`)."""

_NO_REWRITE: frozenset[Rewrite] = frozenset()
# A rounded text is looked at again, because a value's label may be nearer now.
_MOST_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What became of a request."""

    body: bytes
    """The client's own object where nothing was made."""
    made: frozenset[Rewrite] = _NO_REWRITE
    """Those that changed something. `core.rewrites.told` makes the header of them."""
    hindrance: Hindrance | None = None
    """Why something that was asked for was not looked at."""
    note: Path | None = None
    """Where the note of `move-volatile` stands, if it is a part of its own."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Where a request goes, as far as traffic is told apart by it."""

    api: str
    """The wire API's name."""
    domain: bytes
    """Of the provider's cache: endpoint and credential."""
    upstream: str
    route: str


class Rewriter:
    """Rewrites requests; remembers what texts hold, and asks `traffic` what is confirmed."""

    def __init__(self, traffic: VolatileTraffic, sightings: Sightings | None = None) -> None:
        self.traffic = traffic
        self.sightings = Sightings() if sightings is None else sightings
        self.sorting = tool_order.ToolSorting()

    def rewrite(
        self, body: bytes, document: Json, case: Case, asker: Asker, now: float
    ) -> Rewritten:
        """The request as it should be sent. `document` is the body, parsed; `now` seconds of any
        monotonic origin. Never raises: what can't be followed in the text is left as it is.
        """
        api = asker.api
        if not case.wanted or api not in APIS or not isinstance(document, dict):
            return Rewritten(body)
        wanted, hindrance = allowed(case, thinks=thinks(api, document))
        if not wanted:
            return Rewritten(body, hindrance=hindrance)
        job = _Job(api, document, wanted, case, self)
        try:
            done = job.done(body, self._confirmed(job, asker, now))
            return replace(done, hindrance=hindrance)
        except (ValueError, LookupError):
            # A member named twice, or a nest too deep to be opened.
            return Rewritten(body, hindrance=Hindrance.NOT_UNDERSTOOD)

    def _confirmed(self, job: _Job, asker: Asker, now: float) -> Confirmed:
        """What traffic has confirmed for this conversation."""
        if Rewrite.MOVE_VOLATILE not in job.wanted:
            return {}
        likely = [
            each
            for each in self.seen(job.lead, asker)
            if each.sighting.confidence is Confidence.LIKELY
        ]
        if not likely:
            return {}
        find = self.sightings.find
        texts = [blanked(each.text, find(each.text)) for each in job.lead.texts]
        chosen = self.traffic.confirmed(
            conversation_of(asker.domain, texts, job.lead.opening),
            likely,
            first_turn=job.lead.is_first_turn,
            now=now,
        )
        counts: Counter[tuple[str, Kind]] = Counter()
        found: Confirmed = {}
        for each in likely:
            path, kind = each.place.path, each.place.kind
            if each.place.words in chosen:
                found.setdefault(path, set()).add((kind, counts[path, kind]))
            counts[path, kind] += 1
        return found

    def seen(
        self,
        lead: Lead,
        asker: Asker,
        behind: Callable[[SystemText, Sighting], int] | None = None,
        find: Callable[[str], list[Sighting]] | None = None,
    ) -> list[Seen]:
        """The volatile text of a request's system texts, guesses left out. `behind` estimates the
        tokens behind a sighting; `find` searches in the place of `sightings.find`.
        """
        find = find or self.sightings.find
        found: list[Seen] = []
        for text in lead.texts:
            sightings = find(text.text)
            words_of = all_words_around(text.text, sightings)
            for each, words in zip(sightings, words_of, strict=True):
                if each.confidence is Confidence.WEAK:
                    continue
                place = Place(
                    asker.domain, asker.upstream, asker.route, shown(text.path), each.kind, words
                )
                value = text.text[each.start : each.end]
                found.append(Seen(place, each, value, behind(text, each) if behind else 0))
        return found


class _Job:
    """One request being rewritten."""

    def __init__(
        self,
        api: str,
        document: Object,
        wanted: frozenset[Rewrite],
        case: Case,
        rewriter: Rewriter,
    ) -> None:
        self.api = api
        self.document = document
        self.wanted = wanted
        self.lead = _searched(read_lead(api, document))
        self._takes_markers = case.rules is not None and case.rules.takes_markers
        self._find = rewriter.sightings.find
        self._sorting = rewriter.sorting
        self._note_path = note_path(api, document)
        rounds = wanted & {Rewrite.ROUND_TIME, Rewrite.ROUND_HOUR}
        self._rounds = next(iter(rounds), None)

    def done(self, body: bytes, confirmed: Confirmed) -> Rewritten:
        """The new body, and what was made."""
        made: set[Rewrite] = set()
        where: Path | None = None
        texts, values = self._texts(confirmed, made)
        schemas: list[Path] = []
        if Rewrite.SORT_SCHEMAS in self.wanted:
            schemas = tool_order.unsorted_schemas(self.api, self.document)
        located = Located(body)
        edits, of_tools = self._sorting.edits(located, self.api, self.document, self.wanted)
        if not edits and not schemas and not texts:
            return Rewritten(body)
        edits += _text_edits(located, texts)
        edits += [tool_order.schema_edit(located, path) for path in schemas]
        made |= of_tools | ({Rewrite.SORT_SCHEMAS} if schemas else set())
        if values and self._note_path is not None:
            edit, where = note_edit(
                located, self._note_path, note(values), in_parts=self._takes_markers
            )
            edits.append(edit)
        return Rewritten(applied(body, sorted(edits)), frozenset(made), note=where)

    def _texts(self, confirmed: Confirmed, made: set[Rewrite]) -> tuple[list[_Change], list[Value]]:
        """The texts that change, and what was taken out of them."""
        changes: list[_Change] = []
        values: list[Value] = []
        counts: Counter[Kind] = Counter()
        for path, text in self.lead.texts:
            steps: list[list[Replacement]] = []
            left = without_billing(text) if Rewrite.STRIP_BILLING in self.wanted else None
            if left is not None:
                made.add(Rewrite.STRIP_BILLING)
                if not left.strip():
                    changes.append(_Change(path, None))
                    continue
                steps.append([Replacement(0, len(text) - len(left), "")])
                text = left  # noqa: PLW2901 - step by step
            text = self._rounded(text, steps, made)  # noqa: PLW2901 - step by step
            if Rewrite.MOVE_VOLATILE in self.wanted and self._note_path is not None:
                chosen = movable(
                    text,
                    self._find(text),
                    confirmed.get(shown(path), ()),
                    times=self._rounds is None,
                )
                if chosen:
                    made.add(Rewrite.MOVE_VOLATILE)
                    step, taken = moved(text, chosen, counts)
                    steps.append(step)
                    values += taken
            if steps:
                changes.append(_Change(path, steps))
        return changes, values

    def _rounded(self, text: str, steps: list[list[Replacement]], made: set[Rewrite]) -> str:
        if self._rounds is None:
            return text
        for _ in range(_MOST_ROUNDS):
            step = rounded(text, self._find(text), to_hour=self._rounds is Rewrite.ROUND_HOUR)
            if not step:
                break
            made.add(self._rounds)
            steps.append(step)
            text = _applied(text, step)
        return text


def _searched(lead: Lead) -> Lead:
    """With those of its texts that are searched: together as long as the longest one may be."""
    until = accumulate(len(each.text) for each in lead.texts[1:])
    few = 1 + sum(1 for characters in until if characters <= LONGEST)
    return lead._replace(texts=lead.texts[:few])


class _Change(NamedTuple):
    """One system text that changes."""

    path: Path
    steps: list[list[Replacement]] | None
    """Replacements, each round in the text that the one before left; None: the text goes."""


def _text_edits(located: Located, changes: list[_Change]) -> list[Edit]:
    edits: list[Edit] = []
    going: set[Path] = set()
    for path, steps in changes:
        if steps is None:
            going.add(path[:-1] if path[-1] in {"text", "content"} else path)
            continue
        part = located.part(path)
        literal = located.spelled(part)
        for step in steps:
            literal = respelled(literal, step)
        edits.append(Edit(part.value, part.end, literal))
    for owner in sorted({path[:-1] for path in going}, key=len, reverse=True):
        # What is left empty goes, too: an empty list of texts is refused in many places.
        whole = owner[:-1] if owner and owner[-1] == "content" else owner
        count = len(located.parts(located.part(owner)))
        if whole and {(*owner, index) for index in range(count)} <= going:
            going = {path for path in going if path[:-1] != owner} | {whole}
    for owner in {path[:-1] for path in going}:
        parts = located.parts(located.part(owner))
        gone = [(*owner, part.step) in going for part in parts]
        edits += without([(part.start, part.end) for part in parts], gone)
    return edits


def _applied(text: str, step: list[Replacement]) -> str:
    parts: list[str] = []
    at = 0
    for start, end, new in step:
        parts += (text[at:start], new)
        at = end
    return "".join((*parts, text[at:]))

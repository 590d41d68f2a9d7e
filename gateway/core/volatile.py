"""What in a text is likely to be different the next time: `find`.

Rule 1: a value alone proves little (`2024-05-15` may be a holiday, a UUID a fixed collection); what
stands before it does (`Current time:`, `request id`). So each pattern finds values, and the words
before a value say how sure we are.
Rule 2: examples and formats are not volatile: what stands in `<example>`, below a heading with
"example" or behind "e.g." counts for nothing by itself.
Rule 3: linear time. Every gap in a pattern is bounded, nothing unbounded is nested.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, NamedTuple

from gateway.core import volatile_patterns as patterns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Kind(StrEnum):
    """What a volatile piece of text is."""

    TIMESTAMP = "timestamp"
    DATE = "date"
    UUID = "uuid"
    ID = "id"
    COUNTER = "counter"
    SEED = "random"
    TEMP_PATH = "temp-path"
    PROCESS = "process"
    GIT = "git"
    ENVIRONMENT = "environment"
    BILLING_HEADER = "billing-header"


class Pace(IntEnum):
    """How often it changes."""

    DAY = 1
    SESSION = 2
    """With every user, machine or conversation."""
    REQUEST = 3


class Confidence(IntEnum):
    """How sure a text alone can make us."""

    WEAK = 1
    """Enough to name a change that was seen, not to suspect one."""
    LIKELY = 2
    SURE = 3


@dataclass(frozen=True, slots=True)
class Sighting:
    """A piece of text that looks volatile: `text[start:end]`."""

    kind: Kind
    pace: Pace
    confidence: Confidence
    start: int
    end: int


def find(text: str) -> list[Sighting]:
    """The volatile pieces of a text, in order, none overlapping another. Never raises."""
    examples = _example_spans(text)
    found = sorted(
        (_doubted(s, text, examples) for detect in _DETECTORS for s in detect(text)),
        key=lambda s: (s.start, -s.confidence, -s.end),
    )
    kept: list[Sighting] = []
    for sighting in found:
        if not kept or sighting.start >= kept[-1].end:
            kept.append(sighting)
        elif _weight(sighting) > _weight(kept[-1]):
            kept[-1] = sighting
    return kept


def _weight(sighting: Sighting) -> tuple[int, int]:
    return sighting.confidence, sighting.end - sighting.start


class _Span(NamedTuple):
    start: int
    end: int


def _example_spans(text: str) -> list[_Span]:
    """Where examples stand: inside `<example>`, and below a heading that says so."""
    spans: list[_Span] = []
    opened: int | None = None
    for match in patterns.EXAMPLE_EDGE.finditer(text):
        starts = match["open"] is not None or match["example_heading"] is not None
        if starts and opened is None:
            opened = match.start()
        elif not starts and opened is not None:
            spans.append(_Span(opened, match.start()))
            opened = None
    if opened is not None:
        spans.append(_Span(opened, len(text)))
    return spans


def _doubted(sighting: Sighting, text: str, examples: list[_Span]) -> Sighting:
    if sighting.kind is Kind.BILLING_HEADER:
        return sighting
    before = text[max(0, sighting.start - patterns.EXAMPLE_REACH) : sighting.start]
    line = before.rpartition("\n")[2]
    if patterns.EXAMPLE_WORD.search(line) or _inside(sighting.start, examples):
        return replace(sighting, confidence=Confidence.WEAK)
    return sighting


def _inside(position: int, spans: list[_Span]) -> bool:
    at = bisect_right(spans, position, key=lambda span: span.start) - 1
    return at >= 0 and position < spans[at].end


def _label(text: str, start: int) -> str:
    """What stands before a position on its line, as far as a label may reach; at the beginning of
    a line, the heading above it.
    """
    above, _, line = text[max(0, start - patterns.LABEL_REACH) : start].rpartition("\n")
    return line if line.strip() else above.rstrip().rpartition("\n")[2]


def _moments(text: str) -> Iterator[Sighting]:
    """Timestamps, then the dates that are no part of one, then times of day."""
    taken = 0
    stamps = patterns.TIMESTAMP.finditer(text)
    stamp = next(stamps, None)
    for match in patterns.DATE.finditer(text):
        while stamp is not None and stamp.start() <= match.start():
            yield Sighting(
                Kind.TIMESTAMP, Pace.REQUEST, _stamp_confidence(text, stamp), *stamp.span()
            )
            taken = stamp.end()
            stamp = next(stamps, None)
        if match.start() >= taken:
            label = _label(text, match.start())
            sure = patterns.NOW_LABEL.search(label) or patterns.DATE_KEY.search(label)
            confidence = Confidence.SURE if sure else Confidence.WEAK
            yield Sighting(Kind.DATE, Pace.DAY, confidence, *match.span())
    while stamp is not None:
        yield Sighting(Kind.TIMESTAMP, Pace.REQUEST, _stamp_confidence(text, stamp), *stamp.span())
        stamp = next(stamps, None)
    for match in patterns.CLOCK_TIME.finditer(text):
        if patterns.NOW_LABEL.search(_label(text, match.start())):
            yield Sighting(Kind.TIMESTAMP, Pace.REQUEST, Confidence.SURE, *match.span())


def _stamp_confidence(text: str, match: re.Match[str]) -> Confidence:
    label = _label(text, match.start())
    if any(known.search(label) for known in patterns.STAMP_LABELS):
        return Confidence.SURE
    # On a line of its own or in brackets at its beginning: written by a program, not an author.
    before = text[max(0, match.start() - 8) : match.start()]
    is_first = "\n" in before or len(before) == match.start()
    if is_first and not before.rpartition("\n")[2].strip(" \t[("):
        after = text[match.end() : match.end() + 2].strip(" \t")
        if not after or after[0] in "\r\n])":
            return Confidence.SURE if match.start() <= 1 else Confidence.LIKELY
    return Confidence.LIKELY if patterns.CHANGED_LABEL.search(label) else Confidence.WEAK


def _epochs(text: str) -> Iterator[Sighting]:
    for match in patterns.EPOCH.finditer(text):
        label = _label(text, match.start())
        if patterns.NOW_LABEL.search(label) or patterns.EPOCH_KEY.search(label):
            sure = Confidence.SURE
        else:
            sure = Confidence.WEAK
        yield Sighting(Kind.TIMESTAMP, Pace.REQUEST, sure, *match.span())


def _uuids(text: str) -> Iterator[Sighting]:
    for match in patterns.UUID.finditer(text):
        digits = match[0].replace("-", "").lower()
        if len(set(digits)) < _DIGITS_OF_A_REAL_UUID or match[0].lower() in patterns.MODEL_UUIDS:
            continue
        label = _label(text, match.start())
        pace, sure = _id_label(label)
        if patterns.REQUEST_LABEL.search(label):
            pace, sure = Pace.REQUEST, Confidence.SURE
        elif patterns.SESSION_LABEL.search(label):
            sure = Confidence.SURE
        sure = max(sure, Confidence.LIKELY)
        yield Sighting(Kind.UUID, pace, sure, *match.span())


# A random one with fewer different digits than this comes once in some millions.
_DIGITS_OF_A_REAL_UUID = 8


def _id_label(label: str) -> tuple[Pace, Confidence]:
    if patterns.REQUEST_ID_LABEL.search(label):
        return Pace.REQUEST, Confidence.SURE
    if patterns.SESSION_ID_LABEL.search(label):
        return Pace.SESSION, Confidence.SURE
    if patterns.OWNER_ID_LABEL.search(label):
        return Pace.SESSION, Confidence.LIKELY
    return Pace.SESSION, Confidence.WEAK


def _ids(text: str) -> Iterator[Sighting]:
    for match in patterns.PREFIXED_ID.finditer(text):
        if looks_random(match["random"]):
            # The others are what providers' own documentation shows.
            sure = Confidence.LIKELY if match["ours"] is None else Confidence.SURE
            yield Sighting(Kind.ID, Pace.REQUEST, sure, *match.span())
    for match in patterns.TOKEN.finditer(text):
        label = _label(text, match.start())
        pace, sure = _id_label(label)
        if patterns.RANDOM_LABEL.search(label):
            yield Sighting(Kind.SEED, Pace.REQUEST, Confidence.SURE, *match.span())
        elif sure > Confidence.WEAK and (match[0].isdigit() or looks_random(match[0])):
            yield Sighting(Kind.ID, pace, sure, *match.span())
        elif patterns.COMMIT_LABEL.search(label) and patterns.HEX.fullmatch(match[0]):
            yield Sighting(Kind.GIT, Pace.SESSION, Confidence.SURE, *match.span())
        elif len(match[0]) >= _LONG_TOKEN and looks_random(match[0]):
            yield Sighting(Kind.ID, Pace.SESSION, Confidence.WEAK, *match.span())


_LONG_TOKEN = 16


def looks_random(token: str) -> bool:
    """Is it made by a machine? Letters and digits take turns in it, as in no word."""
    kinds = ["d" if c.isdigit() else "u" if c.isupper() else "l" for c in token if c.isalnum()]
    turns = sum(1 for one, other in itertools.pairwise(kinds) if one != other)
    return "d" in kinds and turns >= 2


def _counters(text: str) -> Iterator[Sighting]:
    for match in patterns.COUNTER.finditer(text):
        yield Sighting(Kind.COUNTER, Pace.REQUEST, Confidence.SURE, *match.span())


def _temporary(text: str) -> Iterator[Sighting]:
    for match in patterns.TEMP_PATH.finditer(text):
        if match["mac"] is not None or looks_random(match["random"] or ""):
            yield Sighting(Kind.TEMP_PATH, Pace.SESSION, Confidence.SURE, *match.span())
        elif any(c.isdigit() for c in match["random"] or ""):
            yield Sighting(Kind.TEMP_PATH, Pace.SESSION, Confidence.LIKELY, *match.span())


def _places(text: str) -> Iterator[Sighting]:
    for match in patterns.PROCESS.finditer(text):
        yield Sighting(Kind.PROCESS, Pace.SESSION, Confidence.SURE, *match.span())
    for match in patterns.DIRECTORY.finditer(text):
        group = "value" if match["value"] is not None else "host"
        yield Sighting(Kind.ENVIRONMENT, Pace.SESSION, Confidence.SURE, *match.span(group))
    for match in patterns.GIT_STATUS.finditer(text):
        yield Sighting(Kind.GIT, Pace.SESSION, Confidence.SURE, *match.span())


def _billing(text: str) -> Iterator[Sighting]:
    for match in patterns.BILLING_HEADER.finditer(text):
        yield Sighting(Kind.BILLING_HEADER, Pace.REQUEST, Confidence.SURE, *match.span())


def _placeholders(text: str) -> Iterator[Sighting]:
    for match in patterns.PLACEHOLDER.finditer(text):
        name = re.sub(r"[^a-z]", "", match["name"].lower())
        for words, kind, pace in _PLACEHOLDERS:
            if words.fullmatch(name):
                yield Sighting(kind, pace, Confidence.SURE, *match.span())
                break
    for match in patterns.BRACED.finditer(text):
        if patterns.NOW_LABEL.search(_label(text, match.start())):
            day = "date" in match[0].lower() and "time" not in match[0].lower()
            kind, pace = (Kind.DATE, Pace.DAY) if day else (Kind.TIMESTAMP, Pace.REQUEST)
            yield Sighting(kind, pace, Confidence.SURE, *match.span())


_PLACEHOLDERS = (
    (
        re.compile(
            r"(?:date(?:time)?){0,2}(?:utc)?now|time(?:utc)?now|(?:current|system|local|utc)?(?:timestamp|datetime|time)|current(?:date|day)time"
        ),
        Kind.TIMESTAMP,
        Pace.REQUEST,
    ),
    (re.compile(r"(?:current|todays?)date|today|date"), Kind.DATE, Pace.DAY),
    (re.compile(r"uuid|uuidv?|randomuuid|guid"), Kind.UUID, Pace.REQUEST),
    (
        re.compile(r"(?:request|req|trace|span|correlation|message|run|call)(?:id|uuid)"),
        Kind.ID,
        Pace.REQUEST,
    ),
    (re.compile(r"(?:session|conversation|thread|chat)(?:id|uuid)"), Kind.ID, Pace.SESSION),
    (re.compile(r"nonce|random\w*|seed|salt"), Kind.SEED, Pace.REQUEST),
    (
        re.compile(r"(?:turn|request|iteration|message)?(?:counter|count)|turn(?:number)?"),
        Kind.COUNTER,
        Pace.REQUEST,
    ),
    (re.compile(r"(?:cwd|pwd|workingdirectory|workdir|hostname)"), Kind.ENVIRONMENT, Pace.SESSION),
    (re.compile(r"git(?:status|branch|sha|commit)"), Kind.GIT, Pace.SESSION),
)

_DETECTORS: tuple[Callable[[str], Iterator[Sighting]], ...] = (
    _moments,
    _epochs,
    _uuids,
    _ids,
    _counters,
    _temporary,
    _places,
    _billing,
    _placeholders,
)

"""Volatile values out of a text: rounded in place, or replaced by a name and said elsewhere.

Rule 1: what stands in a value's place depends on its kind and on how many of that kind stand
before it, never on the value: so the text is the same in every request.
Rule 2: nothing gets lost: a value that is taken out of the text stands in the note.
Rule 3: a text that went through here is left as it is: it names a note already.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.volatile import Confidence, Kind, Sighting

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

NOTE_TAG = "context-values"
NOTE_START = (
    f"<{NOTE_TAG}>\nWhat the instructions above name, as of now. Not written by the user.\n"
)
_NOTE_END = f"</{NOTE_TAG}>"
_IN_PLACE = f"see {NOTE_TAG} at the end)"

MOVABLE = frozenset({Kind.TIMESTAMP, Kind.DATE, Kind.UUID, Kind.ID, Kind.COUNTER, Kind.SEED})
"""Values that mean the same wherever they stand. Where the user works (directory, branch, host, temporary files) is
not among them: it changes rarely, and instructions go by it."""

_TIMES = frozenset({Kind.TIMESTAMP, Kind.DATE})


class Replacement(NamedTuple):
    """`text[start:end]` is to be spelled anew."""

    start: int
    end: int
    text: str


class Value(NamedTuple):
    """One value that was taken out of a text."""

    name: str
    """What stands for it: `timestamp-1`."""
    text: str


def is_certain(sighting: Sighting) -> bool:
    """Is a pattern alone enough to act on it?"""
    return sighting.confidence is Confidence.SURE


def movable(
    text: str,
    sightings: Iterable[Sighting],
    confirmed: Collection[tuple[Kind, int]],
    *,
    times: bool = True,
) -> list[Sighting]:
    """The sightings that `moved` may take out, in order. `times`: moments and dates among them.
    `confirmed`: of those that are merely likely the kind, and how many likely ones of that kind
    stand before it.
    """
    if _IN_PLACE in text:
        return []
    found: list[Sighting] = []
    likely: Counter[Kind] = Counter()
    for each in sightings:
        sure = is_certain(each)
        if each.confidence is Confidence.LIKELY:
            sure = (each.kind, likely[each.kind]) in confirmed
            likely[each.kind] += 1
        spelled = text[each.start : each.end]
        moves = times or each.kind not in _TIMES or is_bare_clock(spelled)
        if sure and moves and each.kind in MOVABLE and not _is_placeholder(spelled):
            found.append(each)
    return found


def moved(
    text: str, sightings: Sequence[Sighting], counts: Counter[Kind]
) -> tuple[list[Replacement], list[Value]]:
    """Names in the place of these sightings, and what they stand for. `counts` goes on from one
    text of a request to the next, so that no name stands for two values.
    """
    replacements: list[Replacement] = []
    values: list[Value] = []
    for each in sightings:
        counts[each.kind] += 1
        name = f"{each.kind.value}-{counts[each.kind]}"
        replacements.append(Replacement(each.start, each.end, f"({name}, {_IN_PLACE}"))
        values.append(Value(name, text[each.start : each.end]))
    return replacements, values


def note(values: Sequence[Value]) -> str:
    """What is said at the end of the prompt: each name with its value, one on a line."""
    lines = "".join(f"{name}: {' '.join(text.split())}\n" for name, text in values)
    return f"{NOTE_START}{lines}{_NOTE_END}"


def is_note(text: str) -> bool:
    """Is it (or does it end in) what `note` makes? It is another one in each request."""
    return text.endswith(_NOTE_END) and NOTE_START in text


def rounded(
    text: str, sightings: Iterable[Sighting], *, to_hour: bool = False
) -> list[Replacement]:
    """The certain moments of a text without their time of day (or what is below the hour of it).

    `2025-11-20T23:33:50Z` becomes `2025-11-20` (`2025-11-20T23:00Z`), never a midnight that
    nobody meant. Seconds since 1970 are a number and stay one, rounded down (UTC).
    """
    found: list[Replacement] = []
    for each in sightings:
        if each.kind is not Kind.TIMESTAMP or not is_certain(each):
            continue
        spelled = text[each.start : each.end]
        coarse = _coarse(spelled, to_hour=to_hour)
        if coarse != spelled:
            found.append(Replacement(each.start, each.end, coarse))
    return found


_CLOCK = re.compile(
    r"(?P<gap>T|,? at |[,-] ?| )?(?<!\d)(?P<hour>[0-2]?\d):[0-5]\d(?::[0-5]\d(?:[.,]\d{1,9})?)?"
    r"(?P<half> ?[AaPp]\.?[Mm]\b\.?)?(?P<zone> ?(?:Z\b|[+-]\d\d:?\d\d\b"
    r"|(?:UTC|GMT|CET|CEST|EST|EDT|CST|CDT|MST|MDT|PST|PDT|BST|IST|JST)\b(?:[+-]\d{1,4})?))?"
)
_BASIC = re.compile(r"(?<=\d)T(?P<hour>[0-2]\d)[0-5]\d(?:[0-5]\d)?(?P<zone>Z|[+-]\d\d:?\d\d)?$")
_NUMBER = re.compile(r"(?P<whole>\d{10}|\d{13}|\d{19})(?:\.\d+)?")
_DAY_S, _HOUR_S = 86_400, 3_600
_SECONDS_DIGITS = 10


def _coarse(spelled: str, *, to_hour: bool) -> str:
    number = _NUMBER.fullmatch(spelled)
    if number is not None:
        scale = 10 ** (len(number["whole"]) - _SECONDS_DIGITS)
        step = (_HOUR_S if to_hour else _DAY_S) * scale
        return str(int(number["whole"]) // step * step)
    basic = _BASIC.search(spelled)
    if basic is not None:
        kept = f"T{basic['hour']}00{basic['zone'] or ''}" if to_hour else ""
        return spelled[: basic.start()] + kept
    clock = _CLOCK.search(spelled)
    if clock is None:
        return spelled
    before, after = spelled[: clock.start()], spelled[clock.end() :]
    if to_hour:
        half, zone = clock["half"] or "", clock["zone"] or ""
        return f"{before}{clock['gap'] or ''}{clock['hour']}:00{half}{zone}{after}"
    # A time of day alone has no day to be rounded to.
    return f"{before}{after}" if before.strip() else spelled


def is_bare_clock(spelled: str) -> bool:
    """Is it a time of day without a day?"""
    clock = _CLOCK.match(spelled)
    return clock is not None and clock.end() == len(spelled)


def _is_placeholder(spelled: str) -> bool:
    # `{{ now }}`: a template that nobody filled in is the same text each time.
    return spelled.startswith(("{", "${", "<%"))


BILLING_START = "x-anthropic-billing-header:"


def without_billing(text: str) -> str | None:
    """The text without Claude Code's billing line at its beginning; None without one."""
    if not text.lstrip().startswith(BILLING_START):
        return None
    return text.lstrip().partition("\n")[2]

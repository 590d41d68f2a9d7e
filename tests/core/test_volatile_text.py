"""Volatile values rounded in place, or taken out of a text and noted."""

from __future__ import annotations

from collections import Counter

import pytest

from gateway.core.volatile import Kind, find
from gateway.core.volatile_text import (
    Replacement,
    is_note,
    movable,
    moved,
    note,
    rounded,
    without_billing,
)


def applied(text: str, step: list[Replacement]) -> str:
    for start, end, new in reversed(step):
        text = text[:start] + new + text[end:]
    return text


@pytest.mark.parametrize(
    ("value", "day", "hour"),
    [
        ("2026-11-22T10:33:50Z", "2026-11-22", "2026-11-22T10:00Z"),
        ("2026-11-22T10:33:50.123+01:00", "2026-11-22", "2026-11-22T10:00+01:00"),
        ("2026-11-22 10:33 UTC", "2026-11-22", "2026-11-22 10:00 UTC"),
        ("20261122T103350Z", "20261122", "20261122T1000Z"),
        ("Sun Nov 22 10:33:50 UTC 2026", "Sun Nov 22 2026", "Sun Nov 22 10:00 UTC 2026"),
        ("November 22, 2026 at 10:33 PM", "November 22, 2026", "November 22, 2026 at 10:00 PM"),
        ("22/11/2026, 9:33 AM", "22/11/2026", "22/11/2026, 9:00 AM"),
        ("1763807630", "1763769600", "1763805600"),
        ("1763807630123", "1763769600000", "1763805600000"),
        ("10:33 PM", "10:33 PM", "10:00 PM"),
    ],
)
def test_a_moment_is_rounded_by_leaving_out(value: str, day: str, hour: str) -> None:
    text = f"Current time: {value}\nBe brief."
    found = find(text)
    assert [each.kind for each in found] == [Kind.TIMESTAMP]
    assert applied(text, rounded(text, found)) == f"Current time: {day}\nBe brief."
    assert applied(text, rounded(text, found, to_hour=True)) == f"Current time: {hour}\nBe brief."


def test_a_moment_that_may_be_history_is_left_alone() -> None:
    text = "The harbour opened on 2001-05-06 10:00:00 in the rain."
    assert rounded(text, find(text)) == []


def test_values_are_named_by_kind_and_place_and_noted() -> None:
    text = "Today's date: 2026-11-22\nRequest ID: d703a1a9-6bb1-4c8f-9f5e-1a2b3c4d5e6f\nBe brief."
    step, values = moved(text, movable(text, find(text), ()), Counter())
    assert applied(text, step) == (
        "Today's date: (date-1, see context-values at the end)\n"
        "Request ID: (uuid-1, see context-values at the end)\nBe brief."
    )
    said = note(values)
    assert is_note(said)
    assert is_note(f"hello\n\n{said}")
    assert said.splitlines()[2:4] == [
        "date-1: 2026-11-22",
        "uuid-1: d703a1a9-6bb1-4c8f-9f5e-1a2b3c4d5e6f",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Current time: {{ now }}\n",
        "Current working directory: /home/ann/harbour\n",
        "Write times as 2026-11-22T10:00:00Z, e.g. Current time: 2026-11-22T10:00:00Z\n",
        "Today's date: (date-1, see context-values at the end). Now: 1763807630\n",
    ],
)
def test_what_is_no_value_or_was_taken_out_already_stays(text: str) -> None:
    assert movable(text, find(text), ()) == []


def test_with_rounding_only_times_without_a_day_are_moved() -> None:
    text = "Today's date: 2026-11-22\nThe time is 10:33 PM.\nturn: 7\n"
    kinds = [text[s.start : s.end] for s in movable(text, find(text), (), times=False)]
    assert kinds == ["10:33 PM.", "turn: 7"]


def test_what_is_likely_moves_only_when_it_is_confirmed() -> None:
    text = "You are helpful.\n2026-11-22 10:00:00\n2026-11-22 11:00:00\n"
    assert movable(text, find(text), ()) == []
    (only,) = movable(text, find(text), {(Kind.TIMESTAMP, 1)})
    assert text[only.start : only.end] == "2026-11-22 11:00:00"


def test_the_billing_line_is_cut_from_the_head_of_a_text_and_from_nowhere_else() -> None:
    line = "x-anthropic-billing-header: cc_version=2.1.37; cch=00000;"
    assert without_billing(line) == ""
    assert without_billing(f"{line}\nYou are Claude.") == "You are Claude."
    assert without_billing(f"What is {line}?") is None

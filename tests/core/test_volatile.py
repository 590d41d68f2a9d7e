"""What looks volatile in a text, what doesn't, and that looking never takes long."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.volatile import Confidence, Kind, find, looks_random

SURE = {
    "Current time: 2025-11-20T23:33:50.805Z": (Kind.TIMESTAMP, "2025-11-20T23:33:50.805Z"),
    "The current time is 2024-05-15 15:00:00 EST.": (Kind.TIMESTAMP, "2024-05-15 15:00:00 EST"),
    "It is now Thu Nov 20 23:33:50 UTC 2025": (Kind.TIMESTAMP, "Thu Nov 20 23:33:50 UTC 2025"),
    "Current date/time: 11/20/2025, 3:04 PM": (Kind.TIMESTAMP, "11/20/2025, 3:04 PM"),
    "Current time in Berlin: 2025-11-20 10:00": (Kind.TIMESTAMP, "2025-11-20 10:00"),
    "Date: Thu, 20 Nov 2025 23:33:50 +0100": (
        Kind.TIMESTAMP,
        "Thu, 20 Nov 2025 23:33:50 +0100",
    ),
    "Generated at 2025-11-20 23:33:50": (Kind.TIMESTAMP, "2025-11-20 23:33:50"),
    "[2025-11-20 23:33:50] You are": (Kind.TIMESTAMP, "2025-11-20 23:33:50"),
    "# Current Time\n11/20/2025, 3:42:10 PM (UTC+1)": (Kind.TIMESTAMP, "11/20/2025, 3:42:10 PM"),
    "Date/Time: Thu Nov 20 15:42:10 2025": (Kind.TIMESTAMP, "Thu Nov 20 15:42:10 2025"),
    "Timestamp (UTC): 20251120T154210Z": (Kind.TIMESTAMP, "20251120T154210Z"),
    "The time is 15:42.": (Kind.TIMESTAMP, "15:42"),
    "timestamp=1763681581": (Kind.TIMESTAMP, "1763681581"),
    '{"now": 1763681581544}': (Kind.TIMESTAMP, "1763681581544"),
    "Current time: {{ now }}": (Kind.TIMESTAMP, "{{ now }"),
    "The current time is {current_time}.": (Kind.TIMESTAMP, "{current_time}"),
    "${Date.now()}": (Kind.TIMESTAMP, "${Date.now()}"),
    "Today is Thursday, November 20, 2025.": (Kind.DATE, "Thursday, November 20, 2025"),
    "Today's date: 2025-11-20": (Kind.DATE, "2025-11-20"),
    "Today is {{date}}": (Kind.DATE, "{{date}"),
    "Session ID: d703a1a9-1b7b-4fb1-b512-c9738b1fe617": (
        Kind.UUID,
        "d703a1a9-1b7b-4fb1-b512-c9738b1fe617",
    ),
    "request_id: 8471923": (Kind.ID, "8471923"),
    "trace-id: 4bf92f3577b34da6a3ce929d0e0e4736": (Kind.ID, "4bf92f3577b34da6a3ce929d0e0e4736"),
    "as req_011CSHoEeqs5C35K2UUqR7Fy said": (Kind.ID, "req_011CSHoEeqs5C35K2UUqR7Fy"),
    "Request #123": (Kind.COUNTER, "Request #123"),
    "turn 17 of 50": (Kind.COUNTER, "turn 17 of 50"),
    "Tokens remaining: 158,766": (Kind.COUNTER, "Tokens remaining: 158,766"),
    "Remaining context: 12,345 tokens": (Kind.COUNTER, "Remaining context: 12,345"),
    "You have 3 turns left": (Kind.COUNTER, "3 turns left"),
    "seed: 8471923": (Kind.SEED, "8471923"),
    "nonce=9f8e7d6c5b4a": (Kind.SEED, "9f8e7d6c5b4a"),
    "in /tmp/tmpab12cd34/repo": (Kind.TEMP_PATH, "/tmp/tmpab12cd34"),
    "in /var/folders/zz/zyxvpxvq6csfxvn/T": (Kind.TEMP_PATH, "/var/folders/zz/zyxvpxvq6csfxvn"),
    "PID: 4242": (Kind.PROCESS, "PID: 4242"),
    "http://localhost:53412/mcp": (Kind.PROCESS, "localhost:53412"),
    "Current branch: main": (Kind.GIT, "Current branch: main"),
    "commit: 3f2a9bc1": (Kind.GIT, "3f2a9bc1"),
    "<cwd>/Users/ann/src</cwd>": (Kind.ENVIRONMENT, "/Users/ann/src"),
    "Hostname: ip-10-0-0-1": (Kind.ENVIRONMENT, "ip-10-0-0-1"),
    "x-anthropic-billing-header: cc_version=2.1.3; cch=ab12f;": (
        Kind.BILLING_HEADER,
        "x-anthropic-billing-header: cc_version=2.1.3; cch=ab12f;",
    ),
}

NOT_SUSPECT = [
    "2024-05-15 is a holiday.",
    "Founded on 1 May 1987.",
    "Write times like 2024-01-01T00:00:00Z",
    "such as session id d703a1a9-1b7b-4fb1-b512-c9738b1fe617",
    "<example>\nCurrent time: 2024-01-01T00:00:00Z\n</example>",
    "## Example\nnow: 1763681581",
    '{"created_at": "2024-01-01T00:00:00Z"}',
    "id 123e4567-e89b-12d3-a456-426614174000 and 00000000-0000-0000-0000-000000000000",
    "Step 1 of 3: read the order.",
    "At most 5 requests per turn, then 3 attempts.",
    "seed: 42",
    "Write to /tmp/output.txt and /tmp/results",
    "http://localhost:8080",
    "Working directory: /workspace",
    "Open from 9:00 to 17:30",
    "API version 2024-10-22, model claude-sonnet-4-20250514",
    "Call 1-800-555-0199",
    "Answer as {timestamp}: {text}",
    "Hello {{ customer_name }}",
    "Before a commit, run `git status`.",
    "the x-anthropic-billing-header",
    "turn 90 degrees",
    "if parsed.hostname is None:",
    "says how many commits your branch is ahead",
    "Branch: TypeAlias = tuple[int]",
    "message = RFC822Message()",
    "'{{count:{},sum:{}}}'",
    "iteration = 0",
    "EAN 4006381333931",
]

# A megabyte of what a pattern almost takes.
ADVERSARIAL = [
    "2024-01-01T",
    "a1",
    "current time ",
    "/tmp/",
    "1",
    "<example ",
    "request ",
    " ",
    "a-1_",
    "{{ a",
    "0000-",
    "x-anthropic-billing-header:",
    "Mon ",
    "# example\n",
    "\n",
    "working directory ",
    "12:00 ",
    "turn 1 of ",
    "2024-01-01 10:00 ",
    "**",
    "today's date and time (",
]


@pytest.mark.parametrize("text", SURE)
def test_what_changes_is_found(text: str) -> None:
    (sighting,) = [s for s in find(text) if s.confidence is Confidence.SURE]
    assert SURE[text] == (sighting.kind, text[sighting.start : sighting.end])


@pytest.mark.parametrize("text", NOT_SUSPECT)
def test_what_is_an_example_or_stays_the_same_is_no_suspect(text: str) -> None:
    assert [] == [s for s in find(text) if s.confidence > Confidence.WEAK]


def test_a_uuid_that_nothing_names_is_likely_only() -> None:
    (sighting,) = find("collection 3f1c2a9e-8e0f-4c56-9ad4-0b6e0d9a7c11")
    assert (Kind.UUID, Confidence.LIKELY) == (sighting.kind, sighting.confidence)


def test_behind_an_example_suspicion_begins_again() -> None:
    text = "<example>\nnow: 1763681581\n</example>\nnow: 1763681582"
    assert [Confidence.WEAK, Confidence.SURE] == [s.confidence for s in find(text)]


@pytest.mark.parametrize("token", ["k3v9x2a", "a1b2c3", "01J9ZC5T8W3K"])
def test_a_machine_made_token_looks_random(token: str) -> None:
    assert looks_random(token)


@pytest.mark.parametrize("token", ["output", "python3", "build2024", "AC10293", "2024"])
def test_a_word_or_number_does_not(token: str) -> None:
    assert not looks_random(token)


def seconds(text: str) -> float:
    began = time.process_time()
    find(text)
    return time.process_time() - began


# A second for each megabyte; a pattern that backtracks would take hours.
@pytest.mark.parametrize("unit", ADVERSARIAL)
def test_text_that_almost_matches_is_looked_through_in_linear_time(unit: str) -> None:
    assert seconds(unit * (100_000 // len(unit))) < 5


def test_so_is_a_megabyte_of_all_of_it() -> None:
    assert seconds("".join(unit * (48_000 // len(unit)) for unit in ADVERSARIAL)) < 30


PIECES = st.sampled_from([*SURE, *NOT_SUSPECT, *ADVERSARIAL]) | st.text(max_size=20)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_sightings_are_in_order_inside_the_text_and_apart(text: str) -> None:
    found = find(text)
    places = [(s.start, s.end) for s in found]
    assert places == sorted(places)
    assert all(0 <= start < end <= len(text) for start, end in places)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(places))

"""Searching paragraph by paragraph finds what searching the whole finds."""

from __future__ import annotations

from gateway.core import volatile
from gateway.core.sightings import Effort, Sightings
from gateway.core.volatile import Confidence

CLOCK = "Current time: 2026-11-22T10:00:00Z\n"
STEADY = "You answer questions about the harbour. Be brief.\n" * 8


def test_it_finds_what_a_search_of_the_whole_text_finds() -> None:
    text = f"{CLOCK}{STEADY}\n{STEADY}\nrequest id: req_Ab1Cd2Ef3Gh4Ij5\n\n{STEADY}"
    assert Sightings().find(text) == volatile.find(text)


def test_a_value_is_known_by_words_in_the_paragraph_before() -> None:
    text = f"{STEADY}\n## Current time\n\n2026-11-22 10:00:00\n"
    assert [s.confidence for s in Sightings().find(text)] == [Confidence.SURE]


def test_an_example_goes_on_over_paragraphs_until_it_ends() -> None:
    text = f"<example>\n\n{CLOCK}\n{STEADY}\n{CLOCK}\n</example>\n\n{CLOCK}"
    found = Sightings().find(text)
    assert [s.confidence for s in found] == [Confidence.WEAK, Confidence.WEAK, Confidence.SURE]


def test_with_a_bound_the_rest_is_searched_when_the_text_comes_again() -> None:
    paragraphs = "\n\n".join(f"{CLOCK}{STEADY}{number}" for number in range(12))
    patient = Sightings()
    counts = [len(patient.find(paragraphs, Effort(characters=1000))) for _ in range(12)]
    assert counts == sorted(counts)
    assert 0 < counts[0] < 12
    assert counts[-1] == 12


def test_the_bound_is_one_for_all_texts_of_a_request() -> None:
    texts = [f"{number} {STEADY}\n\n{CLOCK}" for number in range(1000)]
    patient, effort = Sightings(), Effort()
    for text in texts:
        patient.find(text, effort)
    assert sum(len(paragraph) for _, paragraph in patient._known) <= Effort().characters
    dense = Effort()
    busy = Sightings()
    busy.find("\n\n".join([CLOCK * 8] * 1000), dense)
    found = busy.find("\n\n".join([CLOCK * 8] * 1000), Effort())
    assert len(found) < 100
    assert dense.sightings <= 0


def test_a_paragraph_beyond_the_bound_is_passed_over() -> None:
    endless = "no line ends here " * 10_000
    found = Sightings().find(f"{endless}\n\n{CLOCK}", Effort())
    assert [s.confidence for s in found] == [Confidence.SURE]


def test_what_stands_at_the_head_of_a_long_text_without_a_paragraph_is_found() -> None:
    rules = "Say what the harbour book says and no more. " * 400
    for head in (CLOCK, CLOCK.replace("\n", " ")):
        found = Sightings().find(head + rules, Effort())
        assert [s.confidence for s in found] == [Confidence.SURE]
    text = f"{rules}{CLOCK.strip()} {rules}"
    assert Sightings().find(text) == volatile.find(text)


def test_it_forgets_what_was_searched_longest_ago() -> None:
    small = Sightings(kept_characters=2000)
    for number in range(50):
        small.find(f"{number} {STEADY}\n\n{CLOCK}")
    assert sum(len(a) + len(b) for a, b in small._known) <= 2000

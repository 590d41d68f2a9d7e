"""What is counted of volatile text, and what traffic confirms."""

from __future__ import annotations

import pytest

from gateway.core.volatile import Confidence, Kind, Pace, Sighting, find
from gateway.core.volatile_traffic import (
    DAY_S,
    Place,
    Seen,
    VolatileTraffic,
    blanked,
    conversation_of,
    words_around,
)

HOUR_S = 3600.0


def place(words: int = 1, domain: bytes = b"d") -> Place:
    return Place(domain, "anthropic", "/v1/messages", "$.system", Kind.TIMESTAMP, words)


def seen(value: str, words: int = 1, tokens: int = 1000, *, likely: bool = False) -> Seen:
    sure = Confidence.LIKELY if likely else Confidence.SURE
    return Seen(place(words), Sighting(Kind.TIMESTAMP, Pace.REQUEST, sure, 0, 5), value, tokens)


def test_tokens_are_lost_when_the_value_is_another_one_than_before() -> None:
    traffic = VolatileTraffic()
    for value in ("a", "a", "b", "b", "c"):
        traffic.count([seen(value)], 0.0)
    tally = traffic.tally(place())
    assert tally is not None
    assert (tally.requests, tally.changes) == (5, 2)
    assert tally.tokens_lost_per_day(0.0) == pytest.approx(2000 * 24, rel=0.03)
    assert tally.requests_per_day(0.0) == pytest.approx(5 * 24, rel=0.03)


@pytest.mark.parametrize("days", [0.25, 1, 10])
def test_a_steady_rate_is_told_as_it_is_however_long_it_was_seen(days: float) -> None:
    traffic = VolatileTraffic()
    now = 0.0
    while now < days * DAY_S:
        now += HOUR_S / 4
        traffic.count([seen(str(now))], now)
    tally = traffic.tally(place())
    assert tally is not None
    assert tally.requests_per_day(now) == pytest.approx(96, rel=0.06)
    assert tally.tokens_lost_per_day(now) == pytest.approx(96_000, rel=0.06)
    assert tally.requests_per_day(now + 30 * DAY_S) < 0.001


def test_places_are_bounded_and_the_one_seen_longest_ago_goes() -> None:
    traffic = VolatileTraffic(most_places=3)
    for words in (1, 2, 3, 1, 4):
        traffic.count([seen("a", words)], 0.0)
    assert [words for words in range(1, 5) if traffic.tally(place(words))] == [1, 3, 4]


def test_a_place_is_found_in_every_cache_domain() -> None:
    traffic = VolatileTraffic()
    traffic.count([seen("a")], 0.0)
    traffic.count([seen("a")._replace(place=place(domain=b"e"))], 0.0)
    assert len(traffic.everywhere(place(domain=b"f"))) == 2


def confirm(traffic: VolatileTraffic) -> None:
    for number in range(4):
        traffic.count([seen(str(number), likely=True)], 0.0)


def first(traffic: VolatileTraffic, conversation: int, now: float) -> frozenset[int]:
    return traffic.confirmed(conversation, [seen("x", likely=True)], first_turn=True, now=now)


def later(traffic: VolatileTraffic, conversation: int, now: float) -> frozenset[int]:
    return traffic.confirmed(conversation, [seen("x", likely=True)], first_turn=False, now=now)


def test_a_suspicion_is_confirmed_by_values_that_change_again_and_again() -> None:
    traffic = VolatileTraffic()
    assert first(traffic, 1, 0.0) == frozenset()
    for value in ("a", "b", "b", "b", "b"):
        traffic.count([seen(value, likely=True)], 0.0)
    assert first(traffic, 2, 0.0) == frozenset()
    confirm(traffic)
    assert first(traffic, 3, 0.0) == {1}


def test_a_conversation_under_way_stays_as_it_was_begun() -> None:
    traffic = VolatileTraffic()
    assert first(traffic, 1, 0.0) == frozenset()
    confirm(traffic)
    assert later(traffic, 1, 1.0) == frozenset()
    assert first(traffic, 2, 2.0) == {1}
    assert later(traffic, 2, 50_000.0) == {1}
    # One that this replica has not seen begin.
    assert later(traffic, 3, 3.0) == frozenset()


def test_the_same_beginning_is_decided_anew_once_nobody_goes_on_with_it() -> None:
    traffic = VolatileTraffic()
    first(traffic, 1, 0.0)
    confirm(traffic)
    assert first(traffic, 1, 599.0) == frozenset()
    later(traffic, 1, 600.0)
    assert first(traffic, 1, 1199.0) == frozenset()
    assert first(traffic, 1, 1200.0) == {1}


def test_what_conversations_were_begun_with_is_bounded() -> None:
    traffic = VolatileTraffic(most_conversations=2)
    confirm(traffic)
    for conversation in (1, 2, 3):
        first(traffic, conversation, 0.0)
    assert [later(traffic, conversation, 1.0) for conversation in (1, 2, 3)] == [
        frozenset(),
        {1},
        {1},
    ]


def test_the_words_around_a_value_tell_its_place_and_no_value_does() -> None:
    one = "Current time: 2026-11-22T10:00:00Z\nrequest id: req_Ab1Cd2Ef3Gh4Ij5\nBe brief."
    other = "Current time: 2027-01-02T11:09:01Z\nrequest id: req_Zz9Yy8Xx7Ww6Vv5\nBe brief."
    for index in range(2):
        assert words_around(one, find(one), index) == words_around(other, find(other), index)
    assert words_around(one, find(one), 0) != words_around(one, find(one), 1)
    assert blanked(one, find(one)) == blanked(other, find(other))
    longer = one.replace("Be brief", "Be long")
    assert words_around(longer, find(longer), 1) != words_around(one, find(one), 1)


def test_conversations_are_told_apart_by_domain_texts_and_beginning() -> None:
    names = {
        conversation_of(b"d", ["s"], "hello"),
        conversation_of(b"e", ["s"], "hello"),
        conversation_of(b"d", ["s", ""], "hello"),
        conversation_of(b"d", ["s"], "hello "),
        conversation_of(b"d", ["sh"], "ello"),
    }
    assert len(names) == 5

"""The memory of the last requests: what it keeps, finds, and costs."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.miss import CacheOutcome, Miss, MissCause
from gateway.core.model import Reason, Result, Usage
from gateway.core.recent import (
    LARGEST_BYTES,
    MOST,
    PORTION,
    RECORD_BYTES,
    WANTED,
    Recent,
    Served,
    Wanted,
    most_common,
)
from tests.helpers.records import any_record, record

if TYPE_CHECKING:
    from collections import Counter


def found(recent: Recent, wanted: Wanted, *, after: int = 0, most: int = 10**6) -> list[str]:
    """The ids of all that fit, the latest first."""
    ids: list[str] = []
    before = 0
    while True:
        portion = recent.look(wanted, before=before, after=after, most=most)
        ids += [each.request_id for _, each in portion.records]
        before = portion.next
        if not before:
            return ids


def test_the_latest_come_first_and_the_oldest_go() -> None:
    recent = Recent(kept=3)
    for number in range(5):
        recent.add(record(number))
    assert (len(recent), recent.version) == (3, 5)
    assert found(recent, Wanted()) == [record(n).request_id for n in (4, 3, 2)]
    assert recent.find(record(1).request_id) is None
    assert recent.find(record(4).request_id) == (5, record(4))
    assert repr(recent) == "<Recent 3 of 5 requests>"


def test_more_than_fit_into_64_mib_are_not_kept() -> None:
    recent = Recent(kept=10**9)
    one = record(1)
    for _ in range(MOST + 10):
        recent.add(one)
    assert (len(recent), recent.version) == (MOST, MOST + 10)
    assert MOST * LARGEST_BYTES <= 64 * 1024 * 1024


def test_none_is_kept_where_none_is_wanted() -> None:
    recent = Recent(kept=0)
    recent.add(record(1, upstream="gpu", backend="a"))
    assert (len(recent), recent.version, recent.served) == (0, 1, {})
    assert found(recent, Wanted()) == []
    assert recent.find(record(1).request_id) is None


def test_pages_go_on_where_the_last_one_ended_whatever_comes_meanwhile() -> None:
    recent = Recent()
    for number in range(250):
        recent.add(record(number))
    first = recent.look(Wanted(), most=100)
    for number in range(250, 300):
        recent.add(record(number))
    second = recent.look(Wanted(), before=first.next, most=100)
    third = recent.look(Wanted(), before=second.next, most=100)
    seen = [number for page in (first, second, third) for number, _ in page.records]
    assert seen == list(range(250, 0, -1))
    assert third.next == 0


def test_what_is_rare_is_looked_for_in_portions() -> None:
    recent = Recent()
    recent.add(record(0, model="rare"))
    for number in range(1, 3 * PORTION):
        recent.add(record(number))
    portion = recent.look(Wanted(model="rare"))
    assert (portion.records, portion.next) == ([], 2 * PORTION + 1)
    assert found(recent, Wanted(model="rare")) == [record(0).request_id]


def test_what_replicas_served_is_that_of_the_requests_that_are_remembered() -> None:
    recent = Recent(kept=2)
    usage = Usage(uncached_input=40, cache_read=60)
    for number in range(3):
        recent.add(record(number, upstream="gpu", backend="a", usage=usage))
    assert recent.served == {("gpu", "a"): Served(2, 200, 120)}
    recent.add(record(3, upstream="gpu", backend="b", usage=None))
    recent.add(record(4))
    assert recent.served == {("gpu", "b"): Served(1, 0, 0)}
    recent.add(record(5))
    assert recent.served == {}


def test_only_what_is_newer_is_asked_for_again() -> None:
    recent = Recent()
    for number in range(20):
        recent.add(record(number))
    seen = recent.version
    assert found(recent, Wanted(), after=seen) == []
    recent.add(record(20))
    assert found(recent, Wanted(), after=seen) == [record(20).request_id]


def missed(cause: MissCause) -> CacheOutcome:
    return CacheOutcome(100, 0, 0, Miss(cause, 100))


@pytest.mark.parametrize(
    ("wanted", "fits", "fits_not"),
    [
        (Wanted(text="GPT-5"), {"model": "gpt-5.6"}, {"model": "claude"}),
        (Wanted(text="/v1/mess"), {"path": "/v1/messages"}, {}),
        (Wanted(text="000000000a"), {"number": 10}, {"number": 11}),
        (Wanted(result="hit"), {"result": Result.HIT}, {"result": None}),
        (Wanted(reason="expired"), {"reason": Reason.EXPIRED}, {}),
        (Wanted(stored="status"), {"stored": Reason.STATUS}, {"stored": None}),
        (Wanted(model="m"), {"model": "m"}, {"model": "m2"}),
        (Wanted(upstream="u"), {"upstream": "u"}, {"upstream": None}),
        (Wanted(scope="00000001"), {"scope": "00000001"}, {}),
        (Wanted(backend="b"), {"backend": "b"}, {}),
        (Wanted(status="404"), {"status": 404}, {"status": 400}),
        (Wanted(status="5xx"), {"status": 529}, {"status": 404}),
        (Wanted(status="error"), {"status": 404}, {}),
        (Wanted(status="error"), {"aborted": "client"}, {}),
        (Wanted(cause="any"), {"prompt_cache": missed(MissCause.COLD)}, {}),
        (
            Wanted(cause="cold"),
            {"prompt_cache": missed(MissCause.COLD)},
            {"prompt_cache": missed(MissCause.EVICTED)},
        ),
        (Wanted(cause="any"), {"prompt_cache": missed(MissCause.COLD)}, {"prompt_cache": CacheOutcome()}),
        (
            Wanted(text="m", status="404"),
            {"model": "m", "status": 404},
            {"model": "m", "status": 200},
        ),
    ],
    ids=str,
)  # fmt: skip
def test_all_that_is_wanted_must_fit(
    wanted: Wanted, fits: dict[str, Any], fits_not: dict[str, Any]
) -> None:
    recent = Recent()
    recent.add(record(**{"number": 1, **fits}))
    recent.add(record(**{"number": 2, **fits_not}))
    (only,) = found(recent, wanted)
    assert recent.find(only) == (1, record(**{"number": 1, **fits}))


def test_everything_that_can_be_wanted_narrows_the_search() -> None:
    recent = Recent()
    recent.add(record(1))
    for name in WANTED:
        assert found(recent, Wanted(**{name: "none has this"})) == [], name


def test_names_are_counted_in_portions_and_the_frequent_ones_come_first() -> None:
    recent = Recent()
    for number in range(2 * PORTION):
        recent.add(record(number, model="rare" if number < 10 else "usual", backend=None))
    counts: dict[str, Counter[str]] = {}
    before = recent.names(counts)
    assert before
    assert recent.names(counts, before) == 0
    told = most_common(counts)
    assert (told["model"], told["backend"], told["result"]) == (["usual", "rare"], [], ["miss"])


def test_a_record_takes_what_is_counted_for_it() -> None:
    many = 2000
    recent = Recent()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(many):
            recent.add(any_record(number, 1_700_000_000.0))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.4 * many * RECORD_BYTES <= taken <= many * RECORD_BYTES

"""What the last hours came to: each request once, in its minute, and nothing without bound."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.ledger import Amounts
from gateway.core.minutes import MOST_POINTS, Minutes
from gateway.core.miss import CacheOutcome, Miss, MissCause
from gateway.core.model import Result, Usage
from gateway.core.records import CallRecord
from tests.helpers.records import any_record, record

NOON = 1_700_006_400.0
"""The beginning of a minute."""
CALL = CallRecord(
    at=NOON,
    upstream="openai",
    provider="openai",
    api="openai_chat",
    model="gpt-5.6",
    scope="",
    purpose="request",
    usage=None,
    shares={},
)


def test_a_request_counts_once_in_the_minute_in_which_it_ended() -> None:
    minutes = Minutes()
    minutes.add(record(at=NOON - 1.0, duration_s=2.0))
    told = minutes.series(NOON + 30.0, 3600.0)
    assert told["step_s"] == 60
    assert [p["at"] for p in told["points"] if p["requests"]] == [NOON]
    assert (len(told["points"]), told["total"]["requests"]) == (60, 1)


def test_all_points_together_are_the_sum_whatever_the_window() -> None:
    minutes = Minutes()
    for number in range(3000):
        minutes.add(any_record(number, NOON - 3000.0 + number))
        minutes.called(replace(CALL, at=NOON - 3000.0 + number), Amounts(1, paid_pd=number))
    for window_s in (3600, 6 * 3600, 24 * 3600):
        told = minutes.series(NOON, window_s)
        assert len(told["points"]) <= MOST_POINTS
        assert told["total"]["requests"] == 3000
        for name in ("requests", "errors", "paid_pd", "saved_pd"):
            assert sum(point[name] for point in told["points"]) == told["total"][name]
        for name, tokens in told["total"]["tokens"].items():
            assert sum(point["tokens"][name] for point in told["points"]) == tokens


def test_a_closed_point_says_the_same_again_and_the_latest_grows() -> None:
    minutes = Minutes()
    minutes.add(record(at=NOON - 120.0))
    minutes.add(record(at=NOON))
    first = minutes.series(NOON, 900.0)
    minutes.add(record(at=NOON + 1.0))
    second = minutes.series(NOON + 1.0, 900.0)
    assert first["points"][:-1] == second["points"][:-1]
    assert [each["points"][-1]["requests"] for each in (first, second)] == [1, 2]


def test_paid_and_spared_tokens_are_never_in_one_sum() -> None:
    minutes = Minutes()
    usage = Usage(100, 1000, 50, 25, 10)
    for result in Result:
        minutes.add(record(at=NOON, result=result, usage=usage))
    told = minutes.series(NOON, 60.0)["total"]
    assert told["tokens"] == {
        "input": 2 * 1175, "read": 2000, "written": 150, "output": 20, "spared": 3 * 1185, "lost": 0,
    }  # fmt: skip
    assert told["results"] == dict.fromkeys((each.value for each in Result), 1)


def test_what_is_paid_is_of_calls_and_what_is_not_known_of_them_is_told_apart() -> None:
    minutes = Minutes()
    minutes.add(record(at=NOON, paid_pd=7))
    for call, amounts in (
        (CALL, Amounts(1, paid_pd=500)),
        (replace(CALL, purpose="revalidate"), Amounts(1, paid_pd=20)),
        (CALL, Amounts(1, unpriced=1, unpriced_tokens=9)),
        (CALL, Amounts(1, unknown=1)),
        (replace(CALL, failed=True), Amounts(1, failed=1)),
        (replace(CALL, engine=True), Amounts(1, output=5)),
        (replace(CALL, engine=True), Amounts(1, unknown=1)),
        (replace(CALL, engine=True, failed=True), Amounts(1, failed=1)),
    ):
        minutes.called(call, amounts)
    told = minutes.series(NOON, 60.0)["total"]
    assert (told["requests"], told["paid_pd"]) == (1, 520)
    assert [told[name] for name in ("unpriced", "unknown", "unbilled")] == [1, 1, 2]


def test_misses_are_counted_by_cause() -> None:
    minutes = Minutes()
    outcome = CacheOutcome(900, 0, 0, Miss(MissCause.TTL_EXPIRED, 700))
    minutes.add(record(at=NOON, prompt_cache=outcome, paid_pd=None))
    minutes.add(record(at=NOON, result=None, usage=None, status=503, paid_pd=None))
    told = minutes.series(NOON, 60.0)["total"]
    assert (told["misses"], told["tokens"]["lost"]) == ({"ttl_expired": 1}, 700)
    assert (told["errors"], told["results"]["none"]) == (1, 1)


@pytest.mark.parametrize("took_s", [0.000_001, 0.000_003, 0.000_8, 0.0123, 0.5, 4.2, 599.0])
def test_a_time_is_told_to_within_an_eighth_of_itself(took_s: float) -> None:
    minutes = Minutes()
    minutes.add(record(at=NOON, duration_s=took_s, first_byte_s=took_s))
    told = minutes.series(NOON + 600, 900.0)["total"]
    for name in ("call_ms", "first_byte_ms"):
        assert told[name]["p50"] == pytest.approx(1000 * took_s, rel=0.126, abs=0.001)
    assert told["hit_ms"] is None


def test_quantiles_are_those_of_the_requests() -> None:
    minutes = Minutes()
    for number in range(1, 101):
        minutes.add(record(at=NOON, result=Result.HIT, duration_s=number / 1000))
    told = minutes.series(NOON, 60.0)["total"]["hit_ms"]
    assert told["p50"] == pytest.approx(50, rel=0.13)
    assert told["p95"] == pytest.approx(95, rel=0.13)


def test_old_minutes_are_forgotten_and_a_clock_that_is_set_back_loses_nothing() -> None:
    minutes = Minutes(kept=10)
    for number in range(100):
        minutes.add(record(at=NOON + 60.0 * number))
    assert len(minutes) == 10
    minutes.add(record(at=NOON))
    assert len(minutes) == 10
    assert minutes.series(NOON, 10 * 60.0)["total"]["requests"] == 11


@pytest.mark.parametrize(
    ("side", "errors"), [("client", 0), ("upstream", 1), ("gateway", 1), (None, 0)]
)
def test_an_answer_that_its_client_did_not_leave_and_has_not_whole_is_an_error(
    side: str | None, errors: int
) -> None:
    minutes = Minutes()
    minutes.add(record(at=NOON, status=200, aborted=side))
    assert minutes.series(NOON + 30.0, 3600.0)["total"]["errors"] == errors

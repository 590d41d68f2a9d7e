"""What many conversations begin with, and what is kept of it."""

from __future__ import annotations

from gateway.hot import BUDGET_BYTES, HALF_LIFE_S, WORTH_TOKENS, Hot


def seen(hot: Hot, fingerprint: int, times: int, *, tokens: int = 1000, now: float = 0.0) -> None:
    for _ in range(times):
        hot.saw(fingerprint, tokens, "/v1/chat/completions", lambda: b"%d" % fingerprint, now)


def kept(hot: Hot, tokens: int = 100_000, now: float = 0.0) -> list[int]:
    return [prefix.fingerprint for prefix in hot.hottest(tokens, now)]


def test_what_came_once_is_not_kept_and_its_body_is_not_even_asked_for() -> None:
    hot = Hot()
    hot.saw(1, 1000, "/v1/chat/completions", lambda: 1 / 0, 0.0)  # type: ignore[arg-type, return-value]
    assert kept(hot) == []


def test_those_whose_absence_would_cost_most_come_first() -> None:
    hot = Hot()
    seen(hot, 1, 10, tokens=1000)
    seen(hot, 2, 5, tokens=4000)
    seen(hot, 3, 3, tokens=1000)
    assert kept(hot) == [2, 1, 3]


def test_no_more_tokens_are_named_than_may_be_sent() -> None:
    hot = Hot()
    seen(hot, 1, 9, tokens=6000)
    seen(hot, 2, 8, tokens=6000)
    seen(hot, 3, 7, tokens=3000)
    assert kept(hot, tokens=10_000) == [1, 3]


def test_what_was_hot_long_ago_is_not_any_more() -> None:
    hot = Hot()
    seen(hot, 1, 100)
    seen(hot, 2, 3, now=20 * HALF_LIFE_S)
    assert kept(hot, now=20 * HALF_LIFE_S) == [2, 1]


def test_a_short_prefix_is_not_worth_it() -> None:
    hot = Hot()
    seen(hot, 1, 10, tokens=WORTH_TOKENS - 1)
    assert kept(hot) == []


def test_bodies_have_a_budget_and_those_used_least_go() -> None:
    hot = Hot(1000)
    for fingerprint in range(1, 21):
        for _ in range(fingerprint + 1):
            hot.saw(fingerprint, 1000, "/v1/x", lambda: b"x" * 200, 0.0)
    assert hot.size_bytes <= 1000
    assert kept(hot) == [20, 19, 18, 17, 16]


def test_one_body_can_not_take_the_whole_budget() -> None:
    hot = Hot(1000)
    for _ in range(3):
        hot.saw(1, 1000, "/v1/x", lambda: b"x" * 251, 0.0)
    assert kept(hot) == []
    assert hot.size_bytes == 0


def test_very_many_prefixes_leave_a_bounded_number() -> None:
    hot = Hot()
    seen(hot, 1, 50)
    for fingerprint in range(2, 2000):
        seen(hot, fingerprint, 1)
    assert "256 prefixes" in repr(hot)
    assert kept(hot) == [1]
    assert hot.size_bytes <= BUDGET_BYTES

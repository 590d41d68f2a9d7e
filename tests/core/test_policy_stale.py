"""What an entry beyond its lifetime is good for."""

from __future__ import annotations

import pytest

from gateway.core import directives
from gateway.core.model import Entry, Form, Reason
from gateway.core.policy import (
    AfterLookup,
    CachePolicy,
    Hit,
    Miss,
    Stale,
    Unsatisfiable,
    after_lookup,
    is_error,
)

TTL_S = 100.0


def entry(stored_at: float = 0.0) -> Entry:
    return Entry(
        api="openai_chat",
        recorded=Form.BODY,
        forms=frozenset(Form),
        payload=b"{}",
        stored_at=stored_at,
        ttl_s=TTL_S,
        model="m",
        response_id="r",
        usage=None,
        has_stream_usage=True,
    )


def judged(
    late_s: float,
    cache_control: str = "",
    *,
    revalidate_s: float = 0.0,
    error_s: float = 0.0,
    servable: bool = True,
    proven: bool = True,
) -> AfterLookup:
    policy = CachePolicy(
        when="always",
        ttl_s=TTL_S,
        truncated=False,
        refused=False,
        stale_while_revalidate_s=revalidate_s,
        stale_if_error_s=error_s,
    )
    return after_lookup(
        [entry()],
        lambda _: servable,
        policy,
        directives.parse([cache_control]),
        proven=proven,
        now=TTL_S + late_s,
    )


def word(found: AfterLookup) -> str:
    match found:
        case Hit():
            return "hit"
        case Stale():
            return "stale"
        case Unsatisfiable(reason):
            return f"unsatisfiable {reason}"
        case Miss(reason, spare):
            return f"{reason}{' spare' if spare else ''}"
    raise AssertionError


@pytest.mark.parametrize(
    ("late_s", "cache_control", "expected"),
    [
        (-1, "", "hit"),
        (0, "", "stale"),
        (9, "", "stale"),
        (10, "", "expired spare"),
        (29, "", "expired spare"),
        (30, "", "expired"),
        # A client narrows what the config allows, and never widens it.
        (5, "stale-while-revalidate=4", "expired spare"),
        (3, "stale-while-revalidate=4", "stale"),
        (15, "stale-while-revalidate=99", "expired spare"),
        (5, "stale-while-revalidate=0, stale-if-error=0", "expired"),
        (40, "stale-if-error=99", "expired"),
        (15, "stale-if-error=14", "expired"),
        # One that says how fresh it must be wants nothing stale.
        (5, "max-age=1000", "expired"),
        (5, "min-fresh=1", "expired"),
        (5, "only-if-cached", "unsatisfiable expired"),
        (15, "only-if-cached", "unsatisfiable expired"),
        (-5, "max-age=5", "too-old"),
    ],
)
def test_how_late_and_for_whom(late_s: float, cache_control: str, expected: str) -> None:
    assert word(judged(late_s, cache_control, revalidate_s=10, error_s=30)) == expected


def test_nothing_is_stale_unless_the_config_says_so() -> None:
    assert word(judged(0)) == "expired"
    assert word(judged(0, "stale-while-revalidate=9, stale-if-error=9")) == "expired"


def test_what_would_not_be_served_fresh_is_not_served_stale() -> None:
    late = {"revalidate_s": 10.0, "error_s": 10.0}
    assert word(judged(5, servable=False, **late)) == "expired"  # type: ignore[arg-type]
    assert word(judged(5, proven=False, **late)) == "credential-unproven"  # type: ignore[arg-type]


def test_the_youngest_stale_entry_is_taken_and_any_fresh_one_before_it() -> None:
    policy = CachePolicy("always", TTL_S, False, False, stale_while_revalidate_s=100)

    def found(*stored_at: float) -> AfterLookup:
        return after_lookup(
            [entry(each) for each in stored_at],
            lambda _: True,
            policy,
            directives.NOTHING,
            proven=True,
            now=150,
        )

    late = found(10, 30, 20)
    assert isinstance(late, Stale)
    assert (late.hit.entry.stored_at, late.hit.ttl_left_s, late.reason) == (30, -20, Reason.EXPIRED)
    assert isinstance(found(10, 60, 20), Hit)


def test_only_failures_of_the_upstream_itself_are_papered_over() -> None:
    assert [s for s in range(100, 600) if is_error(s)] == [500, 502, 503, 504, 529]

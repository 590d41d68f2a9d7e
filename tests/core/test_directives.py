from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import directives
from gateway.core.directives import Directives
from gateway.core.model import Reason, Result


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], Directives()),
        ([""], Directives()),
        ([" , ,"], Directives()),
        (["no-cache"], Directives(no_cache=True)),
        (["No-Cache"], Directives(no_cache=True)),
        (["no-cache, no-store"], Directives(no_cache=True, no_store=True)),
        (["no-cache", "no-store"], Directives(no_cache=True, no_store=True)),
        (["no-cache=x"], Directives(no_cache=True)),
        (["only-if-cached"], Directives(only_if_cached=True)),
        (["no-transform"], Directives(no_transform=True)),
        (["max-age=60"], Directives(max_age_s=60.0)),
        (['max-age="60"'], Directives(max_age_s=60.0)),
        (["max-age = 60"], Directives(max_age_s=60.0)),
        (["max-age=0"], Directives(no_cache=True, max_age_s=0.0)),
        (["max-age=0000000000005"], Directives(max_age_s=5.0)),
        (["max-age=" + "9" * 5000], Directives(max_age_s=2.0**31)),
        (["min-fresh=30"], Directives(min_fresh_s=30.0)),
        (["max-age=60, max-age=5"], Directives(max_age_s=60.0)),
        (["max-age=-1"], Directives()),
        (["max-age=1.5"], Directives()),
        (["max-age"], Directives()),
        (["max-age=٦٠"], Directives()),
        (["nocache, xno-cache, no-cachex"], Directives()),
        (["private, stale-if-error=3, community=UCI"], Directives(stale_if_error_s=3.0)),
        (["stale-while-revalidate=0"], Directives(stale_while_revalidate_s=0.0)),
    ],
)
def test_a_request_says_what_it_wants(values: list[str], expected: Directives) -> None:
    assert expected == directives.parse(values)


@given(st.lists(st.text()))
def test_any_header_value_is_read_without_an_error(values: list[str]) -> None:
    directives.parse(values)


@pytest.mark.parametrize(
    ("expected", "result", "reason", "more"),
    [
        ("gateway; hit; ttl=2710", Result.HIT, Reason.EXACT, {"ttl_left_s": 2710.9}),
        (
            "gateway; hit; ttl=-41; detail=stale-while-revalidate",
            Result.STALE,
            Reason.STALE_WHILE_REVALIDATE,
            {"ttl_left_s": -40.5},
        ),
        (
            "gateway; fwd=stale; fwd-status=503; ttl=-1; detail=stale-if-error",
            Result.STALE,
            Reason.STALE_IF_ERROR,
            {"ttl_left_s": -0.1, "status": 503},
        ),
        (
            "gateway; fwd=stale; ttl=-1; detail=stale-if-error",
            Result.STALE,
            Reason.STALE_IF_ERROR,
            {"ttl_left_s": -0.1},
        ),
        ("gateway; hit", Result.HIT, Reason.EXACT, {}),
        (
            "gateway; fwd=miss; fwd-status=200; stored",
            Result.MISS,
            Reason.ABSENT,
            {"status": 200, "stored": True},
        ),
        (
            "gateway; fwd=miss; fwd-status=200; detail=too-large",
            Result.MISS,
            Reason.TOO_LARGE,
            {"status": 200},
        ),
        ("gateway; fwd=miss; collapsed", Result.COLLAPSED, Reason.ABSENT, {}),
        ("gateway; fwd=request; detail=no-cache", Result.MISS, Reason.NO_CACHE, {}),
        ("gateway; fwd=bypass; detail=hosted-tool", Result.PASS, Reason.HOSTED_TOOL, {}),
        ("gateway; fwd=stale; stored", Result.MISS, Reason.EXPIRED, {"stored": True}),
        (
            "gateway; fwd=bypass; detail=store-unavailable",
            Result.MISS,
            Reason.STORE_UNAVAILABLE,
            {},
        ),
        ("gateway; fwd=miss", Result.MISS, Reason.ABSENT, {}),
    ],
)
def test_cache_status_says_what_became_of_the_lookup(
    expected: str, result: Result, reason: Reason, more: dict[str, float | bool]
) -> None:
    assert expected == directives.cache_status(result, reason, **more)  # type: ignore[arg-type]

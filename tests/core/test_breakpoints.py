"""Where markers pay: cases that can be worked out by hand, with Sonnet's rules (1.25, 2, 0.1)."""

from __future__ import annotations

import pytest

from gateway.core.breakpoints import NOTHING, Head, Sight, choose
from gateway.core.recurrence import NEVER, Odds
from tests.helpers.prompts import rules

SURE = Odds(1.0, 1.0, 1.0, 1.0)
SOON = Odds(0.9, 0.9, 0.9, 0.9)
LATE = Odds(0.0, 0.0, 0.9, 0.9)


def sight(
    tokens: list[int],
    *,
    read: int = -1,
    read_ttl_s: int = 0,
    kept: int = -1,
    odds: Odds = NEVER,
    heads: tuple[Head, ...] = (),
    given: int = -1,
    given_ttl_s: int = 0,
) -> Sight:
    """All blocks markable, the last one the end."""
    return Sight(
        tokens,
        lambda _: True,
        read,
        read_ttl_s,
        kept,
        len(tokens) - 1,
        odds,
        heads,
        1024,
        given,
        given_ttl_s,
    )


@pytest.mark.parametrize(
    ("seen", "short", "long"),
    [
        pytest.param(sight([2000, 2100]), -1, -1, id="nothing comes again"),
        pytest.param(sight([2000, 2100], odds=SOON), 1, -1, id="it is continued soon"),
        pytest.param(
            sight([2000, 2100], odds=Odds(0.2, 0.2, 0.2, 0.2)), -1, -1, id="below break-even"
        ),
        pytest.param(
            sight([2000, 2100], odds=Odds(0.23, 0.23, 0.23, 0.23)), 1, -1, id="above break-even"
        ),
        pytest.param(sight([2000, 2100], odds=LATE), -1, 1, id="it is continued late"),
        pytest.param(sight([500, 900], odds=SURE), -1, -1, id="too short for an entry"),
        pytest.param(
            sight([2000, 2100], heads=(Head(0, SOON),)), 0, -1, id="others share the beginning"
        ),
        pytest.param(
            sight([2000, 2100], heads=(Head(0, SOON, live=True),)), -1, -1, id="it is held already"
        ),
        pytest.param(
            sight([900, 2100], heads=(Head(0, SURE),)), -1, -1, id="the beginning is too short"
        ),
        pytest.param(
            sight([2000, 2100], heads=(Head(0, LATE),)),
            -1,
            0,
            id="others come late, again and again",
        ),
        pytest.param(
            sight([2000, 2100], odds=SOON, given=1, given_ttl_s=300),
            -1,
            -1,
            id="the client writes it anyway",
        ),
    ],
)
def test_what_is_written(seen: Sight, short: int, long: int) -> None:
    choice = choose(seen, rules())
    assert (choice.short, choice.long) == (short, long)


def test_an_hour_is_bought_on_the_small_block_before_the_large_one() -> None:
    """60,000 tokens are held for five minutes; what is new begins with a small block."""
    pauses = Odds(0.5, 0.8, 0.9, 0.95)
    seen = sight([60_000, 60_100, 64_000], read=0, read_ttl_s=300, odds=pauses)

    choice = choose(seen, rules())

    assert (choice.short, choice.long) == (2, 1)
    assert choice.premium == pytest.approx(1.0 * 100 + 0.25 * 3_900)


def test_an_hour_is_not_bought_again_while_an_anchor_is_near() -> None:
    pauses = Odds(0.5, 0.8, 0.82, 0.85)
    seen = sight([60_000, 60_100, 64_000], read=0, read_ttl_s=300, kept=0, odds=pauses)
    assert choose(seen, rules()).long == -1


def test_an_hour_inside_of_what_the_client_writes_for_minutes_is_not_free() -> None:
    seen = sight([1500, 3000, 3100], odds=Odds(0.3, 0.6, 0.62, 0.62), given=1, given_ttl_s=300)
    choice = choose(seen, rules())
    assert choice.long == -1


def test_nothing_costs_nothing() -> None:
    assert choose(sight([2000, 2100]), rules()) is NOTHING


def test_one_lifetime_is_enough_for_providers_that_have_no_other() -> None:
    choice = choose(sight([2000, 2100], odds=SOON), rules("gpt-6-sol", "openai"))
    assert (choice.short, choice.long) == (1, -1)

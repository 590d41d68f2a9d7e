from __future__ import annotations

import pytest

from gateway.core.breakers import Breakers, mend
from gateway.core.miss import Miss, MissCause
from gateway.core.volatile import Kind

DAY_S = 86_400.0


def miss(path: str = "$.system", kind: str = "timestamp", lost: int = 1000) -> Miss:
    return Miss(MissCause.PREFIX_CHANGED, lost, path, kind, 0, "before")


def test_what_breaks_the_same_place_is_one_line_with_its_mend() -> None:
    known = Breakers()
    known.count("openai", "gpt", miss("$.messages[3].content"), 0.5, "r1", 0.0)
    known.count("openai", "gpt", miss("$.messages[7].content"), 0.25, "r2", 0.0)
    known.count("openai", "gpt", miss(kind="tools", lost=10), None, "r3", 0.0)
    first, second = known.ranked(0.0)
    assert (first.path, first.requests, first.request_id) == ("$.messages[*].content", 2, "r2")
    assert first.mend == mend("timestamp") != ""
    assert first.usd_per_day == pytest.approx(0.75 * 0.6931, rel=1e-3)
    assert second.usd_per_day is None, "without a price it is unknown"


def test_a_steady_loss_is_told_per_day_and_fades_when_it_is_mended() -> None:
    known = Breakers()
    for hour in range(24 * 14):
        known.count("openai", "gpt", miss(), 0.01, "r", 3600.0 * hour)
    last = 3600.0 * (24 * 14 - 1)
    [now] = known.ranked(last)
    assert now.tokens_per_day == pytest.approx(24_000, rel=0.03)
    [later] = known.ranked(last + 3 * DAY_S)
    assert later.tokens_per_day == pytest.approx(now.tokens_per_day / 8)


def test_a_miss_without_a_place_breaks_nothing() -> None:
    known = Breakers()
    known.count("openai", "gpt", Miss(MissCause.COLD, 0), None, "r", 0.0)
    assert known.ranked(0.0) == []


def test_of_many_the_costliest_stay() -> None:
    known = Breakers()
    for number in range(2000):
        known.count("openai", f"m{number}", miss(lost=10), None, "r", float(number))
        known.count("openai", "dear", miss(lost=100_000), None, "r", float(number))
    found = known.ranked(2000.0, 5000)
    assert len(found) <= 512
    assert found[0].model == "dear"
    assert found[0].requests == 2000


@pytest.mark.parametrize("kind", [*Kind, "tools", "model", "history", "cache_key"])
def test_every_kind_has_a_mend(kind: str) -> None:
    assert mend(str(kind))

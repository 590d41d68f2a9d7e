"""When somebody else is thought to place requests, too."""

from __future__ import annotations

import pytest

from gateway.core.strangers import WINDOW, Strangers


@pytest.mark.parametrize(
    ("reports", "surprises", "unlikely", "likely"),
    [
        (0, 0, False, False),
        (WINDOW - 1, 0, False, False),
        (WINDOW, 0, True, False),
        (WINDOW, 1, True, False),
        (WINDOW, 2, False, True),
        (3, 2, False, True),
    ],
)
def test_one_surprise_in_a_hundred_is_none(
    reports: int, surprises: int, unlikely: bool, likely: bool
) -> None:
    strangers = Strangers()
    for n in range(reports):
        strangers.told(is_surprising=n < surprises)
    assert (strangers.unlikely, strangers.likely) == (unlikely, likely)


def test_who_has_gone_is_forgotten() -> None:
    strangers = Strangers()
    for _ in range(WINDOW):
        strangers.told(is_surprising=True)
    for _ in range(WINDOW):
        strangers.told(is_surprising=False)
    assert strangers.unlikely

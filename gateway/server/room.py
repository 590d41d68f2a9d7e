"""Room in the memory budget for what a request makes us hold, or the words in which it is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import Overloaded

if TYPE_CHECKING:
    from gateway.budget import Budget, Share


def held(budget: Budget, size_bytes: int) -> Share:
    """A share of so many bytes. Raises `Overloaded` where they don't fit."""
    share = budget.share()
    if not share.grow(size_bytes):
        raise overloaded()
    return share


def overloaded() -> Overloaded:
    """What a client is told for whom there is no room now."""
    return Overloaded(
        "the gateway holds as many requests as its memory budget allows: try again in a moment, "
        "or raise server.memory_budget_bytes"
    )

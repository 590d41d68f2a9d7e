"""What an answer's tokens cost, and what the same tokens would have cost without any cache.

Rule 1: integers of picodollars (see `providers.prices`): sums are exact, and one division at the
very end makes dollars of them.
Rule 2: each token is charged once, in its own bucket, at the rates for the length of the prompt.
Rule 3: without a price there is no cost: callers say so and don't count it as nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.providers.prices import PER_USD

if TYPE_CHECKING:
    from gateway.core.causes import Share
    from gateway.core.model import Usage
    from gateway.providers.prices import Price, Rates


class Bill(NamedTuple):
    """What one answer cost, in picodollars."""

    uncached: int
    read: int
    write: int
    output: int
    input_without_cache: int
    """What all of the prompt would have cost, had nothing been read or written."""

    @property
    def input(self) -> int:
        """What the prompt cost."""
        return self.uncached + self.read + self.write

    @property
    def total(self) -> int:
        """What the answer cost."""
        return self.input + self.output

    @property
    def total_without_cache(self) -> int:
        """What the answer would have cost without a cache."""
        return self.input_without_cache + self.output

    @property
    def saved(self) -> int:
        """What the provider's cache spared; below zero where it cost more than it spared."""
        return self.input_without_cache - self.input


def bill(usage: Usage, price: Price) -> Bill:
    """What `usage` costs at `price`. The prompt's length decides which of its rates hold."""
    rates = price.at(usage.input)
    return Bill(
        uncached=usage.uncached_input * rates.input,
        read=usage.cache_read * rates.read,
        write=usage.cache_write_5m * rates.write_5m + usage.cache_write_1h * rates.write_1h,
        output=usage.output * rates.output,
        input_without_cache=usage.input * rates.input,
    )


class Gain(NamedTuple):
    """What one cause brought, in picodollars."""

    spared: int
    """By reading: what its tokens would have cost more, had they not been cached."""
    premium: int
    """By writing: what its tokens cost more than if they had not been kept."""

    @property
    def net(self) -> int:
        """What remains; below zero where it cost more than it spared."""
        return self.spared - self.premium


def gain(share: Share, rates: Rates) -> Gain:
    """What one cause brought, at the rates for the prompt's length (`Price.at`). The gains of all
    `causes.shares` of a usage add up to `bill(usage, price).saved`.
    """
    return Gain(
        share.read * (rates.input - rates.read),
        share.write_5m * (rates.write_5m - rates.input)
        + share.write_1h * (rates.write_1h - rates.input),
    )


def usd(picodollars: int) -> float:
    """Dollars, to the nearest float: for a metric, a header or a table, not for sums."""
    return picodollars / PER_USD

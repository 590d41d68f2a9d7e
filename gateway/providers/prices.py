"""What providers charge for tokens: one price for each model, or none where none is known.

Rule 1: integers of picodollars for a token, which are microdollars for a million: $1 per million
tokens is 1,000,000. Every published price is whole in it, so sums are exact.
Rule 2: an unknown model has no price (None); nothing is taken from a model of a similar name.
Rule 3: the prices of `price_tables` are those of today. Batches, service tiers, regions and modes
that are charged otherwise change them by a known factor, or leave no price.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from gateway.providers import price_tables
from gateway.providers.model_names import family

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.providers.base import Rule
    from gateway.providers.price_tables import Listed

PER_USD = 1_000_000_000_000
"""Picodollars in a dollar."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Picodollars for one token of each kind. Where a list has no price for reading or writing,
    such a token costs what any input does; without one for an hour, what five minutes cost.
    """

    input: int
    read: int
    write_5m: int
    """For five minutes, or for the 30 minutes of GPT-5.6 and later."""
    write_1h: int
    output: int

    def times(self, percent: int, output_percent: int | None = None) -> Rates:
        """These rates at so many percent, output perhaps at others. Published rates are whole in
        ten thousandths of a dollar, so this is exact.
        """
        return Rates(
            self.input * percent // 100,
            self.read * percent // 100,
            self.write_5m * percent // 100,
            self.write_1h * percent // 100,
            self.output * (percent if output_percent is None else output_percent) // 100,
        )


@dataclass(frozen=True, slots=True)
class Price:
    """What one provider charges for one model."""

    rates: Rates
    source: Rule
    above: int = 0
    """Prompts of more tokens than this (read and written ones included) are charged `long_rates`
    for every token; 0 for no such limit."""
    long_rates: Rates | None = None

    def at(self, prompt_tokens: int) -> Rates:
        """The rates for a request with so many prompt tokens, all four buckets together."""
        if self.long_rates is not None and prompt_tokens > self.above:
            return self.long_rates
        return self.rates

    def times(self, percent: int) -> Price:
        """This price at so many percent."""
        return Price(
            self.rates.times(percent),
            self.source,
            self.above,
            self.long_rates and self.long_rates.times(percent),
        )


def price(provider: str, api: str, model: str, terms: Iterable[str] = ()) -> Price | None:
    """What `provider` charges for `model` (its id as the request or the answer spells it), or None.

    `terms`: what the answer says of how it was served (`service_tier`, `inference_geo`); one that
    isn't known leaves no price. Azure's names are of deployments and tell no price; local engines
    have none.
    """
    named = family(provider, api, model)
    if named is None or named.variant or model in price_tables.PRICED_OTHERWISE:
        return None
    listed = price_tables.PRICES.get(provider, {}).get(named.name)
    if listed is None:
        return None
    found = _price(listed)
    known = price_tables.PERCENT.get(provider, {})
    for term in terms:
        percent = known.get(term)
        if percent is None:
            return None
        if percent != 100:
            found = found.times(percent)
    return found


@cache
def _price(listed: Listed) -> Price:
    spent, write_5m, write_1h, read, output = (
        None if each == "-" else picodollars(each) for each in listed.row.split()
    )
    assert spent is not None
    assert output is not None
    write_5m = spent if write_5m is None else write_5m
    rates = Rates(
        spent,
        spent if read is None else read,
        write_5m,
        write_5m if write_1h is None else write_1h,
        output,
    )
    if not listed.above:
        return Price(rates, listed.source)
    longer = rates.times(listed.long_input, listed.long_output)
    return Price(rates, listed.source, listed.above, longer)


def picodollars(usd_per_million: str) -> int:
    """Picodollars for a token from dollars for a million, as written: `0.125` is 125,000."""
    whole, _, part = usd_per_million.partition(".")
    return int(whole) * 1_000_000 + int(part.ljust(6, "0"))

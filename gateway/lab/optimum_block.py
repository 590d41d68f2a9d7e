"""The least that one block's token can cost over all its appearances: see `optimum` for the proof.

A programme over the appearances with these states of the block, each with its least cost so far:
*dead*   no entry is counted on.
*written* not read yet: by whom it can be read, and for how long, is settled by who wrote it.
*short*  an entry of the short lifetime may end here, and longer ones further on.
*deep*   only entries that end further on may be alive: they help who goes on as an earlier one did.
*long*   an entry of the long lifetime may end here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.providers.prompt_cache import CacheRules

_NEVER = float("inf")
_Written: TypeAlias = tuple[float, float, int]
"""Cost so far, first byte of the writer, lifetime."""


class Seen(NamedTuple):
    """One appearance of a prompt."""

    at: float
    first_byte_at: float
    price: float
    """Of an uncached token, in any currency: the bound is in it, too."""


class LeastCost:
    """The programme for one provider's rules."""

    def __init__(self, rules: CacheRules) -> None:
        self._read = rules.read
        self._lifetimes = tuple((life.ttl_s, life.write) for life in rules.lifetimes)
        self._longest, self._write_long = self._lifetimes[-1]
        self._shortest = self._lifetimes[0][0]

    def of(self, seen: Sequence[Seen], goes_on: Sequence[bool]) -> float:
        """`goes_on` says of each appearance whether the block after this one appeared within the
        longest lifetime before it, too.
        """
        dead, short, deep, long = 0.0, _NEVER, _NEVER, _NEVER
        written: list[_Written] = []
        last = seen[0].at
        for (at, first_byte_at, price), further in zip(seen, goes_on, strict=True):
            gap = at - last
            last = at
            reading = self._read * price
            if gap > self._longest:
                dead = min(dead, short, deep, long)
                short = deep = long = _NEVER
                written = []
            elif gap > self._shortest:
                deep, short = min(deep, short), _NEVER
            if not written and long <= min(dead, short, deep):
                long += reading
                dead += price
                short = deep = _NEVER
                continue
            if not written and short <= min(dead, deep):
                # With the one before by far the most frequent: alive, which can't be improved on.
                long = min(long + reading, short + self._write_long * price)
                short += reading
                deep = _NEVER
                dead += price
                continue
            dead = min(dead, short, deep)
            waiting, short_read, long_read = self._waited(written, gap, at, first_byte_at, price)
            waiting.extend(
                (dead + write * price, first_byte_at, ttl_s) for ttl_s, write in self._lifetimes
            )
            long = min(long + reading, short + self._write_long * price, long_read)
            short = min(short + reading, short_read)
            if further:
                short = min(short, deep + reading)
            deep += price
            dead += price
            written = _undominated(
                [
                    each
                    for each in waiting
                    if each[0] < (long if each[2] == self._longest else min(short, long))
                ]
            )
        return min(dead, short, deep, long, *(cost for cost, _, _ in written))

    def _waited(
        self, written: Sequence[_Written], gap: float, at: float, first_byte_at: float, price: float
    ) -> tuple[list[_Written], float, float]:
        """Who still waits, and the least cost of what can be read by now, short and long."""
        waiting: list[_Written] = []
        short = long = _NEVER
        for cost, begins, ttl_s in written:
            if gap > ttl_s:
                # Dead costs no more than that: it never wrote.
                continue
            if at < begins:
                waiting.append((cost + price, begins, ttl_s))
                waiting.extend(
                    (cost + write * price, min(begins, first_byte_at), longer)
                    for longer, write in self._lifetimes
                    if longer > ttl_s
                )
            elif ttl_s == self._longest:
                long = min(long, cost + self._read * price)
            else:
                short = min(short, cost + self._read * price)
        return waiting, short, long


def _undominated(written: Sequence[_Written]) -> list[_Written]:
    """Without those that another beats in cost, first byte and lifetime."""
    kept: list[_Written] = []
    for cost, begins, ttl_s in sorted(written, key=lambda each: (each[0], each[1], -each[2])):
        if not any(b <= begins and t >= ttl_s for _, b, t in kept):
            kept.append((cost, begins, ttl_s))
    return kept

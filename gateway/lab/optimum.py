"""What a prompt cache could have cost at least, had the future been known: a true lower bound.

`Optimum` takes all requests of one cache domain and merges their prompts into a tree of blocks;
every block is then charged by itself, over the times at which it appeared, the least that any
sequence of markers could have made its tokens cost.

Why nothing can cost less. Take any sequence of markers, and a block of the tree with its
appearances t1 < t2 < ... At each the simulated provider bills the block's tokens as read (r),
written with some lifetime (w), or uncached (1): the four buckets are cut at boundaries only.
1. It is billed as read at ti only if an entry that reaches over it is hit. That entry's writer and
   all who renewed it had this block in their prompts, and were billed the block as written or read;
   so the last of them is an appearance tk < ti that was not uncached, and the entry's lifetime spans
   ti - tk; no lifetime is longer than the longest, and the writer's answer had begun before ti.
2. Who wrote the block at tk with the lifetime L left no entry that reaches over it with a longer
   one: lifetimes are written the longest first, so what is billed at L lies beyond all longer
   marks. Until it is first read, L itself limits the gap; after that only the longest lifetime
   does, since the reader may have written a longer entry further on, on another block's account.
3. An entry must end at `minimum_tokens` or later; so the blocks up to the first such boundary are
   read and written together or not at all: they are one block here, and a shorter prompt is
   uncached.
Charging each block the cheapest of what 1 to 3 allow, without asking whether one set of four
markers within the look-back could do it for all blocks at once, can only lower the sum. Where a
request could be told apart from what the programme below assumes, it assumes the cheaper: while
the writer's answer has not begun, an appearance pays 1 and renews the entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from gateway.providers.prompt_cache import CacheRules


_NEVER = float("inf")
_Written: TypeAlias = tuple[float, float, int]


class Seen(NamedTuple):
    """One appearance of a prompt."""

    at: float
    first_byte_at: float
    price: float
    """Of an uncached token, in any currency: the bound is in it, too."""


class Optimum:
    """The bound for one provider's rules. Requests come in the order of their times."""

    def __init__(self, rules: CacheRules) -> None:
        self._rules = rules
        self._lifetimes = tuple((life.ttl_s, life.write) for life in rules.lifetimes)
        self._longest = max((ttl_s for ttl_s, _ in self._lifetimes), default=0)
        self._uncached = 0.0
        self._requests: list[Seen] = []
        self._sizes: list[int] = []
        self._seen: list[list[int]] = []
        """By block: the numbers of the requests that it appeared in."""
        self._blocks: dict[tuple[Hashable, int], int] = {}

    def add(self, seen: Seen, scope: Hashable, chain: Sequence[int], tokens: Sequence[int]) -> None:
        """One request that was answered: fingerprints and cumulative tokens of its blocks."""
        total = tokens[-1] if tokens else 0
        minimum = self._rules.minimum_tokens
        if total < minimum or not self._longest:
            self._uncached += total * seen.price
            return
        number = len(self._requests)
        self._requests.append(seen)
        before = 0
        known = self._blocks
        for fingerprint, end in zip(chain, tokens, strict=True):
            if end < minimum:
                continue
            key = (scope, fingerprint)
            block = known.get(key)
            if block is None:
                block = known[key] = len(self._sizes)
                self._sizes.append(end - before)
                self._seen.append([])
            self._seen[block].append(number)
            before = end

    def cost(self) -> float:
        """The bound, in the currency of the prices."""
        return self._uncached + sum(
            size * self._least([self._requests[number] for number in numbers])
            for size, numbers in zip(self._sizes, self._seen, strict=True)
        )

    def _least(self, seen: Sequence[Seen]) -> float:
        """The least that one token pays over its appearances."""
        if len(seen) == 1:
            return seen[0].price
        read, longest = self._rules.read, self._longest
        dead = 0.0
        alive = _NEVER
        # Written and not yet read: cost so far, first byte of the writer, lifetime.
        written: list[_Written] = []
        last = seen[0].at
        for at, first_byte_at, price in seen:
            gap = at - last
            last = at
            if gap > longest:
                dead = min(dead, alive)
                alive = _NEVER
                written = []
            if alive <= dead and not written:
                alive += read * price
                dead += price
                continue
            reading = alive + read * price
            waiting: list[_Written] = []
            for cost, begins, ttl_s in written:
                if gap > ttl_s:
                    # Dead costs no more than that: it never wrote.
                    continue
                if at >= begins:
                    reading = min(reading, cost + read * price)
                    continue
                waiting.append((cost + price, begins, ttl_s))
                waiting.extend(
                    (cost + write * price, min(begins, first_byte_at), longer)
                    for longer, write in self._lifetimes
                    if longer > ttl_s
                )
            waiting.extend(
                (dead + write * price, first_byte_at, ttl_s) for ttl_s, write in self._lifetimes
            )
            dead += price
            alive = reading
            written = _undominated([each for each in waiting if each[0] < alive])
        return min(dead, alive, *(cost for cost, _, _ in written))


def _undominated(written: Sequence[_Written]) -> list[_Written]:
    """Without those that another beats in cost, first byte and lifetime."""
    kept: list[_Written] = []
    for cost, begins, ttl_s in sorted(written, key=lambda each: (each[0], each[1], -each[2])):
        if not any(b <= begins and t >= ttl_s for _, b, t in kept):
            kept.append((cost, begins, ttl_s))
    return kept

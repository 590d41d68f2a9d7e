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
2. If that entry ends with this block, the block was billed at the entry's own lifetime when it was
   written; so a gap beyond that is only read over if the block was written with a longer one. If the
   entry ends further on, the block after this one in ti's prompt appeared at tk, too, within the
   longest lifetime; and if this block was billed at the lifetime L at tk, L limits the gap as well,
   for lifetimes are written the longest first, so nothing behind it was written with a longer one.
3. An entry must end at `minimum_tokens` or later, and where a marker (or the provider's own) can
   stand; so the blocks up to the next such boundary are read and written together or not at all:
   they are one block here, and what no such boundary follows is uncached. (Whether a marker can
   stand after a block is taken to depend on the blocks up to it only.)
Charging each block the cheapest of what 1 to 3 allow, without asking whether one set of four
markers within the look-back could do it for all blocks at once, can only lower the sum. Where a
request could be told apart from what the programme below assumes, it assumes the cheaper: while
the writer's answer has not begun, an appearance pays 1 and renews the entry; and whenever a block is
read, every entry that reaches over it is renewed.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from gateway.lab.optimum_block import LeastCost, Seen
from gateway.lab.optimum_exact import exact_cost

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from gateway.providers.prompt_cache import CacheRules


class Optimum:
    """The bound for one provider's rules. Requests come in the order of their times."""

    def __init__(self, rules: CacheRules) -> None:
        self._rules = rules
        self._longest = max((life.ttl_s for life in rules.lifetimes), default=0)
        self._least_cost = LeastCost(rules) if rules.lifetimes else None
        self._uncached = 0.0
        self._requests: list[Seen] = []
        self._sizes: list[int] = []
        self._seen: list[list[int]] = []
        """By block: the numbers of the requests that it appeared in."""
        self._blocks: dict[tuple[Hashable, int], int] = {}
        self._following: list[list[int]] = []
        """By block: those that follow it in some prompt."""
        self._family: list[int] = []
        """By block: which of the families it belongs to."""
        self._families: list[list[int]] = []
        """Blocks of prompts with the same beginning."""

    def add(
        self,
        seen: Seen,
        scope: Hashable,
        chain: Sequence[int],
        tokens: Sequence[int],
        ends: Sequence[bool],
    ) -> None:
        """One request that was answered: fingerprints and cumulative tokens of its blocks, and
        after which of them an entry could end at all.
        """
        before = 0
        minimum = self._rules.minimum_tokens
        number = len(self._requests)
        parent = -1
        for fingerprint, end, can_end in zip(chain, tokens, ends, strict=True):
            # What no entry can end after is read and written with what follows.
            if end < minimum or not can_end or not self._longest:
                continue
            parent = self._block((scope, fingerprint), parent, end - before)
            self._seen[parent].append(number)
            before = end
        total = tokens[-1] if tokens else 0
        self._uncached += (total - before) * seen.price
        if parent >= 0:
            self._requests.append(seen)

    def _block(self, key: tuple[Hashable, int], parent: int, size: int) -> int:
        block = self._blocks.get(key)
        if block is None:
            block = self._blocks[key] = len(self._sizes)
            self._sizes.append(size)
            self._seen.append([])
            self._following.append([])
            if parent < 0:
                self._families.append([])
                self._family.append(len(self._families) - 1)
            else:
                self._following[parent].append(block)
                self._family.append(self._family[parent])
            self._families[self._family[block]].append(block)
        return block

    def cost(self) -> tuple[float, bool]:
        """The least cost in the currency of the prices, and whether it is exact, or a bound only.

        Each family of prompts that share their beginning is solved exactly where it is one growing
        conversation, or one request.
        """
        cost, exact = self._uncached, True
        for family in self._families:
            solved = self._solved(family)
            if solved is None:
                exact = False
                solved = sum(self._sizes[block] * self._least(block) for block in family)
            cost += solved
        return cost, exact

    def _solved(self, family: Sequence[int]) -> float | None:
        if not self._rules.takes_markers:
            return None
        times = [len(self._seen[block]) for block in family]
        if times[0] == 1:
            return sum(self._sizes[block] for block in family) * self._price(family[0])
        # In one line each block appears in all requests from its first on, and blocks were numbered
        # as they came: so what appears in block n + 1 is the end of what appears in block n.
        for block, following in pairwise(family):
            seen = self._seen[block]
            if self._seen[following] != seen[len(seen) - len(self._seen[following]) :]:
                return None
        requests = []
        depth = 0
        for number in self._seen[family[0]]:
            while depth < len(family) and self._seen[family[depth]][0] <= number:
                depth += 1
            requests.append((self._requests[number], depth))
        ends = list(accumulate(self._sizes[block] for block in family))
        return exact_cost(self._rules, requests, ends)

    def _price(self, block: int) -> float:
        return self._requests[self._seen[block][0]].price

    def _least(self, block: int) -> float:
        """The least that one token of a block pays over its appearances."""
        numbers = self._seen[block]
        if len(numbers) == 1:
            return self._price(block)
        seen = [self._requests[number] for number in numbers]
        onwards: set[int] = set()
        for following in self._following[block]:
            for earlier, later in pairwise(self._seen[following]):
                if self._requests[later].at - self._requests[earlier].at <= self._longest:
                    onwards.add(later)
        assert self._least_cost
        return self._least_cost.of(seen, [number in onwards for number in numbers])

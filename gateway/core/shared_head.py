"""The steps that everybody's prompts begin with, and that therefore bind nobody: `SharedHead`.

Counted by conversation, not by request: a conversation says its first steps again with every turn,
and must not make them common by that. A prompt that goes on from where another one ended (its *tip*)
is a turn of that conversation, the first one that does; what goes on from there again is another
conversation. So is the very same prompt before it is answered. But who goes on before the answer is
there asks several things at a time, and is one conversation all the same.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict, deque
from heapq import nlargest
from typing import TYPE_CHECKING

from gateway.core.homes import tip_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.trail import Trail

FEWEST = 5
"""Conversations that must begin alike before that is called shared."""
MOST_CONVERSATIONS = 1024
"""The recent ones."""
MOST_STEPS = 1 << 16
"""Of the recent ones together: bounds memory."""
MOST_TIPS = 1 << 14


class SharedHead:
    """Of one pool."""

    __slots__ = ("_counts", "_recent", "_steps", "_tips", "most_conversations", "most_steps")

    def __init__(
        self, most_conversations: int = MOST_CONVERSATIONS, most_steps: int = MOST_STEPS
    ) -> None:
        self.most_conversations = most_conversations
        self.most_steps = most_steps
        self._recent: deque[Trail] = deque()
        self._counts: dict[int, int] = {}
        self._steps = 0
        self._tips: OrderedDict[int, bool] = OrderedDict()
        """Ends of prompts that nothing has gone on from yet; True: answered."""

    def __len__(self) -> int:
        """Steps of recent conversations, and tips."""
        return self._steps + len(self._tips)

    def note(self, trail: Trail, *, is_known: bool = False) -> None:
        """A request is here. `is_known`: its conversation is, by name."""
        prints, tips = trail.prints, self._tips
        for index in range(len(prints) - 1, -1, -1):
            answered = tips.get(prints[index])
            if answered is None:
                continue
            if not answered and index == len(prints) - 1:
                break  # the same prompt again, by somebody who can't know the answer
            del tips[prints[index]]
            return
        if not is_known and prints:
            self._count(trail)

    def depth(self, prints: Sequence[int], replicas: int) -> int:
        """How many leading steps everybody shares: more than 1/(2N) of the conversations."""
        counts = self._counts
        least = max(FEWEST - 1, len(self._recent) / (2 * max(1, replicas)))
        found = 0
        for each in prints:
            if counts.get(each, 0) <= least:
                break
            found += 1
        return found

    def prefixes(self, most: int) -> list[tuple[int, int, int]]:
        """What several of the recent conversations begin with, each where no more than half of them
        go on alike: fingerprint, conversations and tokens, of the `most` that come to most tokens.
        """
        counts = self._counts
        found: dict[int, tuple[int, int, int]] = {}
        alike: dict[int, int] = {}
        for trail in self._recent:
            prints = trail.prints
            # (Who shares a step shares all before it: counts never rise along a trail.)
            start = 0
            while start < len(prints) and (count := counts[prints[start]]) > 1:
                end = bisect_left(prints, 1 - count, start, key=lambda each: -counts[each])
                last = prints[end - 1]
                found[last] = (last, count, trail.ends[end - 1])
                if end < len(prints):
                    alike[last] = max(alike.get(last, 0), counts[prints[end]])
                start = end
        parting = (each for each in found.values() if 2 * alike.get(each[0], 0) <= each[1])
        return nlargest(most, parting, key=lambda each: each[1] * each[2])

    @property
    def conversations(self) -> int:
        """How many of the recent ones are counted."""
        return len(self._recent)

    def asked(self, trail: Trail, head: int) -> None:
        """It was sent; `head` steps bind nobody, nor does a tip among them."""
        depth = tip_of(trail)
        if depth <= head:
            return
        tip = trail.prints[depth - 1]
        self._tips[tip] = False
        self._tips.move_to_end(tip)
        if len(self._tips) > MOST_TIPS:
            self._tips.popitem(last=False)

    def answered(self, trail: Trail) -> None:
        """Its answer is over: the conversation may go on."""
        depth = tip_of(trail)
        if depth and trail.prints[depth - 1] in self._tips:
            self._tips[trail.prints[depth - 1]] = True

    def _count(self, trail: Trail) -> None:
        counts = self._counts
        self._recent.append(trail)
        self._steps += len(trail.prints)
        for each in trail.prints:
            counts[each] = counts.get(each, 0) + 1
        while len(self._recent) > self.most_conversations or self._steps > self.most_steps:
            old = self._recent.popleft()
            self._steps -= len(old.prints)
            for each in old.prints:
                count = counts[each] - 1
                if count:
                    counts[each] = count
                else:
                    del counts[each]

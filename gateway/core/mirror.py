"""What a replica's prefix cache probably holds: `Mirror`, one LRU of steps.

Engines evict by blocks, the tail of a prompt before its head. So does this: within one request a
step is older than the one before it, hence whatever is held is held with all that leads to it, and
how far a prompt is held is found by bisection. No content: prints, when, and how many tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.trail import Trail

STEP_BYTES = 250
"""What a step takes in a mirror; a test holds it to what the process really pays."""

_TOKENS_BITS = 24
_TOKENS = (1 << _TOKENS_BITS) - 1
"""Most tokens of one step: what is more counts as this."""


class Mirror:
    """`capacity`: tokens, as trails count; 0 where it is not known. `most_steps` bounds memory."""

    __slots__ = ("_steps", "capacity", "most_steps", "tokens")

    def __init__(self, capacity: int, most_steps: int) -> None:
        # print -> when it was last used, above the tokens of the step
        self._steps: OrderedDict[int, int] = OrderedDict()
        self.tokens = 0
        """Held."""
        self.capacity = capacity
        self.most_steps = most_steps

    def __len__(self) -> int:
        """Steps that are held."""
        return len(self._steps)

    def __contains__(self, fingerprint: int) -> bool:
        return fingerprint in self._steps

    def look(self, prints: Sequence[int], guess: int = 0) -> int:
        """How many leading steps are held. A good guess makes it two probes."""
        steps = self._steps
        low, high = 0, len(prints)
        if guess <= high:
            if not guess or prints[guess - 1] in steps:
                low = guess
                if low < high and prints[low] not in steps:
                    return low
            else:
                high = guess - 1
        while low < high:
            middle = (low + high) // 2
            if prints[middle] in steps:
                low = middle + 1
            else:
                high = middle
        return low

    def loses(self, trail: Trail, depth: int) -> int:  # noqa: ARG002 - as of a SlotMirror
        """Nothing that is known: it evicts by blocks, whatever was unused for longest."""
        return 0

    def slot_for(self, prints: Sequence[int]) -> int | None:  # noqa: ARG002 - as of a SlotMirror
        """There are none: one cache serves all."""
        return None

    def stamps(self, prints: Sequence[int], depth: int) -> tuple[int, ...]:
        """When each of the leading steps was last used."""
        steps = self._steps
        # What another gateway tells of a very long prompt leaves steps out.
        return tuple([steps.get(each, 0) >> _TOKENS_BITS for each in prints[:depth]])

    def touch(self, trail: Trail, depth: int, stamp: int, slot: int | None = None) -> None:  # noqa: ARG002 - as of a SlotMirror
        """The prompt is computed there; its first `depth` steps were held. `stamp`: rises with
        every call, over all mirrors.
        """
        steps, ends = self._steps, trail.ends
        when = stamp << _TOKENS_BITS
        added = 0
        for index in range(len(ends) - 1, -1, -1):
            step = trail.prints[index]
            size = ends[index] - (ends[index - 1] if index else 0)
            size = min(max(size, 0), _TOKENS)
            old = steps.get(step)
            if old is None:
                added += size
            else:
                steps.move_to_end(step)
                added += size - (old & _TOKENS)
            steps[step] = when | size
        self.tokens += added
        self.fit()

    def fit(self) -> None:
        """Evict what is too much, the least recently used first."""
        steps = self._steps
        capacity = self.capacity or self.tokens
        while steps and (self.tokens > capacity or len(steps) > self.most_steps):
            self.tokens -= steps.popitem(last=False)[1] & _TOKENS

    def undo(self, prints: Sequence[int], depth: int, stamp: int) -> None:
        """The request of this stamp failed before it was computed: what it alone brought, behind
        the first `depth` steps, isn't there.
        """
        steps = self._steps
        for step in reversed(prints[depth:]):
            held = steps.get(step)
            if held is None:
                continue
            if held >> _TOKENS_BITS != stamp:
                return  # used by another since, with all that leads to it
            self.tokens -= steps.pop(step) & _TOKENS

    def forget_until(self, stamp: int) -> None:
        """What was last used no later is gone."""
        steps = self._steps
        while steps:
            step, held = next(iter(steps.items()))
            if held >> _TOKENS_BITS > stamp:
                return
            del steps[step]
            self.tokens -= held & _TOKENS

    def done(self, stamp: int) -> None:
        """The answer to the request of this stamp is over: of no concern here."""

    def clear(self) -> None:
        """It is empty."""
        self._steps.clear()
        self.tokens = 0

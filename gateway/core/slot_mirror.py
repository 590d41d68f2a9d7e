"""What the slots of a llama.cpp server probably hold: one prompt each.

A slot keeps the state of the last prompt that it computed, and of the next one reuses what leads
both. The server picks the slot that has most in common with a prompt, if that is more than a tenth
of it, else the one unused for longest; so prompts that share a long head take each other's slots.
`slot_for` picks better, for a request that pins its slot: no prompt gives way to a stranger while
another slot is empty, or has gone unused for longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.trail import Trail

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOSS = 7.0
"""What the prompt used last counts for, by the tokens that it would lose: its next turn and those
after would have them computed again. One unused for longest counts for nothing."""

MOST_SLOTS = 1024


class _Slot:
    __slots__ = ("stamp", "trail", "works")

    def __init__(self) -> None:
        self.trail = Trail()
        self.stamp = 0
        self.works = False

    def common(self, prints: Sequence[int]) -> int:
        """Leading steps that the prompt shares with what is held."""
        held = self.trail.prints
        low, high = 0, min(len(held), len(prints))
        while low < high:
            middle = (low + high) // 2
            if held[middle] == prints[middle]:
                low = middle + 1
            else:
                high = middle
        return low


class SlotMirror:
    """Of a server with so many slots. `most_steps` bounds its memory."""

    __slots__ = ("_slots", "capacity", "most_steps")

    def __init__(self, slots: int, most_steps: int) -> None:
        self._slots = [_Slot() for _ in range(max(1, min(slots, MOST_SLOTS)))]
        self.capacity = 0
        """A slot holds what it can: nothing to be bounded by tokens."""
        self.most_steps = most_steps

    def __len__(self) -> int:
        """Steps that are held."""
        return sum(len(slot.trail.prints) for slot in self._slots)

    def __contains__(self, fingerprint: int) -> bool:
        return any(fingerprint in slot.trail.prints for slot in self._slots)

    @property
    def slots(self) -> int:
        """How many there are."""
        return len(self._slots)

    @property
    def tokens(self) -> int:
        """Held, as trails count; what several slots hold counts for each."""
        return sum(slot.trail.tokens for slot in self._slots)

    def look(self, prints: Sequence[int], guess: int = 0) -> int:  # noqa: ARG002 - as of a Mirror
        """How many leading steps the slot holds that the prompt would get."""
        index = self.slot_for(prints)
        return self._slots[index].common(prints)

    def loses(self, trail: Trail, depth: int) -> int:  # noqa: ARG002 - as of a Mirror
        """When the prompt that would have to give way to this one was last used; 0: none would."""
        taken = self._slots[self.slot_for(trail.prints)]
        return taken.stamp if taken.trail.prints else 0

    def slot_for(self, prints: Sequence[int]) -> int:
        """The slot where the prompt should be computed."""
        idle = [index for index, slot in enumerate(self._slots) if not slot.works]
        if not idle:  # behind the one that knows most of it, or began first
            waits = range(len(self._slots))
            return max(waits, key=lambda i: (self._slots[i].common(prints), -self._slots[i].stamp))
        idle.sort(key=lambda i: self._slots[i].stamp)
        newest = max(1, len(idle) - 1)

        def cost(rank: int) -> float:
            slot = self._slots[idle[rank]]
            shared = slot.common(prints)
            # (A prompt that goes on from the whole of what is held takes nothing from anybody.)
            held = slot.trail.tokens - slot.trail.until(shared)
            return _LOSS * held * rank / newest - slot.trail.until(shared)

        return idle[min(range(len(idle)), key=cost)]

    def stamps(self, prints: Sequence[int], depth: int) -> tuple[int, ...]:
        """When each of the leading steps was last used: all at once."""
        return (self._slots[self.slot_for(prints)].stamp,) * depth

    def touch(self, trail: Trail, depth: int, stamp: int, slot: int | None = None) -> None:  # noqa: ARG002 - as of a Mirror
        """The prompt is computed in this slot, or where it should be."""
        if slot is None or not 0 <= slot < len(self._slots):
            slot = self.slot_for(trail.prints)
        taken = self._slots[slot]
        most = max(1, self.most_steps // len(self._slots))
        taken.trail = Trail(trail.prints[:most], trail.ends[:most], trail.is_open)
        taken.stamp, taken.works = stamp, True

    def fit(self) -> None:
        """Each slot keeps to its own bound as it is taken."""

    def undo(self, prints: Sequence[int], depth: int, stamp: int) -> None:  # noqa: ARG002 - as of a Mirror
        """The request of this stamp failed before it was computed."""
        for slot in self._slots:
            if slot.stamp == stamp:
                held = slot.trail
                slot.trail = Trail(held.prints[:depth], held.ends[:depth])

    def forget_until(self, stamp: int) -> None:
        """What was last used no later is gone."""
        for slot in self._slots:
            if slot.stamp <= stamp:
                slot.trail = Trail()

    def done(self, stamp: int) -> None:
        """The answer to the request of this stamp is over: its slot is free again."""
        for slot in self._slots:
            if slot.stamp == stamp:
                slot.works = False

    def clear(self) -> None:
        """All are empty."""
        for slot in self._slots:
            slot.trail, slot.stamp, slot.works = Trail(), 0, False

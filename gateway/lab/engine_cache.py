"""The caches of a fake engine: blocks of all prompts (vLLM, SGLang), or one prompt for each slot
(llama.cpp). They only say what is there: no clock, nobody waits here.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from gateway.lab.engine_prompt import BLOCK_TOKENS, BYTES_PER_TOKEN, Prompt

_SIMILAR = 0.1
"""llama.cpp's `--slot-prompt-similarity`: the part of the prompt that a slot has to hold."""


class BlockCache:
    """The least recently used blocks leave; of one prompt, the tail before the head."""

    def __init__(self, capacity_tokens: int) -> None:
        self.capacity = max(1, capacity_tokens // BLOCK_TOKENS)
        """In blocks."""
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<BlockCache {len(self._blocks)} of {self.capacity} blocks>"

    @property
    def tokens(self) -> int:
        """What it holds."""
        return len(self._blocks) * BLOCK_TOKENS

    def held(self, prompt: Prompt) -> int:
        """Tokens from the prompt's first on that are there. The last token is always computed."""
        most = max(0, prompt.tokens - 1) // BLOCK_TOKENS
        blocks = 0
        for fingerprint in prompt.chain()[:most]:
            if fingerprint not in self._blocks:
                break
            blocks += 1
        return blocks * BLOCK_TOKENS

    def keep(self, prompt: Prompt) -> None:
        """All its full blocks are there now, and were used just now."""
        for fingerprint in reversed(prompt.chain()[: self.capacity]):
            self._blocks[fingerprint] = None
            self._blocks.move_to_end(fingerprint)
        while len(self._blocks) > self.capacity:
            self._blocks.popitem(last=False)

    def clear(self) -> None:
        """As after a reset, or a restart."""
        self._blocks.clear()


@dataclass(slots=True)
class Slot:
    """One place of llama.cpp: what was computed in it last is what it holds."""

    number: int
    text: bytes = b""
    seed: int = 0
    used: int = 0
    """Order of use."""
    busy: bool = False

    def held(self, prompt: Prompt) -> int:
        """Tokens from the prompt's first on that are the same here."""
        if prompt.seed != self.seed:
            return 0
        same = _same(self.text, prompt.text) // BYTES_PER_TOKEN
        return min(same, max(0, prompt.tokens - 1))

    @property
    def tokens(self) -> int:
        """What it holds."""
        return -(-len(self.text) // BYTES_PER_TOKEN)


class Slots:
    """As many prompts as there are slots: 11 that take turns in 10 slots never meet again."""

    def __init__(self, number: int, context_tokens: int) -> None:
        self.slots = [Slot(i) for i in range(max(1, number))]
        self.slot_tokens = max(1, context_tokens // len(self.slots))
        """The context is shared out: no prompt may be longer than this."""
        self._uses = 0

    def __repr__(self) -> str:
        return f"<Slots {sum(slot.busy for slot in self.slots)} of {len(self.slots)} busy>"

    @property
    def tokens(self) -> int:
        """What all of them hold."""
        return sum(slot.tokens for slot in self.slots)

    def take(self, prompt: Prompt, wanted: int = -1) -> Slot | None:
        """A slot that is busy from now on; None: it has to wait. `wanted` is the `id_slot`; without,
        the idle one that holds most of the prompt, if that is enough, or the least recently used.
        """
        if 0 <= wanted < len(self.slots):
            idle = [self.slots[wanted]] if not self.slots[wanted].busy else []
        else:
            idle = [slot for slot in self.slots if not slot.busy]
        if not idle:
            return None
        most = max(idle, key=lambda slot: slot.held(prompt))
        if most.held(prompt) <= _SIMILAR * prompt.tokens:
            most = min(idle, key=lambda slot: slot.used)
        self._uses += 1
        most.busy, most.used = True, self._uses
        return most

    def clear(self) -> None:
        """As after a restart."""
        for slot in self.slots:
            slot.text = b""


def _same(one: bytes, other: bytes) -> int:
    """Bytes that two texts have in common from the first on."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low

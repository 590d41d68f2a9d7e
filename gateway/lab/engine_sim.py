"""A self-hosted engine as a router feels it: a block cache, one queue of prompts, a prefill rate.

The least recently used block leaves first, and of one prompt the tail before the head; only prompts
are cached, from when they arrive. Prompts are computed one after the other at a fixed rate; answers
are spoken side by side and disturb nobody.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple


class Prompt(NamedTuple):
    """A prompt as an engine keeps it."""

    prints: tuple[int, ...]
    """The chained fingerprint of all up to the end of each block."""
    sizes: tuple[int, ...]
    """Tokens of each block."""
    tokens: int
    """Of the whole."""


class BlockLru:
    """A cache of so many tokens. Fixed numbers of tokens are not needed: blocks have their own."""

    def __init__(self, capacity_tokens: int) -> None:
        self.capacity = capacity_tokens
        self.tokens = 0
        """What it holds."""
        self._blocks: OrderedDict[int, int] = OrderedDict()

    def __repr__(self) -> str:
        return f"<BlockLru {self.tokens} of {self.capacity} tokens>"

    def held(self, prompt: Prompt) -> int:
        """Tokens from the prompt's first on that are there."""
        found = 0
        for fingerprint, size in zip(prompt.prints, prompt.sizes, strict=True):
            if fingerprint not in self._blocks:
                break
            found += size
        return found

    def use(self, prompt: Prompt) -> None:
        """All of the prompt is there now, as far as there is room."""
        blocks = self._blocks
        # From the tail on, so that it is older than the head.
        for fingerprint, size in zip(reversed(prompt.prints), reversed(prompt.sizes), strict=True):
            if fingerprint in blocks:
                blocks.move_to_end(fingerprint)
            else:
                blocks[fingerprint] = size
                self.tokens += size
        while self.tokens > self.capacity:
            self.tokens -= blocks.popitem(last=False)[1]


class Taken(NamedTuple):
    """What becomes of a prompt that an engine has taken."""

    cached: int
    """Tokens that it held."""
    begins_at: float
    """Its first token is spoken then."""


class EngineSim:
    """One engine. Caches may be shared between several, as an ideal to compare with."""

    def __init__(self, cache: BlockLru, rate: float) -> None:
        """`rate` in tokens a second."""
        self.cache = cache
        self.rate = rate
        self.free_at = 0.0
        """When all that it has taken is computed."""
        self.computed = 0
        """Tokens, since it began."""

    def __repr__(self) -> str:
        return f"<EngineSim {self.computed} tokens computed, {self.cache!r}>"

    def wait(self, now: float) -> float:
        """Seconds until a prompt that is taken now begins to be computed."""
        return max(0.0, self.free_at - now)

    def take(self, prompt: Prompt, now: float) -> Taken:
        """Queue a prompt. Times never go back."""
        cached = self.cache.held(prompt)
        self.cache.use(prompt)
        uncached = prompt.tokens - cached
        self.computed += uncached
        self.free_at = now + self.wait(now) + uncached / self.rate
        return Taken(cached, self.free_at)

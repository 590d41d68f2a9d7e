"""How a fake engine spends its time: one queue of prompts to compute, and answers side by side.

Prompts are computed one after the other, `rate` tokens a second; answers are spoken `decode_s` for
each token however many there are. What is withdrawn while it waits costs nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.lab.engine_cache import BlockCache, Slot, Slots

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gateway.lab.engine_prompt import Prompt


@dataclass(slots=True)
class Computed:
    """A prompt whose first token can be spoken now."""

    prompt: Prompt
    cached: int
    """Tokens that were there."""
    queued_s: float
    prefill_s: float
    slot: Slot | None = None

    @property
    def uncached(self) -> int:
        """Tokens that were computed."""
        return self.prompt.tokens - self.cached


class Work:
    """The engine's queue and cache. For one event loop."""

    def __init__(self, cache: BlockCache | Slots, rate: float) -> None:
        """`rate` in prompt tokens a second."""
        self.cache = cache
        self.rate = rate
        self.slowness = 1.0
        """How many times longer than usual everything takes."""
        self.waiting = 0
        self.running = 0
        self.running_tokens = 0
        """Of the prompts that run: what can't leave the cache now."""
        self.requests = 0
        """Whose prompts were computed, as all of these: since the start."""
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.answer_tokens = 0
        self._turn = asyncio.Lock()
        self._free_at = 0.0
        self._queue: deque[asyncio.Future[None]] = deque()
        """Who waits for a slot, in order."""

    def __repr__(self) -> str:
        return f"<Work {self.waiting} waiting, {self.running} running, {self.cache!r}>"

    @asynccontextmanager
    async def computed(
        self,
        prompt: Prompt,
        wanted_slot: int = -1,
        on_taken: Callable[[], Awaitable[None]] | None = None,
    ) -> AsyncIterator[Computed]:
        """Wait for the prompt's turn and until it is computed; it runs until the context is left.
        `on_taken` is awaited when it is in the queue (and has its slot, where there are any).
        """
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        self.waiting += 1
        is_waiting = True
        slot: Slot | None = None
        try:
            if isinstance(self.cache, Slots):
                slot = await self._slot(self.cache, prompt, wanted_slot)
            ready_at = loop.time()
            if on_taken is not None:
                await on_taken()
            async with self._turn:
                self.waiting, self.running, is_waiting = self.waiting - 1, self.running + 1, False
                self.running_tokens += prompt.tokens
                cached = slot.held(prompt) if slot else self._held(prompt)
                begins_at = max(ready_at, self._free_at)
                await self._compute(begins_at, prompt.tokens - cached)
                self._keep(prompt, slot)
            self.requests += 1
            self.prompt_tokens += prompt.tokens
            self.cached_tokens += cached
            now = loop.time()
            yield Computed(prompt, cached, begins_at - asked_at, now - begins_at, slot)
        finally:
            if is_waiting:
                self.waiting -= 1
            else:
                self.running -= 1
                self.running_tokens -= prompt.tokens
            if slot is not None:
                slot.busy = False
                self._wake()

    def spoke(self, computed: Computed, answer: str, tokens: int) -> None:
        """What was answered is in the cache as well."""
        self.answer_tokens += tokens
        self._keep(computed.prompt.with_answer(answer), computed.slot)

    def _held(self, prompt: Prompt) -> int:
        return self.cache.held(prompt) if isinstance(self.cache, BlockCache) else 0

    def _keep(self, prompt: Prompt, slot: Slot | None) -> None:
        if slot is not None:
            slot.text, slot.seed = prompt.text, prompt.seed
        elif isinstance(self.cache, BlockCache):
            self.cache.keep(prompt)

    async def _compute(self, begins_at: float, tokens: int) -> None:
        # By the clock, not by the sum of naps: what a nap takes too long, the next gets back.
        loop = asyncio.get_running_loop()
        self._free_at = begins_at + tokens / self.rate * self.slowness
        try:
            await asyncio.sleep(max(0.0, self._free_at - loop.time()))
        except asyncio.CancelledError:
            self._free_at = min(self._free_at, loop.time())
            raise

    async def _slot(self, slots: Slots, prompt: Prompt, wanted: int) -> Slot:
        while (slot := slots.take(prompt, wanted)) is None:
            turn = asyncio.get_running_loop().create_future()
            self._queue.append(turn)
            try:
                await turn
            finally:
                if turn in self._queue:
                    self._queue.remove(turn)
        return slot

    def _wake(self) -> None:
        # All of them: who waits for a slot of its own must not keep others from an idle one.
        waiting, self._queue = self._queue, deque()
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)

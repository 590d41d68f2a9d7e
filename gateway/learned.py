"""What was learned of prompts, and the threads in which they are read: it outlives the config.

A budget is no setting that could be changed in a structure that is full: with another one
(`prompt_cache.tree_bytes`) all of it begins anew.
"""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING

from gateway.core.hints import CacheKeys
from gateway.core.planner import CachePlanner
from gateway.core.takers import Takers
from gateway.core.volatile_traffic import VolatileTraffic
from gateway.foreseeing import Foreseeing
from gateway.proving import Proving
from gateway.watching import Watching
from gateway.wire.beginnings import Beginnings
from gateway.wire.rewriting import Rewriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config import Config
    from gateway.telemetry.metrics import Metrics
    from gateway.upstream.choice import Choice


class Learned:
    """Shared by the planning of one config and of the next, while requests of both run."""

    def __init__(
        self,
        config: Config,
        choice: Choice,
        metrics: Metrics,
        timer: Callable[[], float],
        *,
        planner: CachePlanner | None = None,
        rewriter: Rewriter | None = None,
        before: Learned | None = None,
    ) -> None:
        """Nothing yet. `timer` gives monotonic seconds; of `before` only the threads are taken over."""
        said = config.prompt_cache
        self.tree_bytes = said.tree_bytes
        self.planner = planner or CachePlanner(said.tree_bytes)
        self.rewriter = rewriter or Rewriter(VolatileTraffic())
        self.watching = Watching(self.rewriter, timer)
        self.keys = CacheKeys()
        self.beginnings = Beginnings(said.tree_bytes // 2)
        self.takers = Takers()
        self.thread: Executor = (
            ThreadPoolExecutor(1, "warmgate-plan") if before is None else before.thread
        )
        # What is read behind an answer holds up no request that waits for its plan.
        self.after: Executor = (
            ThreadPoolExecutor(1, "warmgate-after") if before is None else before.after
        )
        self.proving = Proving(
            choice=choice,
            metrics=metrics,
            timer=timer,
            thread=self.after,
            budget_bytes=said.tree_bytes // 8,
        )
        self.foreseeing = Foreseeing(
            *(self.beginnings, metrics, timer, self.after),
            said.tree_bytes // 4,
            wanted=said.causes,
        )

    def __repr__(self) -> str:
        return f"<Learned in {self.tree_bytes} B, {self.takers}>"

    def holds(self, config: Config) -> bool:
        """Is it what this config would remember?"""
        return config.prompt_cache.tree_bytes == self.tree_bytes

    def turn(self, config: Config, choice: Choice) -> None:
        """Another config holds."""
        self.proving.choice = choice
        self.foreseeing.wanted = config.prompt_cache.causes

    def close(self) -> None:
        """Let the threads go. What is being done in them is not waited for."""
        for each in (self.thread, self.after):
            each.shutdown(wait=False, cancel_futures=True)

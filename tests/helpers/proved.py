"""Conversations sent turn by turn through a real `Planning`, and what it says of their steadiness."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import orjson

from gateway import config
from gateway.cache import Clock
from gateway.config import Config
from gateway.core.directives import NOTHING
from gateway.core.model import Answer, Ask, Finish, Form, Usage
from gateway.core.plan import PlanReason
from gateway.exchange import Exchange
from gateway.planning import Planning
from gateway.telemetry.setup import Telemetry
from gateway.telemetry.spans import ServerSpan
from gateway.upstream.choice import Asked, Choice
from gateway.wire.table import APIS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.planned import Planned
    from gateway.turn import Turn
    from gateway.wire.rewriting import Rewriter

PATHS = {
    "anthropic_messages": "/v1/messages",
    "openai_chat": "/v1/chat/completions",
    "openai_responses": "/v1/responses",
}


class Span(ServerSpan):
    """Keeps what it is told of drifts."""

    def __init__(self) -> None:
        self.drifts: list[tuple[str, str, int]] = []

    def drifted(self, change: str, path: str, block: int) -> None:
        self.drifts.append((change, path, block))


class Proved:
    """A planner under a config, and those who ask through it. `now` is its clock."""

    def __init__(
        self, telemetry: Telemetry, tree: dict[str, Any], rewriter: Rewriter | None
    ) -> None:
        settings = Config.model_validate(tree)
        self.now = 0.0
        self.took_s = 0.0
        """By its clock, whatever is asked for the time."""
        self.choice = Choice(settings)
        self.telemetry = telemetry
        self.planning = Planning(
            config=settings,
            choice=self.choice,
            telemetry=telemetry,
            clock=Clock(now=self._tick, monotonic=self._tick),
            tenant=lambda _: None,
            rewriter=rewriter,
        )
        self.spans: list[Span] = []

    def _tick(self) -> float:
        self.now += self.took_s
        return self.now

    async def send(
        self,
        body: dict[str, Any] | bytes,
        api: str,
        upstream: str = "",
        headers: dict[str, str] | None = None,
    ) -> Planned:
        """One turn: planned, answered, learned from, and what is read beside the loop waited for."""
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        span = Span()
        self.spans.append(span)
        turn = cast(
            "Turn",
            SimpleNamespace(
                body=raw,
                asked=Asked(None, PATHS[api], None),
                request=SimpleNamespace(headers=headers or {}),
                directives=NOTHING,
                api=APIS[PATHS[api]],
                known=SimpleNamespace(
                    endpoint=self.choice.endpoints[upstream or api.partition("_")[0]],
                    ask=Ask(Form.BODY, orjson.loads(raw)["model"]),
                    pass_reason=None,
                    who=b"w",
                ),
                exchange=Exchange("gw_1", "POST", PATHS[api], "http", 0.0, span=span),
            ),
        )
        planned = await self.planning.plan(turn)
        self.planning.begun(turn, planned)
        tokens = len(raw) // 4
        read = planned.plan.read_tokens if planned.plan is not None else 0
        # As if all that is hoped for were read, and the rest written.
        spent = Usage(cache_read=min(read, tokens), cache_write_5m=max(0, tokens - read), output=5)
        self.planning.learn(planned, Answer(Form.BODY, b"{}", Finish.COMPLETE, usage=spent))
        async with asyncio.timeout(20):
            while "0 waiting" not in repr(self.planning.proving):
                # What the thread has read is handed over by the loop.
                await self.planning.searching(lambda: None)
                await asyncio.sleep(0)
        assert "0 failures" in repr(self.planning) or planned.reason is PlanReason.FAILED
        return planned

    @property
    def drifts(self) -> list[tuple[str, str, int]]:
        """All that were told to spans."""
        return [drift for span in self.spans for drift in span.drifts]

    def compared(self) -> dict[str, int]:
        """How many comparisons came to what."""
        found: dict[str, int] = {}
        for line in self.telemetry.metrics.render().decode().splitlines():
            if line.startswith("gateway_prompt_cache_compared_total{"):
                outcome = line.partition('outcome="')[2].partition('"')[0]
                found[outcome] = found.get(outcome, 0) + round(float(line.rpartition(" ")[2]))
        return found


@asynccontextmanager
async def proved(rewriter: Rewriter | None = None, **tree: Any) -> AsyncIterator[Proved]:
    """A planner with metrics on."""
    telemetry = Telemetry.start(config.Telemetry(traces="off"), {}, "1")
    made = Proved(telemetry, tree, rewriter)
    try:
        yield made
    finally:
        made.planning.close()
        telemetry.close(1.0)

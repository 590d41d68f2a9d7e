"""Many clients that ask the same pool of questions again and again, and an upstream that knows
the answers: each says which question it answers, so that one that was mixed up shows.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from aiohttp import web

from gateway.lab.stub_openai import completion, reply, usage
from tests.helpers.chat_answers import ask
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

QUESTIONS = 200
THINK_S = 0.25
"""Mean pause between an answer and the next question: the machine is busy, not saturated."""
SETTLE_S = 30.0
NO_HEADERS: Mapping[str, str] = {}


def question(number: int, *, stream: bool) -> dict[str, Any]:
    """A request body."""
    words = f"Question {number}, please."
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": words}]}
    return {**body, "stream": True} if stream else body


def answer_to(number: int) -> str:
    """The only right answer, of a length of its own."""
    return f"Answer {number}: " + f"{number} is {number}. " * (number % 17)


@asynccontextmanager
async def oracle() -> AsyncIterator[str]:
    """An upstream that answers at once; yields its base URL with `/v1`."""

    async def chat(request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        number = int(body["messages"][0]["content"].split()[1].rstrip(","))
        message = {"role": "assistant", "content": answer_to(number), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        sent = reply(completion("gpt-4o", [choice], usage(9, 5)), body)
        return web.Response(
            body=sent.body or b"".join(sent.events), headers={"content-type": sent.content_type}
        )

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    async with serve_app(app) as url:
        yield f"{url}/v1"


@dataclass
class Phase:
    """What the clients saw while something was the case."""

    name: str
    hits: int = 0
    misses: int = 0
    took_s: list[float] = field(default_factory=list)

    def percentile(self, percent: int) -> float:
        """Seconds; of a phase that was over at once, those of what there is."""
        if len(self.took_s) < 2:
            return sum(self.took_s)
        return statistics.quantiles(self.took_s, n=100, method="inclusive")[percent - 1]

    def __str__(self) -> str:
        p50, p99 = (self.percentile(p) * 1000 for p in (50, 99))
        return (
            f"{self.name:<28} {self.hits:5} hits {self.misses:5} misses   "
            f"p50 {p50:6.1f}  p99 {p99:6.1f}  slowest {max(self.took_s, default=0.0) * 1000:6.1f} ms"
        )


class Crowd:
    """Clients of one gateway. `phase` is what they are counted under when an answer has come."""

    def __init__(
        self,
        api_url: str,
        pick: Callable[[random.Random], int] | None = None,
        think_s: float = THINK_S,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        """`pick` draws the number of the next question; unset: one of `QUESTIONS`. `think_s` is
        the mean pause of a client.
        """
        self._think_s = think_s
        self._pick = pick or (lambda dice: dice.randrange(QUESTIONS))
        self.phase = Phase("warm-up")
        self.phases = [self.phase]
        self.faults: list[str] = []
        """Requests that failed, and answers to another question."""
        self._url = f"{api_url}/v1/chat/completions"
        self._headers = headers
        self._progress = asyncio.Condition()
        self._stopping = False

    def enter(self, name: str) -> Phase:
        """Count under another name from now on."""
        self.phase = Phase(name)
        self.phases.append(self.phase)
        return self.phase

    async def until(self, met: Callable[[], bool]) -> float:
        """Wait for it; how long that took in seconds."""
        began = time.perf_counter()
        async with asyncio.timeout(SETTLE_S), self._progress:
            await self._progress.wait_for(met)
        return time.perf_counter() - began

    async def until_hits_resume(self) -> tuple[float, float]:
        """Seconds until the first hit, and until four of five among the last 100 answers are."""
        phase = self.phase
        first_s = await self.until(lambda: phase.hits > 0)
        hits, misses = phase.hits, phase.misses

        def steady() -> bool:
            nonlocal hits, misses
            if phase.hits + phase.misses - hits - misses < 100:
                return False
            good = phase.hits - hits >= 4 * (phase.misses - misses)
            hits, misses = phase.hits, phase.misses
            return good

        return first_s, first_s + await self.until(steady)

    @asynccontextmanager
    async def running(self, clients: int) -> AsyncIterator[None]:
        """So many clients, until the context is left."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as t:
            for number in range(clients):
                t.create_task(self._client(session, random.Random(number)))
            try:
                yield
            finally:
                self._stopping = True

    async def _client(self, session: aiohttp.ClientSession, dice: random.Random) -> None:
        await asyncio.sleep(dice.uniform(0, 2 * self._think_s))
        while not self._stopping:
            number = self._pick(dice)
            body = question(number, stream=dice.random() < 0.5)
            began = time.perf_counter()
            try:
                answer = await ask(session, self._url, body, **self._headers)
            except (AssertionError, aiohttp.ClientError, TimeoutError) as problem:
                self.faults.append(f"question {number} failed: {problem!r:.300}")
            else:
                self.phase.took_s.append(time.perf_counter() - began)
                self.phase.hits += answer.cache == "hit"
                self.phase.misses += answer.cache == "miss"
                if answer.content != answer_to(number):
                    self.faults.append(f"question {number} got {answer.content!r:.300}")
            async with self._progress:
                self._progress.notify_all()
            await asyncio.sleep(dice.uniform(0, 2 * self._think_s))

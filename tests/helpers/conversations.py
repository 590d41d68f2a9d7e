"""Many conversations at once, and what became of each turn: who answered, how much of its prompt
was cached there, and whether it was lost.

A conversation begins with what all of them share, then with thousands of tokens of its own; each turn
adds the answer and a question. What came of a turn is read from the engine's own words (`x-engine`,
usage), beside what the gateway says of it.
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

from gateway.lab.engine_server import NAME_HEADER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from tests.helpers.engine_process import EngineProcess

LETTERS_A_TOKEN = 4
WARM = 0.8
"""A turn is warm if so much of its conversation's previous prompt was still cached."""
DEADLINE_S = 40.0
"""Of one turn."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How the conversations are; sizes in tokens, times in seconds."""

    shared: int = 600
    """System prompt of all conversations."""
    own: tuple[int, int] = (1200, 3000)
    """What a conversation begins with."""
    question: tuple[int, int] = (150, 550)
    answer: int = 24
    longest: int = 8000
    """Of a prompt; then another conversation begins."""
    think_s: float = 0.6
    """Mean pause between an answer and the next question."""
    streams: float = 0.5
    """Part of the turns."""
    named: float = 0.25
    """Part of the conversations that say their session in a header."""


@dataclass(slots=True, eq=False)
class Turn:
    """One request and its answer."""

    conversation: str
    number: int
    """From 1 on."""
    named: bool
    streamed: bool
    asked_at: float
    status: int = 0
    began_s: float = 0.0
    """To the first byte of the body."""
    took_s: float = 0.0
    engine: str = ""
    """Who answered, in its own words."""
    backend: str = ""
    """Who answered, as the gateway says."""
    branch: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    before: int = 0
    """Tokens of the previous prompt of the conversation."""
    last_engine: str = ""
    """Who answered the previous turn."""
    engines: tuple[str, ...] = ()
    """Who answered any before."""
    fault: str = ""

    @property
    def uncached(self) -> int:
        return self.prompt_tokens - self.cached_tokens

    @property
    def is_warm(self) -> bool:
        return self.cached_tokens >= WARM * self.before

    @property
    def ended_at(self) -> float:
        return self.asked_at + self.took_s


@dataclass
class Crowd:
    """Conversations with one or more gateways (or engines): `pick` says whose turn is whose."""

    urls: Sequence[str]
    shape: Shape = field(default_factory=Shape)
    seed: int = 1
    pick: Callable[[Turn], int] | None = None
    """Index of the URL; unset: any."""
    asked: set[Turn] = field(default_factory=set)
    """Those that wait for an answer, or for its end."""
    turns: list[Turn] = field(default_factory=list)
    """Answered ones, in the order of their ends."""
    lost: list[Turn] = field(default_factory=list)
    """Requests that failed before anything of their answer came."""
    cut: list[Turn] = field(default_factory=list)
    """Requests whose answer broke off."""
    wrong: list[str] = field(default_factory=list)
    """Answers to something else."""

    def __post_init__(self) -> None:
        self._progress = asyncio.Condition()
        self._stopping = asyncio.Event()
        self._started = 0

    @asynccontextmanager
    async def running(self, conversations: int) -> AsyncIterator[None]:
        """So many at any time, until the context is left."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as talking,
        ):
            for number in range(conversations):
                talking.create_task(self._talk(session, random.Random(f"{self.seed} {number}")))
            try:
                yield
            finally:
                self._stopping.set()

    async def until(self, met: Callable[[], bool], deadline_s: float = 30.0) -> None:
        """Wait for what turns bring about."""
        async with asyncio.timeout(deadline_s), self._progress:
            await self._progress.wait_for(met)

    async def more(self, turns: int, deadline_s: float = 30.0) -> None:
        """Wait until so many more turns were answered."""
        wanted = len(self.turns) + turns
        await self.until(lambda: len(self.turns) >= wanted, deadline_s)

    def since(self, at: float, until: float = float("inf")) -> list[Turn]:
        """Turns that were asked from then on, and answered."""
        return [turn for turn in self.turns if at <= turn.asked_at < until]

    async def _talk(self, session: aiohttp.ClientSession, dice: random.Random) -> None:
        await self._pause(dice.uniform(0, 2 * self.shape.think_s))
        while not self._stopping.is_set():
            self._started += 1
            await self._converse(session, dice, f"c{self._started}")

    async def _converse(
        self, session: aiohttp.ClientSession, dice: random.Random, name: str
    ) -> None:
        shape = self.shape
        opening = f"Conversation {name}. " + _text(dice, dice.randint(*shape.own))
        messages = [
            {"role": "system", "content": _text(random.Random(self.seed), shape.shared)},
            {"role": "user", "content": opening},
        ]
        named = dice.random() < shape.named
        before, number = 0, 1
        engines: list[str] = []
        while not self._stopping.is_set():
            turn = Turn(
                conversation=name,
                number=number,
                named=named,
                streamed=dice.random() < shape.streams,
                asked_at=time.perf_counter(),
                before=before,
                last_engine=engines[-1] if engines else "",
                engines=tuple(dict.fromkeys(engines)),
            )
            self.asked.add(turn)
            try:
                answer = await self._ask(session, turn, messages)
            finally:
                self.asked.discard(turn)
            if answer is not None:
                asked = f"turn {number} of {name}"
                if number > 1 and asked not in answer:
                    self.wrong.append(f"{asked}: {answer[:200]!r}")
                before, number = turn.prompt_tokens, number + 1
                engines.append(turn.engine)
                more = f"This is turn {number} of {name}. "
                more += _text(dice, dice.randint(*shape.question))
                messages += [
                    {"role": "assistant", "content": answer},
                    {"role": "user", "content": more},
                ]
            async with self._progress:
                self._progress.notify_all()
            await self._pause(dice.uniform(0, 2 * shape.think_s))
            if before > shape.longest:
                return

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _ask(
        self, session: aiohttp.ClientSession, turn: Turn, messages: list[dict[str, str]]
    ) -> str | None:
        """The answer's text; None where there is none, or not all of it."""
        body: dict[str, Any] = {
            "model": "simulated",
            "messages": messages,
            "max_tokens": self.shape.answer,
        }
        if turn.streamed:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        which = self.pick(turn) if self.pick else random.randrange(len(self.urls))
        headers = {"content-type": "application/json", "authorization": "Bearer sk-test"}
        if turn.named:
            headers["x-session-id"] = turn.conversation
        got = bytearray()
        is_whole = False
        try:
            async with session.post(
                f"{self.urls[which]}/v1/chat/completions", data=orjson.dumps(body), headers=headers
            ) as response:
                turn.status = response.status
                turn.engine = response.headers.get(NAME_HEADER, "")
                turn.backend = response.headers.get("x-gateway-backend", "")
                turn.branch = response.headers.get("x-gateway-affinity", "")
                async for piece in response.content.iter_any():
                    turn.began_s = turn.began_s or time.perf_counter() - turn.asked_at
                    got += piece
                is_whole = True
        except (aiohttp.ClientError, TimeoutError) as problem:
            turn.fault = f"{type(problem).__name__}: {problem}"
        turn.took_s = time.perf_counter() - turn.asked_at
        if turn.status == 200 and is_whole:
            text = _read_stream(turn, got) if turn.streamed else _read(turn, got)
            if text is not None:
                self.turns.append(turn)
                return text
        turn.fault = turn.fault or bytes(got[:300]).decode(errors="replace")
        (self.cut if turn.status == 200 and got else self.lost).append(turn)
        return None


@dataclass
class Load:
    """What each engine had to do, looked at several times a second; times as `time.perf_counter`."""

    samples: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    """When, and the requests at each engine that could be asked."""

    @asynccontextmanager
    async def watching(self, fleet: Sequence[EngineProcess]) -> AsyncIterator[None]:
        """Look until the context is left. Who joins `fleet` is looked at from then on."""
        stopping = asyncio.Event()
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1.0)) as session,
            asyncio.TaskGroup() as looking,
        ):
            looking.create_task(self._look(session, fleet, stopping))
            try:
                yield
            finally:
                stopping.set()

    async def _look(
        self,
        session: aiohttp.ClientSession,
        fleet: Sequence[EngineProcess],
        stopping: asyncio.Event,
    ) -> None:
        async def at(engine: EngineProcess) -> tuple[str, int | None]:
            try:
                state = await engine.state(session)
            except (aiohttp.ClientError, TimeoutError):
                return engine.name, None
            return engine.name, state["running"] + state["waiting"]

        while not stopping.is_set():
            found = await asyncio.gather(*map(at, fleet))
            seen = {name: count for name, count in found if count is not None}
            self.samples.append((time.perf_counter(), seen))
            try:
                async with asyncio.timeout(0.25):
                    await stopping.wait()
            except TimeoutError:
                continue

    def overloaded_s(self) -> dict[str, float]:
        """By requests there: seconds in a row above `FACTOR` times the mean, and more than two
        requests above it; in averages of a second.
        """
        buckets: dict[int, list[dict[str, int]]] = {}
        for at, seen in self.samples:
            buckets.setdefault(int(at), []).append(seen)
        rows = {
            second: {
                name: statistics.fmean([seen[name] for seen in looks if name in seen])
                for name in {name for seen in looks for name in seen}
            }
            for second, looks in sorted(buckets.items())
        }
        return _longest(rows, margin=2)

    def overworked_s(self, turns: Sequence[Turn], window_s: int = 5) -> dict[str, float]:
        """The same by work: uncached prompt tokens of the turns asked in the `window_s` up to each
        second.
        """
        rows: dict[int, dict[str, float]] = {}
        for second in sorted({int(at) for at, _ in self.samples})[window_s:]:
            there = {name for at, seen in self.samples if int(at) == second for name in seen}
            work = rows[second] = dict.fromkeys(there, 0.0)
            for turn in turns:
                if second - window_s < turn.asked_at <= second and turn.engine in work:
                    work[turn.engine] += turn.uncached
        return _longest(rows, margin=0)


FACTOR = 1.5


NEW_S = 10
"""Whoever came (or came back) less than this ago, its cache empty, does not pull the mean down."""


def _longest(rows: dict[int, dict[str, float]], margin: float) -> dict[str, float]:
    """For each name, for how many seconds in a row it has more than the others."""
    longest: dict[str, float] = {}
    row: dict[str, float] = {}
    since: dict[str, int] = dict.fromkeys(
        next(iter(rows.values()), {}), min(rows, default=0) - NEW_S
    )
    for second, loads in rows.items():
        since = {name: since.get(name, second) for name in loads}
        counted = [load for name, load in loads.items() if second - since[name] >= NEW_S]
        mean = statistics.fmean(counted) if counted else 0.0
        for name in loads.keys() | row.keys():
            over = loads.get(name, 0.0) > max(FACTOR * mean, mean + margin)
            row[name] = row.get(name, 0.0) + 1 if over else 0.0
            longest[name] = max(longest.get(name, 0.0), row[name])
    return longest


def warm_share(turns: Sequence[Turn]) -> float:
    """Part of the turns after a conversation's first whose previous prompt was cached; 1 of none."""
    later = [turn for turn in turns if turn.number > 1]
    return sum(turn.is_warm for turn in later) / len(later) if later else 1.0


def settled_after(turns: Sequence[Turn], share: float = 0.9, window: int = 64) -> int | None:
    """How many turns until that share of the next `window` is warm, and stays so; None: never."""
    later = [turn for turn in turns if turn.number > 1]
    settled: int | None = None
    for start in range(max(1, len(later) - window + 1)):
        good = warm_share(later[start : start + window]) >= share
        if not good:
            settled = None
        elif settled is None:
            settled = start
    return settled


def imbalance(turns: Sequence[Turn], names: Sequence[str]) -> float:
    """The most over the mean of uncached tokens, over these engines."""
    work = dict.fromkeys(names, 0)
    for turn in turns:
        if turn.engine in work:
            work[turn.engine] += turn.uncached
    return max(work.values()) / max(1.0, statistics.fmean(work.values()))


def told(turns: Sequence[Turn], names: Sequence[str]) -> str:
    """One line of figures."""
    if not turns:
        return "no turns"
    prompt, cached = sum(t.prompt_tokens for t in turns), sum(t.cached_tokens for t in turns)
    began = sorted(t.began_s for t in turns if t.streamed) or [0.0]
    return (
        f"{len(turns):5} turns  hit {cached / max(1, prompt):6.1%}  warm {warm_share(turns):6.1%}  "
        f"TTFT p50 {began[len(began) // 2]:5.2f} p90 {began[int(len(began) * 0.9)]:5.2f} s  "
        f"imbalance {imbalance(turns, names):4.2f}"
    )


def _text(dice: random.Random, tokens: int) -> str:
    """Words nobody else has."""
    return dice.randbytes(tokens * LETTERS_A_TOKEN // 2).hex()


def _usage(turn: Turn, usage: dict[str, Any] | None) -> None:
    told_ = usage or {}
    turn.prompt_tokens = told_.get("prompt_tokens", 0)
    turn.cached_tokens = (told_.get("prompt_tokens_details") or {}).get("cached_tokens", 0)


def _read(turn: Turn, got: bytearray) -> str | None:
    answer = orjson.loads(got)
    _usage(turn, answer["usage"])
    return str(answer["choices"][0]["message"]["content"])


def _read_stream(turn: Turn, got: bytearray) -> str | None:
    *events, _ = bytes(got).split(b"\n\n")
    if not events or events[-1] != b"data: [DONE]":
        return None
    text = ""
    for event in events[:-1]:
        chunk = orjson.loads(event.removeprefix(b"data: "))
        if chunk.get("usage"):
            _usage(turn, chunk["usage"])
        for choice in chunk["choices"]:
            text += choice["delta"].get("content") or ""
    return text

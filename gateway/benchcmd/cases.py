"""What is measured: one function for each case, which asks and says what came of it.

A case knows nothing of the others: each makes prompts of its own, that nobody has seen.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from gateway.benchcmd.asker import Failed, Refused, Trouble
from gateway.benchcmd.dialect import Message
from gateway.benchcmd.figures import Case, Row
from gateway.benchcmd.prompts import QUESTION, USUAL_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.benchcmd.asker import Asker, Timed
    from gateway.benchcmd.prompts import Prompts

ANSWER = 16
"""Tokens of an answer where its first is what matters."""
USUAL, LONG = 1024, 4096
"""Tokens of a prompt; of one whose head is shared."""
SIZES = {"short": 128, "medium": 1024, "long": 8192, "32k": 32_000}
LIMITS = (25, 50, 100, 150)
WARM_RUNS = 10
TURNS = 5
LEVELS = (1, 2, 4, 8)
_ROUNDS = 3
_LOST = 5
"""So many failures in a row, whatever they are: the endpoint is gone."""


class Extent(NamedTuple):
    """How much is asked."""

    runs: int
    quick: bool

    @property
    def rounds(self) -> int:
        """Runs of what takes long."""
        return min(self.runs, _ROUNDS)

    @property
    def warm_runs(self) -> int:
        """How often a prompt is asked again."""
        return 3 if self.quick else WARM_RUNS

    @property
    def messages(self) -> int:
        """In a row that have nothing in common."""
        return 3 if self.quick else TURNS

    @property
    def sizes(self) -> list[str]:
        """Of prompts."""
        return [name for name in SIZES if not (self.quick and name == "32k")]

    @property
    def levels(self) -> tuple[int, ...]:
        """How many requests at once."""
        return LEVELS[:3] if self.quick else LEVELS


@dataclass(slots=True)
class Bench:
    """What the cases ask with."""

    asker: Asker
    prompts: Prompts
    extent: Extent
    done: Callable[[], None]
    """Called after each request."""
    first: Row
    """The very first request of all, asked before any case."""
    lost: int = 0
    """Failures since the last answer."""

    async def ask(self, row: Row | None, messages: list[Message], max_tokens: int) -> Timed | None:
        """Ask, and note in the row what came of it; None where it failed. Raises Trouble when it
        seems that nobody is there any more.
        """
        try:
            timed = await self.asker.ask(messages, max_tokens)
        except Refused as refused:
            if row is not None:
                row.refused = str(refused)
            return None
        except Failed as failed:
            self.lost += 1
            if row is not None:
                row.failures.append(str(failed))
            if self.lost >= _LOST:
                raise Trouble(
                    f"{self.lost} requests in a row failed, the last with: {failed}"
                ) from failed
            return None
        finally:
            self.done()
        self.lost = 0
        if row is not None:
            row.timed.append(timed)
        return timed

    def headed(self, tokens: int) -> list[Message]:
        """A system prompt of so many tokens and a question."""
        return [Message("system", self.prompts.text(tokens)), _user(QUESTION)]


class Measured(NamedTuple):
    """A case, before it is measured."""

    title: str
    requests: Callable[[Extent], int]
    """How many, at most."""
    measure: Callable[[Bench, Case], Awaitable[None]]


async def _cold_start(bench: Bench, case: Case) -> None:
    fresh = Row("fresh prompts")
    case.rows += [bench.first, fresh]
    for _ in range(bench.extent.runs):
        # As long as the first was, which nobody could tell in tokens.
        await bench.ask(fresh, first_of_all(bench.prompts), ANSWER)
    _ratio(case, "first request / later ones", bench.first, fresh)


async def _warm_cache(bench: Bench, case: Case) -> None:
    first, again = Row("first time"), Row("again")
    case.rows += [first, again]
    messages = bench.headed(USUAL)
    await bench.ask(first, messages, ANSWER)
    for _ in range(bench.extent.warm_runs):
        await bench.ask(again, messages, ANSWER)
    _ratio(case, "speed-up", first, again)


async def _context(bench: Bench, case: Case) -> None:
    for name in bench.extent.sizes:
        cold, warm = Row(f"{name}, cold"), Row(f"{name}, warm")
        case.rows += [cold, warm]
        for _ in range(bench.extent.rounds):
            messages = bench.headed(SIZES[name])
            if cold.refused:
                # What doesn't fit will not do so the next time.
                bench.done()
                bench.done()
            elif await bench.ask(cold, messages, ANSWER) is None:
                bench.done()
            else:
                await bench.ask(warm, messages, ANSWER)
        _ratio(case, f"speed-up, {name}", cold, warm)


async def _max_tokens(bench: Bench, case: Case) -> None:
    for limit in LIMITS:
        row = Row(f"{limit} tokens")
        case.rows.append(row)
        for _ in range(bench.extent.runs):
            await bench.ask(row, bench.headed(SIZES["short"]), limit)


async def _conversation(bench: Bench, case: Case) -> None:
    first, following = Row("first message"), Row("following")
    case.rows += [first, following]
    for _ in range(bench.extent.runs):
        messages = bench.headed(LONG)
        for turn in range(TURNS):
            timed = await bench.ask(following if turn else first, messages, ANSWER)
            said = timed.text if timed else ""
            # An API may refuse a turn without text.
            messages = [*messages, Message("assistant", said.strip() or "Go on."), _user(QUESTION)]
    _ratio(case, "speed-up", first, following)


async def _prefill(bench: Bench, case: Case) -> None:
    new, known = Row("head is new"), Row("head is known")
    case.rows += [new, known]
    for _ in range(bench.extent.runs):
        head = Message("system", bench.prompts.text(LONG))
        for row in (new, known):
            question = _user(f"{bench.prompts.text(16)} {QUESTION}")
            await bench.ask(row, [head, question], ANSWER)
    _ratio(case, "speed-up", new, known)


async def _independent(bench: Bench, case: Case) -> None:
    first, following = Row("first message"), Row("following")
    case.rows += [first, following]
    for _ in range(bench.extent.runs):
        for turn in range(bench.extent.messages):
            messages = [_user(f"{bench.prompts.text(USUAL)} {QUESTION}")]
            await bench.ask(following if turn else first, messages, ANSWER)
    _ratio(case, "speed-up", first, following)


async def _warm_up(bench: Bench, case: Case) -> None:
    without, with_ = Row("without"), Row("with")
    case.rows += [without, with_]
    for _ in range(bench.extent.runs):
        await bench.ask(without, bench.headed(LONG), ANSWER)
        head = Message("system", bench.prompts.text(LONG))
        # What warms up is not what is asked then: only the system prompt can be known before.
        await bench.ask(None, [head, _user("Hello.")], 1)
        await bench.ask(with_, [head, _user(QUESTION)], ANSWER)
    _ratio(case, "speed-up", without, with_)


async def _concurrency(bench: Bench, case: Case) -> None:
    async def one(row: Row) -> None:
        for _ in range(bench.extent.rounds):
            await bench.ask(row, bench.headed(SIZES["short"]), LIMITS[1])

    for level in bench.extent.levels:
        row = Row(f"{level} at once")
        case.rows.append(row)
        began = perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(level):
                    group.create_task(one(row))
        except* Trouble as troubles:
            raise troubles.exceptions[0] from None
        finally:
            row.wall_s = perf_counter() - began


def first_of_all(prompts: Prompts) -> list[Message]:
    """What is asked before it is known how long a token is."""
    return [Message("system", prompts.sized(int(USUAL * USUAL_BYTES))), _user(QUESTION)]


def _user(text: str) -> Message:
    return Message("user", text)


def _ratio(case: Case, name: str, slow: Row, fast: Row) -> None:
    if slow.ttft_s and fast.ttft_s:
        case.ratios[name] = slow.ttft_s / fast.ttft_s


CASES: dict[str, Measured] = {
    "cold-start": Measured(
        "Cold start: the first request of all, then prompts that nobody has seen",
        lambda of: of.runs,
        _cold_start,
    ),
    "warm-cache": Measured(
        "Warm cache: one prompt again and again",
        lambda of: 1 + of.warm_runs,
        _warm_cache,
    ),
    "context": Measured(
        "Context size: prompts of 128, 1k, 8k and 32k tokens, new and repeated",
        lambda of: 2 * len(of.sizes) * of.rounds,
        _context,
    ),
    "max-tokens": Measured(
        "Length of the answer",
        lambda of: len(LIMITS) * of.runs,
        _max_tokens,
    ),
    "conversation": Measured(
        "A conversation is continued: 4k tokens of system prompt",
        lambda of: TURNS * of.runs,
        _conversation,
    ),
    "prefill": Measured(
        "Prefill: another question behind the same 4k tokens",
        lambda of: 2 * of.runs,
        _prefill,
    ),
    "independent": Measured(
        "Independent messages: nothing in common, so nothing to gain",
        lambda of: of.messages * of.runs,
        _independent,
    ),
    "warm-up": Measured(
        "Warm-up: a conversation begins, its 4k system prompt sent ahead of it or not",
        lambda of: 3 * of.runs,
        _warm_up,
    ),
    "concurrency": Measured(
        "Several at once",
        lambda of: sum(of.levels) * of.rounds,
        _concurrency,
    ),
}

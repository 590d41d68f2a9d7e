"""What planning a prompt's markers takes, step by step, and what is remembered for it.

    python -m bench.planning

Conversations go on turn by turn, as agents' do. `next turn`: the turns before it were seen;
`unknown`: what was read of them is not remembered any more. Medians, one thread, nothing else.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from bench.bodies import chat
from gateway.config.prompt_caching import PromptCache
from gateway.core.causes import facts, shares
from gateway.core.model import Usage
from gateway.core.money import bill
from gateway.core.plan import Markers
from gateway.core.planner import CachePlanner
from gateway.core.prefix import chain
from gateway.core.steadiness import Change, Compared, Shown, Steadiness
from gateway.providers.prices import price
from gateway.providers.prompt_cache_rules import cache_rules
from gateway.wire.beginnings import Beginnings
from gateway.wire.marking import marked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.ticket import Ticket
    from gateway.wire.beginnings import Reading

STEPS = ("read", "plan", "mark", "learn")
LATER = "prove"
"""After the answer, and only as often as there is time: in no sum."""
TURNS = 60
WARM = 10
_MIB = 1024 * 1024

_NAMES = {
    "anthropic_messages": ("anthropic", "claude-sonnet-4-5"),
    "openai_chat": ("openai", "gpt-5.6"),
}


def claude(size: int, blocks: int, turns: int, seed: int = 0) -> list[bytes]:
    """The last `turns` turns of one conversation that comes to `size` bytes and `blocks` blocks:
    tools, a system prompt, then calls and their results.
    """
    dice = random.Random(seed)
    each = size // blocks
    tools = [
        {"name": f"tool_{n}", "description": prose(dice, each), "input_schema": {"type": "object"}}
        for n in range(12)
    ]
    messages: list[dict[str, Any]] = [{"role": "user", "content": prose(dice, each)}]
    for n in range((blocks - len(tools) - 2) // 2):
        call = {"type": "tool_use", "id": f"toolu_{n:06d}", "name": "tool_1"}
        messages += [
            {
                "role": "assistant",
                "content": [{**call, "input": {"path": prose(dice, each - 160)}}],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": f"toolu_{n:06d}",
                        "content": prose(dice, each - 140),
                    }
                ],
            },
        ]
    head = {"model": "claude-sonnet-4-5", "max_tokens": 1024, "tools": tools}
    system = [{"type": "text", "text": f"You are assistant {seed}. {prose(dice, each)}"}]
    return [
        orjson.dumps({**head, "system": system, "messages": messages[: len(messages) - 2 * left]})
        for left in range(turns - 1, -1, -1)
    ]


def prose(dice: random.Random, length: int) -> str:
    words = ("cache", "line", "of", "the", "prompt", "returns", "a", "value", "handler", "\n")
    return " ".join(dice.choices(words, k=max(1, length // 5)))[:length]


def gpt(size: int, turns: int) -> list[bytes]:
    """The bench's own body, as the last turns of a conversation."""
    document = orjson.loads(chat(size))
    messages, last = document["messages"][:-1], document["messages"][-1]
    turns = min(turns, max(1, len(messages) // 4))
    return [
        orjson.dumps({**document, "messages": [*messages[: len(messages) - 4 * left], last]})
        for left in range(turns - 1, -1, -1)
    ]


def measure(api: str, bodies: Sequence[bytes], *, remembers: bool) -> tuple[dict[str, float], int]:
    """Median microseconds of each step and of their sum, and how many blocks there are."""
    provider, model = _NAMES[api]
    rules = cache_rules(provider, api, model)
    listed = price(provider, api, model)
    assert rules is not None
    assert listed is not None
    planner, known = CachePlanner(), Beginnings()
    proving = _Proving(api)
    took: dict[str, list[float]] = {step: [] for step in (*STEPS, "all", LATER)}
    count = 0
    rounds = 1 + WARM // len(bodies) + 30 // len(bodies)
    for number, body in enumerate([body for body in bodies for _ in range(rounds)]):
        now = 5.0 * number
        known = known if remembers else Beginnings()
        at = [time.perf_counter()]

        def step(work: Callable[[], Any], at: list[float] = at) -> Any:
            done = work()
            at.append(time.perf_counter())
            return done

        def read(body: bytes = body, known: Beginnings = known) -> Reading:
            start = known.begin(api, body, rules)
            reading = start.read()
            known.keep(start, reading)
            return reading

        reading = step(read)
        prompt = reading.prompt
        count = len(prompt.blocks)
        ticket: Ticket = step(partial(planner.plan, b"d", prompt, rules, Markers.AUTO, now))
        sent = step(partial(marked, body, prompt, ticket.plan, rules, reading.landmark))
        tokens = ticket.tokens[-1]
        before = ticket.tokens[ticket.read] if ticket.read >= 0 else 0
        usage = Usage(0, before, tokens - before, 0, 200)

        def learn(ticket: Ticket = ticket, usage: Usage = usage, now: float = now) -> None:
            planner.begun(ticket, now + 1.0)
            planner.learn(ticket, usage, now + 2.0)
            shares(usage, facts(ticket.prompt, ticket.plan, ticket.tokens, rules))
            bill(usage, listed)

        step(learn)
        if number >= WARM:
            for name, begin, end in zip(STEPS, at, at[1:], strict=False):
                took[name].append(end - begin)
            took["all"].append(at[-1] - at[0])

        if not remembers:
            proving = _Proving(api)
        begun = time.perf_counter()
        proving.prove(body, sent)
        if number >= WARM:
            took[LATER].append(time.perf_counter() - begun)
    return {name: statistics.median(each) * 1e6 for name, each in took.items()}, count


class _Proving:
    """What `gateway.proving` does with each answered request."""

    def __init__(self, api: str) -> None:
        self._api = api
        self._steadiness, self._known = Steadiness(), Beginnings()

    def prove(self, body: bytes, sent: bytes) -> None:
        """Read both, and compare."""
        prompts = []
        for each in (body, sent):
            start = self._known.begin(self._api, each, None)
            reading = start.read()
            self._known.keep(start, reading)
            prompts.append(reading.prompt)
        ends = [block.ends_message for block in prompts[0].blocks]
        shown = Shown(chain(prompts[0]), ends, chain(prompts[1]), Change.MARK)
        assert self._steadiness.compare(b"d", shown)[0] is not Compared.DRIFTED


def memory() -> dict[str, float]:
    """MiB that the largest trees take, and the largest memory of beginnings: distinct
    conversations of 400 blocks come until both are full.
    """
    api = "anthropic_messages"
    rules = cache_rules(_NAMES[api][0], api, _NAMES[api][1])
    assert rules is not None
    before = rss_bytes()
    budget = PromptCache().tree_bytes
    planner, known = CachePlanner(budget), Beginnings(budget // 2)
    most = 0
    for seed in range(700):
        (body,) = claude(64 * 1024, 400, 1, seed)
        start = known.begin(api, body, rules)
        reading = start.read()
        known.keep(start, reading)
        ticket = planner.plan(b"d", reading.prompt, rules, Markers.AUTO, float(seed))
        planner.begun(ticket, seed + 0.5)
        most = max(most, planner.size_bytes)
    return {
        "trees, at most": most / _MIB,
        "their budget, for all models and credentials": budget / _MIB,
        "beginnings": known.size_bytes / _MIB,
        "budget of these": budget / 2 / _MIB,
        "both in the process": (rss_bytes() - before) / _MIB,
    }


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Print it."""
    cases = [("Claude, 256 KB", "anthropic_messages", claude(256 * 1024, 400, TURNS))]
    for name, size in (("1 KB", 1024), ("32 KB", 32 * 1024), ("256 KB", 256 * 1024)):
        cases.append((f"GPT, {name}", "openai_chat", gpt(size, TURNS)))
    columns = (*STEPS, "all", LATER)
    print("| microseconds | blocks | " + " | ".join(columns) + " |")
    print("| --- |" + " ---: |" * (len(columns) + 1))
    for name, api, bodies in cases:
        for what, remembers in (("next turn", True), ("unknown", False)):
            took, blocks = measure(api, bodies, remembers=remembers)
            figures = " | ".join(f"{took[step]:.0f}" for step in columns)
            print(f"| {name}, {what} | {blocks} | {figures} |", flush=True)
    print()
    for name, mib in memory().items():
        print(f"{name}: {mib:.1f} MiB")


if __name__ == "__main__":
    main()

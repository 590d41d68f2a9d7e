"""Replicas, purges, answers on their way, and a register that loses what it had: nothing that was
asked for before a purge is served after everybody has heard of it.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from hypothesis import given, note, settings
from hypothesis import strategies as st

from gateway.core.model import Reason
from gateway.core.purges import Mark, Marks, following
from gateway.store.generations import Generations, Version
from tests.helpers.entries import entry
from tests.properties.conftest import EXAMPLES, many

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from gateway.core.model import Entry
    from gateway.store.generations import News

REPLICAS = 3
NAMES = ["tag:a", "tag:b", "model:m", "*"]
JITTER_BITS = 40
"""Two equal sequences, which are rare, are not what these tests are about."""

ROUNDS = 5
"""Looks of everybody, one after the other, until all have heard of everything."""


class Register:
    """One that can be emptied, or set back to a former state, and whose clock can be set."""

    shared = True

    def __init__(self) -> None:
        self.clock = 0.0
        self.lives = 0
        self.dice = random.Random(7)
        self.empty()

    def empty(self) -> None:
        self.version = Version(0, 0)
        self.marks: dict[str, Mark] = {}

    def state(self) -> tuple[Version, dict[str, Mark]]:
        return self.version, dict(self.marks)

    async def look(self) -> Version:
        return self.version

    async def read(self) -> tuple[Version, dict[str, Mark]]:
        return self.state()

    async def purge(self, names: Sequence[str], before: float | None, above: int) -> int:
        sequence = self._rise(above)
        for name in names:
            self._join(name, Mark(sequence if before is None else 0, before or 0.0))
        return sequence

    async def join(self, marks: Mapping[str, Mark], above: int) -> None:
        known = Marks()
        known.join(self.marks, 0)
        new = {name: mark for name, mark in marks.items() if not known.covers(name, mark)}
        if new or self.version.sequence < above:
            self._rise(above)
            for name, mark in new.items():
                self._join(name, mark)

    @asynccontextmanager
    async def news(self) -> AsyncIterator[AsyncIterator[News | None]]:
        raise NotImplementedError  # nobody listens here
        yield

    def _join(self, name: str, mark: Mark) -> None:
        self.marks[name] = self.marks.get(name, Mark()).joined(mark)

    def _rise(self, above: int) -> int:
        if self.version.incarnation == 0:
            self.lives += 1
        sequence = following(
            max(above, self.version.sequence), self.clock, self.dice.getrandbits(JITTER_BITS)
        )
        self.version = Version(self.version.incarnation or self.lives, sequence)
        return sequence


replica = st.integers(0, REPLICAS - 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("purge"), replica, st.sampled_from(NAMES)),
        st.tuples(st.just("ask"), replica, st.sampled_from([("a",), ("b",), ("a", "b"), ()])),
        st.tuples(st.just("look"), replica, st.none()),
        st.tuples(st.just("restart"), replica, st.none()),
        st.tuples(st.just("empty"), st.none(), st.none()),
        st.tuples(st.just("remember"), st.none(), st.none()),
        st.tuples(st.just("set back"), st.none(), st.none()),
        st.tuples(st.just("clock"), st.none(), st.integers(0, 2**42)),
    ),
    max_size=40,
)


async def play(script: list[tuple[str, int | None, object]], *, losses: bool) -> None:
    register = Register()
    replicas = [Generations(register) for _ in range(REPLICAS)]
    for each in replicas:
        await each.refresh()
    asked: list[tuple[int, int, Entry]] = []
    purged: list[tuple[int, int, str]] = []
    kept = register.state()
    for step, (what, who, how) in enumerate(script):
        if what in {"empty", "set back"}:
            # Everybody looks each second: a register loses what it had once between two looks.
            for each in replicas * 2:
                await each.refresh()
        match what:
            case "purge":
                assert isinstance(who, int)
                await replicas[who].purge([str(how)])
                purged.append((step, who, str(how)))
            case "ask":
                assert isinstance(who, int)
                assert isinstance(how, tuple)
                generation = replicas[who].sequence
                made = entry(tags=how, model="m", generation=generation, stored_at=1e9)
                asked.append((step, who, made))
            case "look":
                assert isinstance(who, int)
                await replicas[who].refresh()
            case "clock":
                assert isinstance(how, int)
                if losses or how / 1e6 > register.clock:
                    register.clock = how / 1e6
            case "restart" if not losses:
                # Beside losses, what only it knew would be lost with it.
                assert isinstance(who, int)
                replicas[who] = Generations(register)
            case "remember" if losses:
                kept = register.state()
            case "set back" if losses:
                register.version, register.marks = kept[0], dict(kept[1])
            case "empty" if losses:
                register.empty()
    for _ in range(ROUNDS):
        for each in replicas:
            await each.refresh()
    names = {"a": "tag:a", "b": "tag:b"}
    for when, _, made in asked:
        mine = {"*", "model:m", *(names[tag] for tag in made.tags)}
        dead = any(at > when and name in mine for at, _, name in purged)
        for number, each in enumerate(replicas):
            refused = each.refuse(made)
            note(f"{made.tags} of step {when} at {number}: {refused}")
            if dead:
                assert refused is Reason.PURGED
    newest = replicas[0].sequence
    assert [each.sequence for each in replicas] == [newest] * REPLICAS
    held = Marks()
    held.join(register.marks, 0)
    for each in replicas:
        # But for what a purge of everything makes superfluous, they are the same.
        assert not each.marks.lacking(register.marks)
        assert not held.lacking(each.marks.all())
    # What is asked for now can be served, by everybody.
    for each in replicas:
        fresh = entry(tags=("a", "b"), model="m", generation=each.sequence, stored_at=1e9)
        assert [other.refuse(fresh) for other in replicas] == [None] * REPLICAS


@settings(many, max_examples=max(200, EXAMPLES // 4))
@given(steps)
def test_what_was_asked_for_before_a_purge_is_dead_once_everybody_has_looked(
    script: list[tuple[str, int | None, object]],
) -> None:
    asyncio.run(play(script, losses=False))


@settings(many, max_examples=max(200, EXAMPLES // 4))
@given(steps)
def test_it_stays_dead_when_the_register_is_emptied_or_set_back_and_its_clock_too(
    script: list[tuple[str, int | None, object]],
) -> None:
    asyncio.run(play(script, losses=True))

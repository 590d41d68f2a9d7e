"""Whatever prompts come: a difference is really the first one, what goes on has none, and memory is
bounded.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.blocks import Section
from gateway.core.lineup import lineup
from gateway.core.neighbours import Neighbours
from gateway.core.prefix import CachePrompt, Kind, PrefixBlock, chain

SIZE = 40
letters = st.integers(0, 5)
saids = st.lists(letters, min_size=1, max_size=12)


def prompt(systems: list[int], said: list[int]) -> CachePrompt:
    blocks = [
        PrefixBlock(Section.SYSTEM, Kind.TEXT, "", ("system", n), SIZE, 100 + each)
        for n, each in enumerate(systems)
    ]
    blocks += [
        PrefixBlock(
            Section.MESSAGES, Kind.TEXT, "user", ("messages", n), SIZE, each, ends_message=True
        )
        for n, each in enumerate(said)
    ]
    return CachePrompt("api", "model", tuple(blocks), 1, 2)


prompts = st.builds(prompt, st.lists(letters, max_size=3), saids)


@given(st.lists(prompts, min_size=1, max_size=12), prompts)
def test_a_difference_is_the_first_one_and_what_is_behind_it_recurs(
    earlier: list[CachePrompt], new: CachePrompt
) -> None:
    known = Neighbours()
    latest: dict[str, CachePrompt] = {}
    for number, each in enumerate(earlier):
        known.add("whose", lineup(each, chain(each)), str(number))
        latest[str(number)] = each
    found = known.find("whose", new, lineup(new, chain(new)), 10)
    if found is None:
        return
    ours = [block.digest for block in new.blocks]
    theirs = [block.digest for block in latest[found.neighbour].blocks]
    assert ours[: found.block] == theirs[: found.block]
    assert ours[found.block] != (theirs + [-1] * len(ours))[found.block]
    behind = sum(min(ours[found.block :].count(d), theirs.count(d)) for d in set(ours))
    assert 10 <= found.recurring_tokens <= behind * SIZE // 4
    assert 4 * found.recurring_tokens >= SIZE * (len(ours) - found.block) / 4


@given(st.lists(prompts, max_size=8), prompts, st.lists(letters, min_size=1, max_size=6))
def test_what_goes_on_was_changed_from_nothing_before_its_end(
    others: list[CachePrompt], first: CachePrompt, more: list[int]
) -> None:
    known = Neighbours()
    for number, each in enumerate([*others, first]):
        known.add("whose", lineup(each, chain(each)), str(number))
    said = [block.digest for block in first.blocks if block.section is Section.MESSAGES]
    systems = [b.digest - 100 for b in first.blocks if b.section is Section.SYSTEM]
    new = prompt(systems, [*said, *more])
    found = known.find("whose", new, lineup(new, chain(new)), 1)
    assert found is None or found.block >= len(first.blocks)


@given(st.lists(prompts, max_size=60), st.integers(2_000, 20_000))
def test_memory_is_bounded_and_what_is_counted_adds_up(
    earlier: list[CachePrompt], budget: int
) -> None:
    known = Neighbours(budget)
    for number, each in enumerate(earlier):
        known.add(number % 3, lineup(each, chain(each)), str(number))
        assert known.size_bytes <= budget
    while len(known):
        known._forget(next(iter(known._known)))
    assert known.size_bytes == 0
    assert not known._owners

"""Each documented rule of the prompt caches, as the simulation keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.blocks import Section
from gateway.core.model import Usage
from gateway.core.prefix import Kind, PrefixBlock, chain
from gateway.lab.cache_replay import tokens_of
from gateway.lab.cache_sim import CacheSim, MarksRefused, eligible_endings, rendered_chain
from tests.helpers.cache_shapes import (
    ANTHROPIC,
    BY_ITSELF,
    FIVE,
    HOUR,
    OPENAI,
    block,
    prompt,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.providers.prompt_cache import CacheRules

A, B, C, D = block("a"), block("b"), block("c"), block("d")


class Asking:
    """One simulated cache, asked with blocks and marks."""

    def __init__(self, rules: CacheRules = ANTHROPIC) -> None:
        self.sim = CacheSim(rules)

    def __call__(
        self,
        now: float,
        blocks: Sequence[PrefixBlock],
        marks: Sequence[tuple[int, int]] = (),
        *,
        scope: str = "s",
        model: str = "m",
        automatic: int = 0,
        mode: str = "",
        takes: float | None = 1.0,
    ) -> Usage:
        asked = prompt(blocks, model)
        return self.sim.request(
            now,
            scope,
            rendered_chain(asked),
            tokens_of(blocks, exact=True),
            blocks=blocks,
            marks=marks,
            automatic_ttl=automatic,
            mode=mode,
            first_byte_at=None if takes is None else now + takes,
        )


def used(uncached: int = 0, read: int = 0, short: int = 0, hour: int = 0) -> Usage:
    return Usage(uncached, read, short, hour)


def test_without_a_mark_nothing_is_written_or_read() -> None:
    ask = Asking()
    assert used(200) == ask(0, [A, B])
    assert used(200) == ask(10, [A, B])
    assert len(ask.sim) == 0


def test_what_was_written_at_a_mark_is_read_and_the_tail_after_it_is_uncached() -> None:
    ask = Asking()
    assert used(100, short=200) == ask(0, [A, B, C], [(1, FIVE)])
    assert used(100, read=200) == ask(10, [A, B, D], [(1, FIVE)])


def test_only_marked_boundaries_are_stored() -> None:
    ask = Asking()
    ask(0, [A, B, C], [(2, FIVE)])
    assert used(short=300) == ask(10, [A, B, D], [(2, FIVE)])


def test_any_difference_before_the_mark_is_a_miss() -> None:
    ask = Asking()
    ask(0, [A, B], [(1, FIVE)])
    assert used(short=200) == ask(10, [C, B], [(1, FIVE)])


def test_a_prefix_below_the_minimum_is_neither_written_nor_read() -> None:
    ask = Asking()
    short = block("a", 99)
    assert used(99) == ask(0, [short], [(0, FIVE)])
    assert used(99) == ask(10, [short], [(0, FIVE)])
    assert len(ask.sim) == 0


def test_a_mark_looks_back_twenty_positions_itself_included() -> None:
    for more, read in ((19, 100), (20, 0)):
        ask = Asking()
        ask(0, [A], [(0, FIVE)])
        longer = [A, *(block(f"x{i}") for i in range(more))]
        assert read == ask(10, longer, [(more, FIVE)]).cache_read


@pytest.mark.parametrize("kind", [Kind.TOOL_USE, Kind.TOOL_RESULT])
def test_a_run_of_tool_uses_or_results_is_one_position(kind: Kind) -> None:
    ask = Asking()
    ask(0, [A], [(0, FIVE)])
    run = [block(f"x{i}", kind=kind) for i in range(40)]
    assert ask(10, [A, *run], [(40, FIVE)]).cache_read == 100


def test_an_interior_mark_bridges_what_the_look_back_does_not() -> None:
    ask = Asking()
    ask(0, [A], [(0, FIVE)])
    longer = [A, *(block(f"x{i}") for i in range(30))]
    assert ask(10, longer, [(15, FIVE), (30, FIVE)]).cache_read == 100


def test_the_highest_hit_counts() -> None:
    ask = Asking()
    ask(0, [A, B, C], [(0, FIVE), (1, FIVE), (2, FIVE)])
    assert used(100, read=200) == ask(10, [A, B, D], [(0, FIVE), (1, FIVE)])


def test_a_mark_finds_an_entry_of_either_lifetime_and_does_not_change_it() -> None:
    ask = Asking()
    ask(0, [A], [(0, FIVE)])
    assert used(read=100) == ask(10, [A], [(0, HOUR)])
    assert used(hour=100) == ask(10 + FIVE + 1, [A], [(0, HOUR)])


@pytest.mark.parametrize("ttl_s", [FIVE, HOUR])
def test_an_entry_lives_from_the_start_of_the_request_that_wrote_it(ttl_s: int) -> None:
    for late, read in ((0, 100), (1, 0)):
        ask = Asking()
        ask(0, [A], [(0, ttl_s)], takes=100)
        assert read == ask(ttl_s + late, [A], [(0, ttl_s)]).cache_read


def test_each_hit_renews_the_entry_by_its_own_lifetime() -> None:
    ask = Asking()
    ask(0, [A], [(0, FIVE)])
    for turn in range(1, 6):
        assert used(read=100) == ask(turn * 290, [A], [(0, HOUR)])


def test_only_the_entry_that_was_hit_is_renewed() -> None:
    ask = Asking()
    ask(0, [A, B], [(0, FIVE), (1, FIVE)])
    ask(200, [A, B], [(0, FIVE), (1, FIVE)])
    assert used(100, short=100) == ask(400, [A, C], [(0, FIVE)])


def test_an_entry_can_be_read_once_the_answer_that_wrote_it_has_begun() -> None:
    ask = Asking()
    ask(0, [A], [(0, FIVE)], takes=5)
    assert used(short=100) == ask(4, [A], [(0, FIVE)], takes=5)
    assert used(read=100) == ask(5, [A], [(0, FIVE)], takes=5)


def test_a_request_that_fails_writes_nothing_and_renews_nothing() -> None:
    ask = Asking()
    assert used() == ask(0, [A], [(0, FIVE)], takes=None)
    assert used(short=100) == ask(10, [A], [(0, FIVE)])
    ask(200, [A], [(0, FIVE)], takes=None)
    assert used(short=100) == ask(320, [A], [(0, FIVE)])


def test_mixed_lifetimes_are_billed_from_the_hit_to_the_last_hour_mark_and_on() -> None:
    ask = Asking()
    ask(0, [A], [(0, FIVE)])
    marks = [(1, HOUR), (2, FIVE)]
    assert used(100, read=100, short=100, hour=100) == ask(10, [A, B, C, D], marks)


def test_an_hour_mark_on_a_little_growth_keeps_the_whole_prefix_for_an_hour() -> None:
    ask = Asking()
    ask(0, [block("a", 5000)], [(0, FIVE)])
    assert used(read=5000, hour=100) == ask(10, [block("a", 5000), B], [(1, HOUR)])
    assert ask(3000, [block("a", 5000), B, C], [(2, FIVE)]).cache_read == 5100


def test_models_and_scopes_share_nothing() -> None:
    ask = Asking()
    ask(0, [A], [(0, FIVE)])
    assert used(short=100) == ask(10, [A], [(0, FIVE)], model="other")
    assert used(short=100) == ask(10, [A], [(0, FIVE)], scope="other")


def test_moving_marks_changes_no_fingerprint() -> None:
    ask = Asking()
    marked = A._replace(client_ttl_s=FIVE)
    ask(0, [marked], [(0, FIVE)])
    assert used(100, read=100) == ask(10, [A, B], [(0, FIVE)])


def test_the_top_level_marker_moves_with_the_last_block_and_walks_back_from_thinking() -> None:
    ask = Asking()
    thinking = block("t", kind=Kind.THINKING, can_mark=False)
    assert used(100, short=100) == ask(0, [A, thinking], automatic=FIVE)
    assert used(read=100, short=100) == ask(10, [A, B], automatic=FIVE)
    assert used(100) == ask(20, [thinking], automatic=FIVE)


def test_the_top_level_marker_adds_nothing_where_the_last_block_has_the_same() -> None:
    assert used(short=100) == Asking()(0, [A], [(0, FIVE)], automatic=FIVE)


FOUR = [(i, FIVE) for i in range(4)]


@pytest.mark.parametrize(
    ("marks", "automatic", "why"),
    [
        (
            [*FOUR, (4, FIVE)],
            0,
            "A maximum of 4 blocks with cache_control may be provided. Found 5.",
        ),
        (FOUR, FIVE, "A maximum of 4"),
        ([(0, FIVE), (1, HOUR)], 0, "must not come after"),
        ([(0, FIVE)], HOUR, "must not come after"),
        ([(5, FIVE)], HOUR, "differ in lifetime"),
        ([(6, FIVE)], 0, "can't carry a marker"),
        ([(7, FIVE)], 0, "can't carry a marker"),
        ([(0, 60)], 0, "no lifetime of 60 s"),
    ],
)
def test_the_provider_refuses(marks: list[tuple[int, int]], automatic: int, why: str) -> None:
    blocks = [block(f"x{i}") for i in range(6)]
    if any(index > 5 for index, _ in marks):
        blocks += [
            block("t", kind=Kind.THINKING, can_mark=False),
            block("p", until=10),
            block("q"),
        ]
    ask = Asking()
    with pytest.raises(MarksRefused, match=why):
        ask(0, blocks, marks, automatic=automatic)
    assert len(ask.sim) == 0


def test_a_text_that_is_split_is_not_the_text_as_it_was() -> None:
    whole = [block("a", until=5), block("b")]
    split = [block("a"), block("b")]
    assert chain(prompt(whole)) == chain(prompt(split))
    assert rendered_chain(prompt(whole))[-1] != rendered_chain(prompt(split))[-1]
    assert rendered_chain(prompt(split)) == chain(prompt(split))


# --- OpenAI, GPT-5.6 and later

DEV = block("dev", section=Section.SYSTEM, role="developer")
SAID = block("said", role="assistant", can_mark=False)
TOOL_1 = block("t1", kind=Kind.TOOL_RESULT, role="tool")
TOOL_2 = block("t2", kind=Kind.TOOL_RESULT, role="tool")


def test_implicit_mode_writes_at_the_last_eligible_ending() -> None:
    ask = Asking(OPENAI)
    assert used(short=200) == ask(0, [DEV, A])
    assert used(read=200, short=200) == ask(10, [DEV, A, SAID, B])
    assert used(100, read=400) == ask(20, [DEV, A, SAID, B, SAID])


def test_eligible_endings_are_users_groups_of_tool_results_and_the_first_developer_block() -> None:
    more = block("more", section=Section.SYSTEM, role="developer")
    late = block("late", role="developer")
    tools = block("tool", kind=Kind.TOOL, section=Section.TOOLS, role="")
    first = block("part", ends=False)
    blocks = [tools, DEV, more, first, A, SAID, TOOL_1, TOOL_2, SAID, late, B]
    assert eligible_endings(blocks) == [2, 4, 7, 10]


def test_there_is_no_fallback_to_a_shared_prefix_without_a_mark() -> None:
    ask = Asking(OPENAI)
    ask(0, [DEV, A])
    assert used(short=200) == ask(10, [DEV, B])


def test_an_explicit_mark_beside_the_implicit_one_is_read_by_others() -> None:
    ask = Asking(OPENAI)
    ask(0, [DEV, A], [(0, 1800)])
    assert used(read=100, short=100) == ask(10, [DEV, B])


def test_explicit_mode_without_marks_caches_nothing() -> None:
    ask = Asking(OPENAI)
    assert used(200) == ask(0, [DEV, A], mode="explicit")
    assert used(short=200) == ask(10, [DEV, A])
    assert used(200) == ask(20, [DEV, A], mode="explicit")


def test_explicit_mode_writes_at_marks_only() -> None:
    ask = Asking(OPENAI)
    assert used(100, short=100) == ask(0, [DEV, A], [(0, 1800)], mode="explicit")
    assert used(100, read=100) == ask(10, [DEV, B], [(0, 1800)], mode="explicit")


@pytest.mark.parametrize(("mode", "written"), [("implicit", 4), ("explicit", 4)])
def test_the_latest_marks_are_written_and_the_others_dropped(mode: str, written: int) -> None:
    ask = Asking(OPENAI)
    blocks = [block(f"x{i}") for i in range(8)]
    ask(0, blocks, [(i, 1800) for i in range(7)], mode=mode)
    assert len(ask.sim) == written
    kept = {"implicit": [4, 5, 6, 7], "explicit": [3, 4, 5, 6]}[mode]
    for index in range(8):
        again = blocks[: index + 1]
        read = ask(1, [*again, block("z")], [(index, 1800)], mode="explicit").cache_read
        assert read == (100 * (index + 1) if index in kept else 0)


def test_lookup_takes_the_first_two_and_the_latest_fifty_marks() -> None:
    blocks = [block(f"x{i}") for i in range(60)]
    for at, found in ((1, True), (5, False), (10, True)):
        ask = Asking(OPENAI)
        ask(0, blocks[: at + 1], [(at, 1800)], mode="explicit")
        usage = ask(10, blocks, [(i, 1800) for i in range(60)], mode="explicit")
        assert (usage.cache_read > 0) == found


def test_implicit_lookup_takes_twenty_earlier_endings_and_the_developer_block() -> None:
    for more, read in ((20, 200), (21, 0)):
        ask = Asking(OPENAI)
        ask(0, [DEV, A])
        longer = [DEV, A, *(block(f"x{i}") for i in range(more))]
        assert read == ask(10, longer).cache_read
    ask = Asking(OPENAI)
    ask(0, [DEV], [(0, 1800)])
    longer = [DEV, *(block(f"x{i}") for i in range(40))]
    assert ask(10, longer).cache_read == 100


def test_thirty_minutes_count_from_the_latest_use() -> None:
    ask = Asking(OPENAI)
    ask(0, [DEV, A])
    assert ask(1800, [DEV, A]).cache_read == 200
    assert ask(3600, [DEV, A]).cache_read == 200
    assert ask(5401, [DEV, A]).cache_read == 0


# --- OpenAI before

LONG = [block("s", 2000), block("u", 100)]


def test_older_models_read_by_themselves_in_steps_of_128_and_bill_no_write() -> None:
    ask = Asking(BY_ITSELF)
    assert used(2100) == ask(0, LONG)
    assert used(2100 - 2048, read=2048) == ask(10, LONG)
    assert used(2100 - 1920, read=1920) == ask(20, [LONG[0], block("other", 100)])
    assert used(2100) == ask(20 + FIVE + 1, LONG)


def test_older_models_read_nothing_below_their_minimum_and_take_no_marker() -> None:
    ask = Asking(BY_ITSELF)
    ask(0, [A])
    assert used(100) == ask(10, [A])
    with pytest.raises(MarksRefused, match="takes no markers"):
        ask(20, [A], [(0, FIVE)])


# --- of any traffic

NAMES = "abc"


@st.composite
def requests(draw: st.DrawFn) -> list[tuple[float, str, list[tuple[int, int]], float | None]]:
    now = 0.0
    found = []
    for _ in range(draw(st.integers(1, 12))):
        now += draw(st.sampled_from([0.0, 1.0, 250.0, 400.0, 4000.0]))
        names = draw(st.text(NAMES, min_size=1, max_size=5))
        marks = draw(st.sets(st.integers(0, len(names) - 1), max_size=4))
        hours = draw(st.integers(0, 4))
        placed = [(i, HOUR if n < hours else FIVE) for n, i in enumerate(sorted(marks))]
        found.append((now, names, placed, draw(st.sampled_from([0.5, 3.0, None]))))
    return found


@given(requests())
def test_usage_adds_up_and_nothing_is_read_that_was_not_written(
    asked: list[tuple[float, str, list[tuple[int, int]], float | None]],
) -> None:
    ask = Asking()
    written: set[str] = set()
    for now, names, marks, takes in asked:
        usage = ask(now, [block(name) for name in names], marks, takes=takes)
        if takes is None:
            assert usage == used()
            continue
        assert usage.input == 100 * len(names)
        assert min(usage.uncached_input, usage.cache_write_5m, usage.cache_write_1h) >= 0
        assert usage.cache_read == 0 or names[: usage.cache_read // 100] in written
        written |= {names[: index + 1] for index, _ in marks}


def test_memory_is_bounded_by_what_is_alive() -> None:
    ask = Asking()
    for turn in range(20_000):
        ask(turn * 1.0, [block(f"x{turn}")], [(0, FIVE)])
    assert len(ask.sim) < 5000

"""What the simulated cache knows of each miss: one cause after the other, reckoned by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.core.blocks import Section
from gateway.core.miss import Miss, MissCause
from gateway.lab import sim_pieces
from gateway.lab.cache_replay import tokens_of
from gateway.lab.cache_sim import CacheSim, rendered_chain
from gateway.lab.sim_causes import Case, Causes
from gateway.lab.sim_losses import Losses
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
    from collections.abc import Hashable, Sequence

    from gateway.core.prefix import PrefixBlock
    from gateway.providers.prompt_cache import CacheRules

A, B, C, D, E = (block(name) for name in "abcde")


class Asking:
    """One simulated cache that judges."""

    def __init__(self, rules: CacheRules = ANTHROPIC, losses: Losses | None = None) -> None:
        self.sim = CacheSim(rules, Causes(), losses)

    def __call__(
        self,
        now: float,
        blocks: Sequence[PrefixBlock],
        marks: Sequence[tuple[int, int]] = (),
        *,
        machine: Hashable = 0,
        model: str = "m",
        key: str = "",
        messages_seed: int = 2,
        mode: str = "",
        takes: float | None = 1.0,
    ) -> Miss | None:
        asked = prompt(blocks, model)._replace(messages_seed=messages_seed)
        case = Case("owner", ("owner", key), machine, sim_pieces.of_prompt(asked, key))
        self.sim.request(
            now,
            (key, machine),
            rendered_chain(asked),
            tokens_of(blocks, exact=True),
            blocks=blocks,
            marks=marks,
            mode=mode,
            first_byte_at=None if takes is None else now + takes,
            case=case,
        )
        return case.miss


def cause(miss: Miss | None) -> MissCause | None:
    return miss.cause if miss is not None else None


def changed(miss: Miss | None) -> tuple[MissCause | None, int, str, int, int]:
    assert miss is not None
    return miss.cause, miss.block, miss.kind, miss.lost_tokens, len(miss.path)


def test_the_first_prompt_is_cold_and_the_next_turn_misses_nothing() -> None:
    ask = Asking()
    assert ask(0, [A, B], [(1, FIVE)]) == Miss(MissCause.COLD, 0)
    assert ask(10, [A, B, C], [(2, FIVE)]) is None
    assert ask(20, [A, B, C, D], [(3, FIVE)]) is None


def test_a_request_that_failed_is_neither_judged_nor_remembered() -> None:
    ask = Asking()
    assert ask(0, [A, B], [(1, FIVE)], takes=None) is None
    assert cause(ask(10, [A, B], [(1, FIVE)])) is MissCause.COLD


def test_what_nobody_has_begun_to_answer_was_not_kept() -> None:
    ask = Asking()
    ask(0, [A, B], [(1, FIVE)], takes=5.0)
    assert cause(ask(4, [A, B], [(1, FIVE)])) is MissCause.COLD
    assert ask(5, [A, B], [(1, FIVE)]) is None


def test_what_was_last_used_longer_ago_than_it_lives_has_expired() -> None:
    ask = Asking()
    ask(0, [A, B, C], [(2, FIVE)])
    assert ask(FIVE, [A, B, C], [(2, FIVE)]) is None
    assert ask(2 * FIVE, [A, B, C], [(2, FIVE)]) is None
    late = ask(3 * FIVE + 1, [A, B, C], [(2, FIVE)])
    assert late == Miss(MissCause.TTL_EXPIRED, 300)


def test_of_what_is_left_of_an_expired_prefix_only_the_rest_was_missed() -> None:
    ask = Asking()
    ask(0, [A, B, C], [(0, HOUR), (2, FIVE)])
    assert ask(1000, [A, B, C, D], [(0, HOUR), (3, FIVE)]) == Miss(MissCause.TTL_EXPIRED, 200)


def test_while_it_is_written_anew_it_has_still_expired() -> None:
    ask = Asking()
    ask(0, [A, B], [(1, FIVE)])
    assert cause(ask(1000, [A, B], [(1, FIVE)], takes=9.0)) is MissCause.TTL_EXPIRED
    assert cause(ask(1005, [A, B], [(1, FIVE)])) is MissCause.TTL_EXPIRED
    assert ask(1010, [A, B], [(1, FIVE)]) is None


@pytest.mark.parametrize(("between", "expected"), [(18, None), (19, MissCause.LOOKBACK_EXCEEDED)])
def test_what_lies_further_back_than_is_looked_is_out_of_reach(
    between: int, expected: MissCause | None
) -> None:
    ask = Asking()
    ask(0, [A, B], [(1, FIVE)])
    more = [block(f"x{n}") for n in range(between + 1)]
    assert cause(ask(10, [A, B, *more], [(len(more) + 1, FIVE)])) is expected


def test_what_lies_behind_the_last_marker_or_without_any_is_out_of_reach() -> None:
    ask = Asking()
    ask(0, [A, B, C], [(0, FIVE), (2, FIVE)])
    assert ask(10, [A, B, C], [(0, FIVE)]) == Miss(MissCause.LOOKBACK_EXCEEDED, 200)
    assert ask(20, [A, B, C]) == Miss(MissCause.LOOKBACK_EXCEEDED, 300)


def test_what_another_machine_holds_is_told_apart_from_what_was_dropped() -> None:
    ask = Asking(losses=Losses(capacity=2))
    ask(0, [A, B], [(1, FIVE)], machine=1)
    assert cause(ask(10, [A, B], [(1, FIVE)], machine=2)) is MissCause.OTHER_BACKEND
    ask(20, [C, D], [(1, FIVE)], machine=2)
    assert cause(ask(30, [A, B], [(1, FIVE)], machine=1)) is MissCause.EVICTED
    assert cause(ask(400, [A, B], [(1, FIVE)], machine=3)) is MissCause.TTL_EXPIRED


def test_a_share_of_what_would_be_read_is_gone_and_its_loss_is_repeatable() -> None:
    def told() -> list[MissCause | None]:
        ask = Asking(losses=Losses(share=0.5, seed=7))
        return [cause(ask(n, [A, B], [(1, FIVE)])) for n in range(1, 40)]

    assert told() == told()
    assert set(told()[2:]) == {None, MissCause.EVICTED}


def test_a_change_with_enough_of_the_same_behind_it_is_named_with_its_place() -> None:
    ask = Asking()
    ask(0, [A, B, C, D], [(3, FIVE)])
    found = ask(10, [A, E, C, D], [(3, FIVE)])
    assert found == Miss(MissCause.PREFIX_CHANGED, 200, "$.e", "message", 1)


def test_too_little_behind_a_change_is_no_change() -> None:
    ask = Asking()
    small = block("s", 99)
    ask(0, [A, B, small], [(2, FIVE)])
    assert cause(ask(10, [A, E, small], [(2, FIVE)])) is MissCause.COLD
    much = [block(f"y{n}", 1000) for n in range(3)]
    assert cause(ask(20, [E, *much, A, B], [(2, FIVE)])) is MissCause.COLD


def test_who_goes_on_missed_nothing_whatever_others_have_said_alike() -> None:
    ask = Asking()
    ask(0, [E, B, C, D], [(3, FIVE)])
    assert changed(ask(10, [A, B], [(1, FIVE)]))[:2] == (MissCause.PREFIX_CHANGED, 0)
    assert ask(20, [A, B, C, D], [(3, FIVE)]) is None


@pytest.mark.parametrize(
    ("more", "kind", "at"),
    [
        ({"model": "n"}, "model", 0),
        ({"key": "k"}, "cache_key", 0),
        ({"messages_seed": 3}, "tool_choice", 1),
    ],
)
def test_what_is_in_no_block_is_named_by_what_it_is(
    more: dict[str, object], kind: str, at: int
) -> None:
    ask = Asking()
    blocks = [block("sys", section=Section.SYSTEM), A, B]
    ask(0, blocks, [(2, FIVE)])
    found = ask(10, blocks, [(2, FIVE)], **more)  # type: ignore[arg-type]
    assert changed(found)[:3] == (MissCause.PREFIX_CHANGED, at, kind)


def test_tools_in_another_order_are_told_apart_from_other_tools() -> None:
    one, two, three, four = (block(f"t{n}", section=Section.TOOLS) for n in range(4))
    ask = Asking()
    ask(0, [one, two, three, A, B], [(4, FIVE)])
    assert changed(ask(10, [two, one, three, A, B], [(4, FIVE)]))[1:4] == (0, "tool_order", 500)
    assert changed(ask(20, [one, four, three, A, B], [(4, FIVE)]))[1:4] == (1, "tools", 300)


def test_a_text_that_is_split_elsewhere_is_another_prompt() -> None:
    whole, piece = block("p"), block("p", until=3)
    ask = Asking()
    ask(0, [whole, B, C], [(2, FIVE)])
    assert changed(ask(10, [piece, B, C], [(2, FIVE)]))[:2] == (MissCause.PREFIX_CHANGED, 0)


def test_what_is_too_short_or_shares_too_little_is_below_the_minimum() -> None:
    ask = Asking(replace(ANTHROPIC, minimum_tokens=250))
    assert cause(ask(0, [A, B], [(1, FIVE)])) is MissCause.BELOW_MINIMUM
    assert cause(ask(10, [A, C, D], [(2, FIVE)])) is MissCause.BELOW_MINIMUM
    assert cause(ask(30, [block("x"), block("y"), block("z")], [(2, FIVE)])) is MissCause.COLD


def test_openais_implicit_mode_reads_where_it_looks() -> None:
    ask = Asking(OPENAI)
    assert cause(ask(0, [A, B])) is MissCause.COLD
    assert ask(10, [A, B, C]) is None
    assert cause(ask(20, [A, B, C], mode="explicit")) is MissCause.LOOKBACK_EXCEEDED


def test_an_automatic_cache_misses_nothing_below_its_grain() -> None:
    ask = Asking(BY_ITSELF)
    long, tail, other = block("l", 1100), block("t", 20), block("u", 2000)
    assert cause(ask(0, [long, tail])) is MissCause.COLD
    assert ask(10, [long, tail, other]) is None
    assert ask(20, [long, block("v", 50)]) is None
    assert cause(ask(30, [long, tail, other], machine=1)) is MissCause.OTHER_BACKEND
    assert cause(ask(900, [long, tail, other])) is MissCause.TTL_EXPIRED

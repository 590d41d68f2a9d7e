from __future__ import annotations

import random
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from gateway.core.blocks import Section
from gateway.core.foresight import Foresight, Sent
from gateway.core.kept import Entry, Kept
from gateway.core.miss import CacheOutcome, MissCause
from gateway.core.model import Usage
from gateway.core.prefix import CachePrompt, Kind, PrefixBlock, chain
from gateway.providers.prompt_cache_rules import cache_rules

if TYPE_CHECKING:
    from gateway.providers.prompt_cache import CacheRules

ENGINE = cache_rules("vllm", "openai_chat", "llama")
AUTOMATIC = cache_rules("openai", "openai_chat", "gpt-4o")
CLAUDE = cache_rules("anthropic", "anthropic_messages", "claude-sonnet-4-5")
_BYTES = 8000


def prompt(said: str, ttl_s: int = 300) -> CachePrompt:
    """Blocks of 2,000 tokens each; the last one carries the client's marker."""
    blocks = [
        PrefixBlock(
            *(Section.MESSAGES, Kind.TEXT, "user", ("messages", n), _BYTES, ord(each)),
            client_ttl_s=ttl_s if n == len(said) - 1 else 0,
            ends_message=True,
        )
        for n, each in enumerate(said)
    ]
    return CachePrompt("api", "model", tuple(blocks), 1, 2)


class Talk:
    """One foresight that is asked, and answered at once."""

    def __init__(
        self, rules: CacheRules | None, *, pool: bool = False, states_read: bool = True
    ) -> None:
        assert rules is not None
        self.states_read = states_read
        self.rules = rules
        self.pool = pool
        self.foresight = Foresight()
        self.asked = 0
        self.model = "model"
        self.per_block = 2000
        """Tokens, as the answers count them."""

    def ask(
        self, said: str, read: int, at: float, *, machine: str = "", wrote: int | None = None
    ) -> tuple[CacheOutcome, CacheOutcome]:
        """What was foreseen, and what came true."""
        one = prompt(said)._replace(model=self.model)
        sent = Sent(b"d", one, self.rules, None, "", chain(one), self.pool)
        self.asked += 1
        found = self.foresight.foresee(sent, str(self.asked), at)
        assert found is not None
        before = found.outcome
        total = self.per_block * len(said)
        write = (total - read if wrote is None else wrote) if self.rules.takes_markers else 0
        usage = Usage(total - read - write, read, write, 0, 10)
        judge = self.foresight.judge
        return before, judge(found, usage, machine, at + 1.0, states_read=self.states_read)


def cause(outcome: CacheOutcome) -> MissCause | None:
    return outcome.miss.cause if outcome.miss is not None else None


def test_what_was_written_is_expected_and_its_absence_is_an_eviction() -> None:
    talk = Talk(CLAUDE)
    before, after = talk.ask("ab", 0, 0.0)
    assert (before.expected, cause(before), cause(after)) == (0, MissCause.COLD, MissCause.COLD)
    before, after = talk.ask("abc", 4000, 60.0)
    assert before == CacheOutcome(4000)
    assert after == CacheOutcome(4000, 4000, 2000)
    before, after = talk.ask("abcd", 0, 120.0)
    assert (before.expected, cause(before)) == (6000, None)
    assert after.miss is not None
    assert (after.miss.cause, after.miss.lost_tokens) == (MissCause.EVICTED, 6000)


def test_what_was_lost_is_not_expected_until_it_was_written_again() -> None:
    talk = Talk(CLAUDE)
    talk.ask("ab", 0, 0.0)
    talk.ask("abx", 0, 10.0, wrote=0)
    before, _ = talk.ask("aby", 0, 20.0)
    assert (before.expected, cause(before)) == (0, MissCause.EVICTED)


def test_reading_renews_a_lifetime_and_what_is_older_has_expired() -> None:
    talk = Talk(CLAUDE)
    talk.ask("ab", 0, 0.0)
    assert cause(talk.ask("abc", 4000, 299.0)[1]) is None
    assert cause(talk.ask("abd", 4000, 598.0)[0]) is None
    before, after = talk.ask("abe", 0, 900.0)
    assert (cause(before), cause(after)) == (MissCause.TTL_EXPIRED, MissCause.TTL_EXPIRED)


def test_a_short_prompt_is_below_the_minimum_not_cold() -> None:
    rules = CLAUDE
    assert rules is not None
    foresight, one = Foresight(), prompt("a")
    short = one._replace(blocks=(one.blocks[0]._replace(size=100),))
    found = foresight.foresee(Sent(b"d", short, rules, None, "", chain(short)), "r", 0.0)
    assert found is not None
    assert cause(found.outcome) is MissCause.BELOW_MINIMUM
    after = foresight.judge(found, Usage(25, 0, 0, 0, 1), "", 1.0, states_read=True)
    assert cause(after) is MissCause.BELOW_MINIMUM


def test_an_automatic_cache_reads_in_steps_and_that_is_no_miss() -> None:
    talk = Talk(AUTOMATIC)
    talk.ask("ab", 0, 0.0)
    before, after = talk.ask("abc", 3968, 10.0)
    assert (before.expected, cause(after)) == (4000, None)
    after = talk.ask("abcd", 3968, 20.0)[1]
    assert after.miss is not None
    assert after.miss.cause is MissCause.EVICTED


def test_of_a_pool_another_replica_may_hold_it() -> None:
    talk = Talk(ENGINE, pool=True)
    talk.ask("ab", 0, 0.0, machine="one")
    assert cause(talk.ask("abc", 4000, 10.0, machine="one")[1]) is None
    before, after = talk.ask("abd", 0, 20.0, machine="two")
    assert (before.expected, cause(before)) == (4000, None)
    assert cause(after) is MissCause.OTHER_BACKEND
    assert cause(talk.ask("abe", 0, 30.0, machine="two")[1]) is MissCause.EVICTED


def test_an_engine_that_never_told_of_a_read_is_not_judged() -> None:
    talk = Talk(ENGINE, pool=True, states_read=False)
    talk.ask("ab", 0, 0.0, machine="one")
    assert talk.ask("abc", 0, 10.0, machine="one")[1] == CacheOutcome(4000)


def test_who_never_tells_of_reads_is_not_said_to_have_evicted_anything() -> None:
    talk = Talk(AUTOMATIC, states_read=False)
    talk.ask("ab", 0, 0.0)
    for number, said in enumerate(("abc", "abcd", "abcde"), 1):
        assert talk.ask(said, 0, 10.0 * number)[1].miss is None
    # From the first read that is told of on, silence means none.
    assert talk.ask("abcdef", 9984, 50.0)[1] == CacheOutcome(10_000, 9984, 0)
    assert cause(talk.ask("abcdefg", 0, 60.0)[1]) is MissCause.EVICTED


def test_of_who_never_tells_of_reads_it_is_told_what_no_read_could_change() -> None:
    talk = Talk(AUTOMATIC, states_read=False)
    assert cause(talk.ask("abcd", 0, 0.0)[1]) is MissCause.COLD
    after = talk.ask("xbcd", 0, 10.0)[1]
    assert (after.read, cause(after)) == (None, MissCause.PREFIX_CHANGED)


def test_a_read_of_nothing_that_is_stated_is_believed() -> None:
    talk = Talk(AUTOMATIC, states_read=True)
    talk.ask("ab", 0, 0.0)
    assert cause(talk.ask("abc", 0, 10.0)[1]) is MissCause.EVICTED


def test_that_one_model_tells_of_reads_says_nothing_of_another() -> None:
    talk = Talk(AUTOMATIC, states_read=False)
    talk.ask("ab", 0, 0.0)
    talk.ask("abc", 3968, 10.0)
    talk.model = "other"
    talk.ask("ab", 0, 20.0)
    assert talk.ask("abc", 0, 30.0)[1].miss is None


@pytest.mark.parametrize("usage", [None, Usage(0, 0, 0, 0, 0)])
def test_what_was_foreseen_of_a_call_that_said_nothing_is_no_miss(usage: Usage | None) -> None:
    foresight, one = Foresight(), prompt("ab")
    assert CLAUDE is not None
    found = foresight.foresee(Sent(b"d", one, CLAUDE, None, "", chain(one)), "r", 0.0)
    assert found is not None
    assert cause(found.outcome) is MissCause.COLD
    assert foresight.judge(found, usage, "", 1.0) == CacheOutcome(0)


def test_never_more_is_expected_than_the_prompt_came_to() -> None:
    talk = Talk(AUTOMATIC)
    talk.per_block = 6000
    for number, said in enumerate(("ab", "abc", "abcd")):
        talk.ask(said, 0, 10.0 * number)
    # A text of another kind: a third as many tokens by byte.
    talk.per_block = 2000
    talk.ask("vwx", 0, 100.0)
    before, after = talk.ask("vwyz", 3968, 110.0)
    assert after.expected == before.expected == 4000
    # Where it is known only afterwards:
    talk.per_block = 200
    _, after = talk.ask("vwyzz", 896, 120.0)
    assert after.expected <= 1000


def test_tokens_lost_to_a_change_are_never_more_than_the_prompt_came_to() -> None:
    talk = Talk(AUTOMATIC)
    talk.per_block = 1200
    talk.ask("abcdef", 0, 0.0)
    after = talk.ask("xbcdef", 0, 10.0)[1]
    assert after.miss is not None
    assert (after.miss.cause, after.miss.lost_tokens) == (MissCause.PREFIX_CHANGED, 6000)


def test_memory_is_bounded() -> None:
    rules = CLAUDE
    assert rules is not None
    foresight = Foresight(60_000)
    for number in range(300):
        one = prompt(f"{chr(200 + number)}bc")
        found = foresight.foresee(Sent(b"d", one, rules, None, "", chain(one)), "r", float(number))
        assert found is not None
        foresight.judge(found, Usage(0, 0, 6000, 0, 1), "", number + 0.5)
        assert foresight.size_bytes <= 60_000


def test_an_entry_takes_what_is_counted_for_it() -> None:
    dice = random.Random(1)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = Kept(1 << 30)
        for _ in range(20_000):
            entry = Entry("#0", 300.0, dice.random(), dice.random())
            kept.write(dice.getrandbits(64), entry)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.6 * kept.size_bytes < taken < 1.4 * kept.size_bytes


def test_only_so_many_are_remembered_to_tell_of_what_they_read() -> None:
    assert AUTOMATIC is not None
    foresight = Foresight()
    one = prompt("ab")
    for number in range(10_050):
        whose = number.to_bytes(4, "big")
        sent = Sent(whose, one, AUTOMATIC, None, "", chain(one))
        found = foresight.foresee(sent, str(number), float(number))
        assert found is not None
        foresight.judge(found, Usage(2000, 2000, 0, 0, 1), "", number + 0.5)
    assert len(foresight._reports) <= 10_000

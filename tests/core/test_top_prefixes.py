"""What many requests begin with: found in the planner's trees, ranked, told without content."""

from __future__ import annotations

from gateway.core.prefix import chain
from gateway.core.top_prefixes import TopPrefix, ranked
from tests.helpers.prompts import Provider, answered, prompt, said, system, tools


def found(provider: Provider, now: float) -> list[TopPrefix]:
    return ranked((each for some in provider.planner.prefixes(now, 50) for each in some), 50)


def test_what_conversations_share_is_one_prefix_with_its_tokens_share_and_time_left() -> None:
    provider = Provider()
    head = [tools(1, 2000), system(2, 1500)]
    for number in range(10):
        provider.ask([*head, said(100 + number, 100)], 20.0 * number)
    first = found(provider, 200.0)[0]
    assert first.fingerprint == list(chain(prompt(*head)))[-1]
    assert (first.requests, first.of, first.tokens) == (10, 10, 3500)
    assert first.left_s is not None
    assert 0.0 < first.left_s <= first.ttl_s
    assert found(provider, 100_000.0)[0].left_s == 0.0


def test_a_conversation_is_one_prefix_not_one_for_each_turn() -> None:
    provider = Provider()
    blocks = [tools(1, 2000), said(1, 500)]
    for turn in range(12):
        provider.ask(blocks, 20.0 * turn)
        blocks = [*blocks, answered(10 + turn, 80), said(50 + turn, 200)]
    assert len(found(provider, 300.0)) <= 2


def test_what_came_once_is_no_prefix_that_recurs() -> None:
    provider = Provider()
    for number in range(10):
        provider.ask([said(number, 1500)], 20.0 * number)
    assert found(provider, 300.0) == []


def test_the_heaviest_come_first() -> None:
    light, heavy = (
        TopPrefix(number, "a", "m", requests, 100, tokens)
        for number, (requests, tokens) in enumerate([(90, 10), (10, 1000)])
    )
    unknown = TopPrefix(3, "a", "m", 50, 100, 0)
    assert ranked([unknown, light, heavy, heavy], 2) == [heavy, light]

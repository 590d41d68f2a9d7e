from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.blocks import Section
from gateway.core.foresight import Foresight, Sent
from gateway.core.kept import Kept
from gateway.core.miss import MissCause
from gateway.core.model import Usage
from gateway.core.prefix import CachePrompt, Kind, PrefixBlock, chain
from gateway.providers.prompt_cache_rules import cache_rules

if TYPE_CHECKING:
    import pytest

    from gateway.core.kept import Entries

_TOKENS = 100


def sent(digests: list[int]) -> Sent:
    """A prompt of many short messages to a provider that keeps each of their ends."""
    blocks = [
        PrefixBlock(
            *(Section.MESSAGES, Kind.TEXT, "user", ("messages", n), 4 * _TOKENS, digest),
            ends_message=True,
        )
        for n, digest in enumerate(digests)
    ]
    prompt = CachePrompt("openai_chat", "gpt-4o", tuple(blocks), 1, 2)
    rules = cache_rules("openai", "openai_chat", "gpt-4o")
    assert rules is not None
    return Sent(b"d", prompt, rules, None, "", chain(prompt))


def looks(blocks: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often it is looked up what is kept, to judge a prompt of which half was read."""
    foresight = Foresight()
    first = foresight.foresee(sent(list(range(blocks))), "r0", 0.0)
    assert first is not None
    foresight.judge(first, Usage(_TOKENS * blocks, 0, 0, 0, 1), "", 1.0)
    second = foresight.foresee(sent([*range(blocks - 1), -1 & 0xFFFF]), "r1", 2.0)
    assert second is not None
    foresight.begun(second, 3.0)
    counted = 0
    find = Kept.find

    def counting(kept: Kept, prefix: int) -> Entries:
        nonlocal counted
        counted += 1
        return find(kept, prefix)

    with monkeypatch.context() as patched:
        patched.setattr(Kept, "find", counting)
        half = _TOKENS * blocks // 2
        after = foresight.judge(second, Usage(_TOKENS * blocks - half, half, 0, 0, 1), "", 4.0)
    assert after.miss is not None
    assert after.miss.cause is MissCause.EVICTED
    assert counted >= blocks
    return counted


def test_judging_four_times_as_many_blocks_takes_four_times_as_many_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert looks(800, monkeypatch) < 4.5 * looks(200, monkeypatch)

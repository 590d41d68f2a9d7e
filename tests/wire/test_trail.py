"""What two prompts share is what their trails share."""

from __future__ import annotations

from itertools import takewhile
from operator import eq
from typing import Any

import pytest

from gateway.core.trail import Trail
from gateway.wire.trail import (
    LONG_BYTES,
    MANY_STEPS,
    OPEN_PIECE_BYTES,
    OPEN_PIECE_TOKENS,
    PIECE_BYTES,
    trail,
)

CHAT = "openai_chat"


def _chat(*texts: str, **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    return {"model": "m", "messages": messages, **more}


def _shared(one: Trail, other: Trail) -> int:
    return len(list(takewhile(bool, map(eq, one.prints, other.prints))))


def test_a_conversation_that_goes_on_has_all_steps_of_its_last_turn() -> None:
    first = trail(CHAT, _chat("a" * 40, "b" * 80))
    second = trail(CHAT, _chat("a" * 40, "b" * 80, "c" * 120))
    assert second.prints[: len(first.prints)] == first.prints
    assert second.ends == (10, 30, 60)
    assert not second.is_open


def test_what_differs_in_the_middle_shares_what_comes_before() -> None:
    one = trail(CHAT, _chat("a", "b", "c"))
    assert _shared(one, trail(CHAT, _chat("a", "x", "c"))) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"model": "n"},
        {"cache_salt": "s"},
        {"lora_path": "l"},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_is_rendered_in_front_changes_every_step(more: dict[str, Any]) -> None:
    plain = trail(CHAT, _chat("a", "b"))
    assert not set(plain.prints) & set(trail(CHAT, _chat("a", "b") | more).prints)


def test_what_only_samples_changes_nothing() -> None:
    plain = trail(CHAT, _chat("a", "b"))
    assert trail(CHAT, _chat("a", "b", temperature=0.5, response_format={"type": "text"})) == plain


def test_a_seed_keeps_the_same_prompt_apart() -> None:
    one, other = (trail(CHAT, _chat("a"), seed) for seed in (b"one", b"other"))
    assert not set(one.prints) & set(other.prints)


def test_tools_come_before_the_messages_whatever_the_order_of_members() -> None:
    tool: Any = {"type": "function", "function": {"name": "f"}}
    one = trail(CHAT, {"tools": [tool], **_chat("a")})
    assert trail(CHAT, _chat("a", tools=[tool])) == one
    assert _shared(one, trail(CHAT, _chat("b", tools=[tool]))) == 1


def test_long_texts_share_the_pieces_before_they_part() -> None:
    text = "".join(f"{n:07d} " for n in range(2000))
    one = trail(CHAT, _chat(text + "one"))
    other = trail(CHAT, _chat(text + "other", "more"))
    assert _shared(one, other) == len(text) // PIECE_BYTES
    assert one.ends[:2] == (PIECE_BYTES // 4, PIECE_BYTES // 2)
    assert one.tokens == (len(text) + 3) // 4


def test_a_text_of_wide_characters_is_cut_at_bytes() -> None:
    text = "ä€" * 3000
    one, other = trail(CHAT, _chat(text + "x")), trail(CHAT, _chat(text + "y"))
    assert _shared(one, other) == len(text.encode()) // PIECE_BYTES


def test_where_a_long_text_ends_belongs_to_its_last_step() -> None:
    whole = "a" * (3 * PIECE_BYTES)
    shorter = trail(CHAT, _chat(whole))
    longer = trail(CHAT, _chat(whole + "b" * PIECE_BYTES))
    assert _shared(shorter, longer) == 2


def test_members_beside_a_long_text_count() -> None:
    text = "a" * (LONG_BYTES + 1)
    named: list[Any] = [{"role": "user", "name": "n", "content": text}]
    one = trail(CHAT, _chat(text, "b"))
    other = trail(CHAT, {"model": "m", "messages": named})
    assert one.prints[: len(other.prints)] != other.prints


@pytest.mark.parametrize(
    ("api", "document"),
    [
        ("openai_chat", {"messages": [{"role": "system", "content": "s"}]}),
        (
            "openai_chat",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "t" * 9000}]}]},
        ),
        ("openai_responses", {"instructions": "i", "input": "t" * 9000}),
        (
            "openai_responses",
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "o" * 9000}]},
        ),
        (
            "anthropic_messages",
            {"system": "s" * 9000, "messages": [{"role": "user", "content": "t"}]},
        ),
        (
            "anthropic_messages",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "t" * 9000}]}]},
        ),
    ],
)
def test_every_api_with_messages_has_a_trail(api: str, document: dict[str, Any]) -> None:
    found = trail(api, {"model": "m", **document})
    assert len(found.prints) == len(found.ends) == len(set(found.prints))
    assert list(found.ends) == sorted(found.ends)
    is_long = any(len(str(value)) > LONG_BYTES for value in document.values())
    assert (len(found.prints) >= 5) == is_long


@pytest.mark.parametrize(
    ("api", "document"),
    [
        ("openai_embeddings", {"model": "m", "input": "text"}),
        ("openai_chat", ["no object"]),
        ("openai_chat", {"messages": [{"role": "r" * 100, "content": "a"}]}),
        ("openai_completions", {"model": "m"}),
        ("openai_completions", {"prompt": [1, "mixed"]}),
        ("openai_completions", {"prompt": [1 << 70]}),
    ],
)
def test_what_has_no_prompt_that_can_be_read_has_no_steps(api: str, document: Any) -> None:
    assert trail(api, document) == Trail(is_open=False)


def test_a_previous_response_stands_before_the_input() -> None:
    one = trail("openai_responses", {"input": "a"})
    assert not _shared(one, trail("openai_responses", {"input": "a", "previous_response_id": "r"}))


# --- texts without messages -----------------------------------------------------------------------


def test_a_text_that_goes_on_shares_its_whole_pieces() -> None:
    text = "".join(f"{n:07d} " for n in range(500))
    one = trail("openai_completions", {"model": "m", "prompt": text})
    more = trail("openai_completions", {"model": "m", "prompt": text + "and more"})
    assert one.is_open
    assert _shared(one, more) == len(text) // OPEN_PIECE_BYTES
    assert one.tokens == len(text) // 4


def test_tokens_are_counted_and_not_guessed() -> None:
    tokens: Any = list(range(3 * OPEN_PIECE_TOKENS + 10))
    found = trail("openai_completions", {"prompt": tokens})
    assert found.ends == (*(n * OPEN_PIECE_TOKENS for n in (1, 2, 3)), len(tokens))
    assert found == trail("openai_completions", {"prompt": [tokens]})


def test_several_prompts_are_all_work() -> None:
    found = trail("openai_completions", {"prompt": ["a" * 400, "b" * 400]})
    assert found.tokens == 200


# --- very long ones -------------------------------------------------------------------------------


def test_the_steps_of_very_long_prompts_are_taken_together_the_same_way_at_any_length() -> None:
    texts = [str(n) for n in range(5 * MANY_STEPS)]
    one = trail(CHAT, _chat(*texts[:-100]))
    more = trail(CHAT, _chat(*texts))
    assert len(more.prints) < 3.3 * MANY_STEPS
    assert _shared(one, more) >= len(one.prints) - 1
    assert more.tokens == sum(map(len, texts)) // 4

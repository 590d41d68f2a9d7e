from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given

from gateway.core import canonical
from gateway.providers.registry import PROVIDERS, rules
from gateway.wire import (
    anthropic_messages_stream,
    openai_chat_stream,
    openai_responses_stream,
    plain_answers,
)
from gateway.wire.openai_completions_answer import CompletionShape
from tests.helpers.answers import document
from tests.helpers.dice import Dice
from tests.helpers.odd_json import odd, spelled
from tests.properties.conftest import many, seeds

if TYPE_CHECKING:
    from gateway.providers.base import ApiRules

APIS = ["openai_chat", "openai_completions", "anthropic_messages", "openai_responses"]


def is_plain(api: str, answer: dict[str, Any], table: ApiRules) -> bool:
    match api:
        case "openai_chat":
            return plain_answers.is_plain_chat(answer, table)
        case "openai_completions":
            return plain_answers.is_plain_completion(answer)
        case "anthropic_messages":
            return plain_answers.is_plain_message(answer)
        case _:
            return plain_answers.is_plain_response(answer)


def splits_cleanly(api: str, answer: dict[str, Any], table: ApiRules) -> bool:
    match api:
        case "openai_chat":
            return openai_chat_stream.splits_cleanly(answer, table)
        case "openai_completions":
            return CompletionShape().splits_cleanly(answer, table)
        case "anthropic_messages":
            return anthropic_messages_stream.splits_cleanly(answer)
        case _:
            return openai_responses_stream.splits_cleanly(answer)


def thrown(api: str, seed: int) -> tuple[dict[str, Any], ApiRules]:
    dice = Dice(seed)
    table = rules(dice.one(list(PROVIDERS.values())), api)
    made = document(dice, api)
    while True:
        text = spelled(dice, odd(dice, made))
        try:
            answer = canonical.parse(text)
        except canonical.Uncacheable:
            continue  # a member named twice
        assert isinstance(answer, dict)
        return answer, table


@pytest.mark.parametrize("api", APIS)
@many
@given(seeds)
def test_what_is_plain_splits_cleanly(api: str, seed: int) -> None:
    answer, table = thrown(api, seed)

    if is_plain(api, answer, table):
        assert splits_cleanly(api, answer, table), answer


@pytest.mark.parametrize("api", APIS)
def test_most_answers_are_plain_and_some_odd_ones_are_not(api: str) -> None:
    table = rules(PROVIDERS["anthropic" if "anthropic" in api else "openai"], api)
    plain = sum(is_plain(api, document(Dice(seed), api), table) for seed in range(300))
    odd_ones = sum(not is_plain(api, *thrown(api, seed)) for seed in range(300))

    assert plain == 300
    assert odd_ones > 15

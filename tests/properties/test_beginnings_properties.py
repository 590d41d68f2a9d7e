"""What is remembered of how prompts begin changes nothing of what they are read as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings

from gateway.wire.beginnings import Beginnings
from gateway.wire.marking import Unmarkable, marked
from gateway.wire.prompt_blocks import cache_prompt
from tests.helpers.prompt_dice import PromptDice, known_rules
from tests.properties.conftest import EXAMPLES, many, seeds

if TYPE_CHECKING:
    from gateway.core.prefix import CachePrompt
    from gateway.providers.prompt_cache import CacheRules
    from gateway.wire.beginnings import Reading

RULES = {api: rules for api, rules in known_rules().items() if api != "bedrock_converse"}
LIST = {"openai_responses": "input"}
PADDING = 'word \\ "quoted" \u00fc \\\\\\\\ ' * 40

# Each example is a long conversation, read turn by turn.
conversations = settings(many, max_examples=min(EXAMPLES, 1200))


def conversation(api: str, dice: PromptDice, rules: CacheRules) -> dict[str, Any]:
    """One body whose list of messages is long enough to be remembered."""
    name = LIST.get(api, "messages")
    body = dice.body(api, rules.form)
    for _ in range(8):
        document = dice.body(api, rules.form)
        more = document.get(name)
        has_media = not cache_prompt(api, document, rules).text_only
        if isinstance(more, list) and isinstance(body.get(name), list):
            body[name] += [] if has_media else more
            body[name].append({"role": "user", "content": PADDING * (1 + dice.up_to(5))})
    return body


def changed(body: dict[str, Any], name: str, dice: PromptDice) -> dict[str, Any]:
    """Another turn: longer, shorter, or with something else in it."""
    body = orjson.loads(orjson.dumps(body))
    said = body.get(name)
    if not isinstance(said, list) or not said:
        return body
    match dice.up_to(5):
        case 0:
            del said[dice.up_to(len(said) - 1) :]
        case 1:
            said[dice.up_to(len(said) - 1)] = {"role": "user", "content": PADDING}
        case 2:
            said.insert(dice.up_to(len(said)), {"role": "assistant", "content": "Yes."})
        case 3:
            body["system" if dice.yes() else "model"] = dice.prose()
        case _:
            pass
    for _ in range(dice.up_to(4)):
        said.append({"role": dice.one(("user", "assistant")), "content": PADDING})
    return body


def read(known: Beginnings, api: str, body: bytes, rules: CacheRules | None) -> Reading:
    start = known.begin(api, body, rules)
    reading = start.read()
    known.keep(start, reading)
    return reading


@pytest.mark.parametrize("api", RULES)
@conversations
@given(seed=seeds)
def test_a_prompt_is_read_the_same_with_a_memory_as_without(api: str, seed: int) -> None:
    dice = PromptDice(seed)
    name = LIST.get(api, "messages")
    known = Beginnings(dice.one((1 << 20, 1 << 20, 20_000)))
    bodies = [conversation(api, dice, dice.one(RULES[api])) for _ in range(2)]
    for _ in range(6):
        rules = dice.one(RULES[api])
        body = changed(dice.one(bodies), name, dice)
        if dice.yes():
            bodies[dice.up_to(1)] = body
        text = orjson.dumps(body)
        reading = read(known, api, text, rules)
        assert reading.prompt == cache_prompt(api, orjson.loads(text), rules)
        same_marks(text, reading, rules, dice)


def same_marks(body: bytes, reading: Reading, rules: CacheRules, dice: PromptDice) -> None:
    prompt: CachePrompt = reading.prompt
    plan = dice.plan(prompt, rules)
    try:
        expected = marked(body, prompt, plan, rules)
    except Unmarkable:
        with pytest.raises(Unmarkable):
            marked(body, prompt, plan, rules, reading.landmark)
    else:
        assert marked(body, prompt, plan, rules, reading.landmark) == expected

"""Whatever a request looks like: what its rewrites leave alone, and that they are always the same."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings

from gateway.core import volatile_text
from gateway.core.rewrites import Rewrite
from gateway.core.sightings import Sightings
from gateway.core.volatile_text import Replacement
from gateway.wire.spans import locate
from gateway.wire.splicing import respelled
from tests.helpers.dice import Dice
from tests.helpers.odd_json import odd
from tests.helpers.rewriting import APIS, EVERY, case, gone_on, request, rewrite
from tests.properties.conftest import EXAMPLES, many, seeds

pytestmark = pytest.mark.timeout(600)

# Each rewrites a request or two from scratch, which takes milliseconds.
some = settings(many, max_examples=min(EXAMPLES, 1500))
every_api = pytest.mark.parametrize("api", APIS)
PROVIDERS = {"anthropic_messages": "openrouter", "openai_chat": "vllm", "openai_responses": "vllm"}


def turns_of(body: dict[str, Any]) -> Any:
    return body.get("messages", body.get("input"))


def spelled(dice: Dice, body: dict[str, Any]) -> bytes:
    ways = (
        lambda: orjson.dumps(body),
        lambda: json.dumps(body).encode(),
        lambda: json.dumps(body, ensure_ascii=False, indent=1).encode(),
    )
    text: bytes = dice.one(ways)()
    return text


@every_api
@some
@given(seeds)
def test_a_rewritten_request_is_left_as_it_is(api: str, seed: int) -> None:
    dice = Dice(seed)
    body = spelled(dice, request(dice, api, seed))
    the_case = case(api=api, provider=dice.one(("vllm", PROVIDERS[api])))
    once = rewrite(body, the_case, api)
    twice = rewrite(once.body, the_case, api)
    assert twice.made == frozenset()
    assert twice.body is once.body
    if not once.made:
        assert once.body is body


@every_api
@some
@given(seeds)
def test_requests_that_differ_only_in_what_is_volatile_share_all_but_the_note(
    api: str, seed: int
) -> None:
    one, other = (request(Dice(seed), api, values) for values in (seed, seed + 10))
    dice = Dice(seed)
    if "tools" in other:
        other["tools"] = sorted(other["tools"], key=lambda _: dice.up_to(99))
    bodies = []
    for body in (one, other):
        the_case = case(EVERY - {Rewrite.ROUND_TIME}, api)
        rewritten = rewrite(orjson.dumps(body), the_case, api)
        bodies.append(orjson.loads(rewritten.body))
    for body in bodies:
        turns_of(body).pop()
    assert orjson.dumps(bodies[0]) == orjson.dumps(bodies[1])


@every_api
@some
@given(seeds)
def test_each_turn_of_a_conversation_is_led_by_the_same(api: str, seed: int) -> None:
    dice = Dice(seed)
    body = request(dice, api, seed)
    name = "input" if api == "openai_responses" else "messages"
    leads = set()
    for turn in range(3):
        done = orjson.loads(rewrite(orjson.dumps(body), case(api=api), api).body)
        system = [message for message in done[name] if message["role"] == "system"]
        leads.add(orjson.dumps({**done, name: system}))
        # But for the last message, all others are as the client sent them.
        earlier = [message for message in body[name] if message["role"] != "system"][:-1]
        assert done[name][len(system) : -1] == earlier
        body = gone_on(body, api, f"and {turn}?")
    assert len(leads) == 1


@every_api
@some
@given(seeds)
def test_what_is_not_rewritten_keeps_its_spelling(api: str, seed: int) -> None:
    dice = Dice(seed)
    body = gone_on(request(dice, api, seed), api, "é\u2028 and then?")
    text = spelled(dice, body)
    done = rewrite(text, case(api=api, wanted=EVERY - {Rewrite.SORT_SCHEMAS}), api)
    before, after = text.decode(), done.body.decode()
    old, new = locate(before, 2), locate(after, 2)
    for name, span in old.members.items():
        if name == "tools":
            assert sorted(s.of(before) for s in span.items) == sorted(
                s.of(after) for s in new.members[name].items
            )
        elif name in {"messages", "input"}:
            skipped = 1 if api == "openai_chat" else 0
            assert [s.of(before) for s in span.items[skipped:-1]] == [
                s.of(after) for s in new.members[name].items[:-1]
            ][-len(span.items[skipped:-1]) :]
        elif name not in {"system", "instructions"}:
            assert span.of(before) == new.members[name].of(after)


@some
@given(seeds)
def test_replacing_in_a_string_keeps_the_spelling_of_all_around_it(seed: int) -> None:
    dice = Dice(seed)
    text = "".join(dice.one(("a", "é", "\n", "\\", '"', "😀", "/", "\u2028")) for _ in range(12))
    units = [
        dice.one((json.dumps(c)[1:-1], orjson.dumps(c).decode()[1:-1])) if c != "/" else "\\/"
        for c in text
    ]
    start = dice.up_to(12)
    end = start + dice.up_to(12 - start)
    new = dice.text()
    literal = respelled(f'"{"".join(units)}"'.encode(), [Replacement(start, end, new)])
    expected = "".join((*units[:start], orjson.dumps(new).decode()[1:-1], *units[end:]))
    assert literal.decode() == f'"{expected}"'


@some
@given(seeds)
def test_every_value_that_is_taken_out_stands_in_the_note(seed: int) -> None:
    dice = Dice(seed)
    body = request(dice, "anthropic_messages", seed)
    done = rewrite(orjson.dumps(body), case(wanted={Rewrite.MOVE_VOLATILE}))
    if not done.made:
        return
    said = orjson.loads(done.body)
    content = said["messages"][-1]["content"]
    last = content if isinstance(content, str) else content[-1]["text"]
    note = last[last.index(volatile_text.NOTE_START) :]
    assert volatile_text.is_note(last)
    lines = dict(line.split(": ", 1) for line in note.splitlines()[2:-1])
    lead = said["system"]
    texts = [lead] if isinstance(lead, str) else [part["text"] for part in lead]
    original = body["system"]
    originals = [original] if isinstance(original, str) else [part["text"] for part in original]
    for text, before in zip(texts, originals, strict=True):
        restored = text
        for name, value in lines.items():
            restored = restored.replace(f"({name}, see context-values at the end)", value)
        assert restored == before


@some
@given(seeds)
def test_what_is_found_does_not_depend_on_what_was_searched_before(seed: int) -> None:
    from tests.helpers.rewriting import system  # noqa: PLC0415

    remembering = Sightings()
    for step in range(3):
        text = system(Dice(seed + step % 2), seed + step) * 3
        assert remembering.find(text) == Sightings().find(text)


@every_api
@some
@given(seeds)
def test_odd_requests_are_rewritten_to_json_or_left_alone(api: str, seed: int) -> None:
    dice = Dice(seed)
    body = odd(dice, request(dice, api, seed))
    name = dice.one(tuple(body))
    body[name] = dice.one((5, "x", [], {}, [5], [["x"]], None, [{"role": ["x"]}], body[name]))
    done = rewrite(
        orjson.dumps(body), case(api=api, provider=dice.one(("vllm", PROVIDERS[api]))), api
    )
    told = orjson.loads(done.body)
    assert set(told) <= set(body)
    assert told.get("temperature") == body.get("temperature")

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import orjson

from gateway.providers.prompt_cache_rules import cache_rules
from gateway.wire.beginnings import Beginnings
from gateway.wire.prompt_blocks import cache_prompt

if TYPE_CHECKING:
    from gateway.wire.beginnings import Reading

API = "anthropic_messages"
RULES = cache_rules("anthropic", API, "claude-sonnet-4-5")


def body(turns: int, *, who: str = "a", **more: Any) -> bytes:
    messages: list[dict[str, Any]] = []
    for turn in range(turns):
        messages.append({"role": "user", "content": f"{who} asks {turn}: " + "word " * 100})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": f"{turn}"}]})
    messages.append({"role": "user", "content": "Go on."})
    return orjson.dumps({"model": "claude-sonnet-4-5", **more, "messages": messages})


def read(known: Beginnings, text: bytes, api: str = API) -> Reading:
    start = known.begin(api, text, RULES)
    reading = start.read()
    known.keep(start, reading)
    assert reading.prompt == cache_prompt(api, orjson.loads(text), RULES)
    return reading


def messages_of(reading: Reading) -> int:
    document = reading.document
    assert isinstance(document, dict)
    messages = document["messages"]
    assert isinstance(messages, list)
    return len(messages)


def test_the_next_turn_is_read_without_the_messages_before() -> None:
    known = Beginnings()
    assert messages_of(read(known, body(100))) == 201
    assert messages_of(read(known, body(101))) < 30


def test_another_beginning_is_read_in_full() -> None:
    known = Beginnings()
    read(known, body(100))
    assert messages_of(read(known, body(100, who="b"))) == 201
    assert messages_of(read(known, body(100, system="Other."))) == 201


def test_a_conversation_that_was_taken_back_goes_on_from_where_it_was() -> None:
    known = Beginnings()
    for turns in range(60, 100):
        read(known, body(turns))
    assert messages_of(read(known, body(97))) < 30
    assert messages_of(read(known, body(100))) < 30


def test_other_rules_know_nothing_of_it() -> None:
    known = Beginnings()
    text = body(100)
    read(known, text)
    start = known.begin(API, text, None)
    assert start.known is None
    assert start.read().prompt == cache_prompt(API, orjson.loads(text), None)


def test_images_are_read_each_time() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    document = orjson.loads(body(100))
    document["messages"][0]["content"] = [image]
    known = Beginnings()
    for _ in range(2):
        assert messages_of(read(known, orjson.dumps(document))) == 201
    assert known.size_bytes == 0


def test_long_runs_of_backslashes_are_no_ends_of_strings() -> None:
    document = orjson.loads(body(100))
    document["messages"][10]["content"] = '\\\\\\\\\\\\\\" ,{' * 20
    document["messages"][-1]["content"] = '\\\\\\\\\\\\\\" ,{' * 20
    known = Beginnings()
    read(known, orjson.dumps(document))
    document["messages"] += document["messages"][-2:]
    assert messages_of(read(known, orjson.dumps(document))) < 30


def test_what_is_remembered_is_bounded() -> None:
    known = Beginnings(200_000)
    for number in range(40):
        read(known, body(40, who=f"{number}"))
        assert known.size_bytes <= 200_000
    assert messages_of(read(known, body(41, who="39"))) < 30
    assert messages_of(read(known, body(41, who="0"))) == 83


def test_one_conversation_takes_its_room_once() -> None:
    known = Beginnings()
    read(known, body(200))
    alone = known.size_bytes
    for turns in range(100, 201):
        read(known, body(turns, who="b"))
    assert known.size_bytes <= 2.2 * alone


def test_its_size_is_what_the_process_pays() -> None:
    texts = [body(300, who=f"{number}") for number in range(10)]
    known = Beginnings(1 << 30)
    read(Beginnings(), texts[0])  # pays for what Python makes once
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for text in texts:
        read(known, text)
    pays = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert pays <= known.size_bytes <= 1.5 * pays

"""The door: a memo of what is known of raw requests, bounded in bytes."""

from __future__ import annotations

import os
import tracemalloc
from dataclasses import replace

import pytest

from gateway.config import Config
from gateway.core.model import Ask, Form, Pairs
from gateway.door import ENTRY_BYTES, Door, Known
from gateway.upstream.choice import Choice

ENDPOINT = Choice(Config.model_validate({})).endpoints["openai"]
KNOWN = Known(ENDPOINT, (b"i" * 32,), Ask(Form.BODY, "gpt-4o"), None, b"w" * 32)


def key(
    door: Door,
    target: str = " /v1/x?",
    who: bytes = b"",
    generation: int = 0,
    headers: Pairs = (("a", "1"),),
    body: bytes = b"{}",
) -> bytes | None:
    return door.key(target, who, generation, headers, body)


def test_what_was_put_is_got() -> None:
    door = Door(10, b"gen")
    assert door.get(key(door)) is None
    door.put(key(door), KNOWN)
    assert door.get(key(door)) is KNOWN


def test_every_part_of_a_request_tells() -> None:
    door = Door(10, b"gen")
    keys = [
        key(door),
        key(door, target=" /v1/y?"),
        key(door, who=b"tenant a"),
        key(door, generation=1),
        key(door, headers=(("a", "2"),)),
        key(door, headers=()),
        key(door, headers=(("a", "1"), ("a", "1"))),
        key(door, headers=(("a", "1"), ("b", "2"))),
        key(door, headers=(("b", "2"), ("a", "1"))),
        key(door, body=b"{ }"),
        # Parts can't run into each other.
        key(door, headers=(), body=b"a:1{}"),
        key(door, target=" /v1/x?a:1", headers=()),
        key(Door(10, b"other generation")),
    ]
    assert len(set(keys)) == len(keys)
    assert all(k is not None and len(k) == 32 for k in keys)


def test_odd_bytes_in_headers_and_targets_have_a_key() -> None:
    door = Door(10, b"gen")
    odd = key(door, target=" /v1/\udcff?", headers=(("a", "\udce9"),))
    assert odd not in {None, key(door)}


def test_a_closed_door_knows_nothing() -> None:
    door = Door(0, b"gen")
    assert key(door) is None
    door.put(key(door), KNOWN)
    assert door.get(key(door)) is None


def test_a_name_that_takes_more_room_than_there_is_is_not_kept() -> None:
    door = Door(10, b"gen")
    assert KNOWN.ask is not None
    for ask in (
        replace(KNOWN.ask, model="m" * 10_000),
        replace(KNOWN.ask, history_ids=frozenset({"call_" + "0" * 10_000})),
    ):
        door.put(key(door), replace(KNOWN, ask=ask))
        assert door.get(key(door)) is None


def test_the_one_that_was_not_used_goes_first() -> None:
    door = Door(2, b"gen")
    one, two, three = (key(door, body=bytes([n])) for n in range(3))
    door.put(one, KNOWN)
    door.put(two, KNOWN)
    assert door.get(one) is KNOWN
    door.put(three, KNOWN)
    assert [door.get(k) is KNOWN for k in (one, two, three)] == [True, False, True]


def test_a_long_history_takes_the_room_of_several_and_too_long_a_one_none() -> None:
    assert KNOWN.ask is not None
    long = replace(KNOWN, ask=replace(KNOWN.ask, history_ids=frozenset(map(str, range(20)))))
    endless = replace(KNOWN, ask=replace(KNOWN.ask, history_ids=frozenset(map(str, range(999)))))
    door = Door(4, b"gen")
    small = [key(door, body=bytes([n])) for n in range(4)]
    for each in small:
        door.put(each, KNOWN)
    door.put(key(door, body=b"long"), long)
    assert sum(door.get(each) is KNOWN for each in small) < 2
    door.put(key(door, body=b"endless"), endless)
    assert door.get(key(door, body=b"endless")) is None
    assert door.get(key(door, body=b"long")) is long


@pytest.mark.parametrize("ids", [0, 30])
@pytest.mark.parametrize("identities", [1, 5])
def test_the_memo_takes_no_more_than_it_counts(ids: int, identities: int) -> None:
    door = Door(2000, b"gen")
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot()
        for number in range(6000):
            ask = Ask(
                Form.STREAM,
                f"a-model-with-a-name-{number}",
                history_ids=frozenset(f"call_{number:024}_{each}" for each in range(ids)),
                max_output_tokens=1000 + number,
            )
            each = tuple(os.urandom(32) for _ in range(identities))
            keys = tuple(key for one in each for key in (one, os.urandom(32)))
            known = Known(ENDPOINT, each, ask, None, os.urandom(32), keys=keys)
            door.put(key(door, body=number.to_bytes(4, "big")), known)
        paid = sum(s.size_diff for s in tracemalloc.take_snapshot().compare_to(before, "lineno"))
    finally:
        tracemalloc.stop()
    print(f"{paid / door.size_bytes:.0%} of {door.size_bytes} B")
    assert 0.3 * door.size_bytes < paid < door.size_bytes <= 2000 * ENTRY_BYTES


def test_a_door_that_is_closed_takes_nothing() -> None:
    assert Door(0, b"gen").size_bytes == 0

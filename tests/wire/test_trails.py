"""A memory of trails changes how long reading takes, and nothing else."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.wire import trails as trails_module
from gateway.wire.trail import trail
from gateway.wire.trails import Trails

CHAT = "openai_chat"


def turns(count: int, *, long_every: int = 7) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    return [
        {
            "role": roles[n % 2],
            "content": f"message {n} " * (1000 if n % long_every == 3 else 30),
        }
        for n in range(count)
    ]


def body_of(messages: list[dict[str, Any]], **more: Any) -> bytes:
    system = {"role": "system", "content": "Be brief. " * 900}
    return orjson.dumps({"model": "m", "messages": [system, *messages], **more})


def read(known: Trails, body: bytes, api: str = CHAT) -> trails_module.Read:
    reading = known.begin(api, body)
    found = reading.read()
    known.keep(reading)
    return found


def test_every_turn_of_a_conversation_reads_as_it_would_alone() -> None:
    known, messages = Trails(), turns(80)
    for count in range(1, len(messages) + 1):
        body = body_of(messages[:count])
        assert read(known, body).trail == trail(CHAT, orjson.loads(body))


def test_a_conversation_that_goes_on_otherwise_reads_as_it_would_alone() -> None:
    known, messages = Trails(), turns(60)
    read(known, body_of(messages))
    for changed in (2, 20, 45, 59):
        other = [*messages]
        other[changed] = {"role": "user", "content": "something else " * 800}
        body = body_of(other)
        assert read(known, body).trail == trail(CHAT, orjson.loads(body))


def test_long_texts_that_are_forgotten_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trails_module, "_MOST_PIECES", 10)
    known, messages = Trails(), turns(60)
    for count in (30, 40, 50, 60):
        body = body_of(messages[:count])
        assert read(known, body).trail == trail(CHAT, orjson.loads(body))
    assert known._count <= 10


def test_what_is_known_is_not_parsed_again() -> None:
    known, messages = Trails(), turns(200)
    read(known, body_of(messages[:-1]))
    reading = known.begin(CHAT, body_of(messages))
    reading.read()
    assert reading.reading is not None
    document: Any = reading.reading.document
    assert len(document["messages"]) < 20


def test_the_lead_is_what_comes_before_the_conversation() -> None:
    found = read(Trails(), body_of(turns(5), tools=[{"type": "function", "function": {}}]))
    # A tool, and a system text of 9000 bytes in pieces of 2048.
    assert found.lead == 1 + 5
    assert found.trail.ends[found.lead - 1] > 9000 // 4


@pytest.mark.parametrize("api", ["openai_chat", "openai_completions"])
@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"\x1f\x8b compressed"])
def test_what_is_no_json_is_said_so(api: str, body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of JSON or of encoding
        read(Trails(), body, api)


def test_what_else_its_way_depends_on_is_read_with_it() -> None:
    asked = {"model": "m", "input": "And?", "previous_response_id": "resp_1"}
    found = read(Trails(), orjson.dumps(asked), "openai_responses")
    assert (found.previous, found.has_slot) == ("resp_1", False)
    slotted = {"model": "m", "prompt": "And?", "id_slot": 0}
    assert read(Trails(), orjson.dumps(slotted), "openai_completions").has_slot


def test_a_document_that_is_no_object_has_no_steps() -> None:
    for api in ("openai_chat", "openai_completions"):
        try:
            assert read(Trails(), b"[1]", api).trail.prints == ()
        except ValueError:
            pytest.fail("no error of JSON")

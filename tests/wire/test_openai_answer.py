"""Usage wherever a server states it: in the answer, in its last chunk, under a name of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core import sse
from gateway.core.model import Finish, Form, Usage
from tests.helpers.openai_chat import API, UNKNOWN_CHAT, choice, chunk, document

if TYPE_CHECKING:
    from gateway.core.model import Answer

PLAIN = {"prompt_tokens": 30, "completion_tokens": 5}
CACHED = {**PLAIN, "prompt_tokens_details": {"cached_tokens": 20}}
READ = Usage(10, 20, output=5)
TIMINGS = {"cache_n": 20, "prompt_n": 10, "predicted_n": 5, "predicted_ms": 12.5}
SAID = chunk({"role": "assistant", "content": "Hi"})
END = chunk({}, "stop")


def of_stream(*chunks: dict[str, Any]) -> Answer:
    written = b"".join(sse.write(json.dumps(each).encode()) for each in chunks)
    return API.read_stream(written + sse.write(b"[DONE]"), UNKNOWN_CHAT)


def of_body(**members: Any) -> Answer:
    body = json.dumps(document(choice({"content": "Hi"}), **members)).encode()
    return API.read_body(body, UNKNOWN_CHAT)


def in_choice(usage: Any) -> dict[str, Any]:
    end = chunk({}, "stop")
    end["choices"][0]["usage"] = usage
    return end


STREAMS: dict[str, tuple[list[dict[str, Any]], Usage, bool]] = {
    # Chunks, usage, and: was it stated as a client asks for it?
    "in a chunk of its own": ([SAID, END, chunk(None, usage=CACHED)], READ, True),
    "in the last chunk": ([SAID, {**END, "usage": CACHED}], READ, True),
    "in every chunk, counting up": (
        [
            {**SAID, "usage": {"prompt_tokens": 30, "completion_tokens": 1}},
            {**END, "usage": CACHED},
        ],
        READ,
        True,
    ),
    "DeepSeek": (
        [SAID, {**END, "usage": {**PLAIN, "prompt_cache_hit_tokens": 20}}],
        READ,
        True,
    ),
    "Groq": (
        [{**SAID, "x_groq": {"id": "r"}}, {**END, "x_groq": {"id": "r", "usage": CACHED}}],
        READ,
        False,
    ),
    "Moonshot": ([SAID, in_choice({**PLAIN, "cached_tokens": 20})], READ, False),
    "Moonshot, with a member that we don't know": (
        [chunk({"role": "assistant", "content": "Hi", "odd": 1}), in_choice(CACHED)],
        READ,
        False,
    ),
    "llama.cpp, not asked for usage": ([SAID, {**END, "timings": TIMINGS}], READ, False),
    "llama.cpp, with timings in every chunk": (
        [{**SAID, "timings": {**TIMINGS, "predicted_n": 1}}, {**END, "timings": TIMINGS}],
        READ,
        False,
    ),
    "llama.cpp, asked for usage": (
        [SAID, END, chunk(None, usage=PLAIN, timings=TIMINGS)],
        READ,
        True,
    ),
}


@pytest.mark.parametrize(("chunks", "expected", "stated"), STREAMS.values(), ids=STREAMS)
def test_the_usage_of_a_stream(chunks: list[dict[str, Any]], expected: Usage, stated: bool) -> None:
    answer = of_stream(*chunks)
    assert expected == answer.usage
    assert Finish.COMPLETE is answer.finish
    assert stated is answer.has_stream_usage
    if not stated:
        # A document always states its usage: without it the stream can't become one.
        assert frozenset({Form.STREAM}) == answer.forms


TERMS = [
    [{**SAID, "service_tier": "flex"}, {**END, "service_tier": "flex"}],
    [{**SAID, "service_tier": None}, chunk({"odd": 1}, "stop", service_tier="flex")],
]


@pytest.mark.parametrize("chunks", TERMS)
def test_an_answer_tells_how_it_was_served(chunks: list[dict[str, Any]]) -> None:
    assert ("flex",) == of_stream(*chunks).terms
    assert ("flex",) == of_body(service_tier="flex").terms
    assert () == of_body(service_tier=None).terms


BODIES: dict[str, tuple[dict[str, Any], Usage | None]] = {
    "as OpenAI does": ({"usage": CACHED}, READ),
    "llama.cpp": ({"usage": PLAIN, "timings": TIMINGS}, READ),
    "none": ({"usage": None}, None),
    "nonsense": ({"usage": {"prompt_tokens": -1, "completion_tokens": 1}}, None),
}


@pytest.mark.parametrize(("members", "expected"), BODIES.values(), ids=BODIES)
def test_the_usage_of_a_document(members: dict[str, Any], expected: Usage | None) -> None:
    answer = of_body(**members)
    assert expected == answer.usage
    assert Finish.COMPLETE is answer.finish

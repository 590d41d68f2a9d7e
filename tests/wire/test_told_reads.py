from __future__ import annotations

import pytest

from gateway.core.model import Answer, Finish, Form
from gateway.wire.told_reads import tells_reads


def answer(payload: bytes) -> Answer:
    return Answer(Form.BODY, payload, Finish.COMPLETE)


@pytest.mark.parametrize(
    "usage",
    [
        b'{"prompt_tokens_details": {"cached_tokens": 0}}',
        b'{"input_tokens_details":{"cached_tokens":12}}',
        b'{"prompt_cache_hit_tokens" : 0}',
        b'{"cache_read_input_tokens":0}',
        b'{"cachedContentTokenCount":7}',
    ],
)
def test_a_count_is_told_even_where_it_is_none(usage: bytes) -> None:
    assert tells_reads(answer(b'{"usage":' + usage + b"}"))


@pytest.mark.parametrize(
    "payload",
    [
        b'{"usage":{"prompt_tokens":9,"completion_tokens":1}}',
        b'{"usage":{"prompt_tokens_details":null}}',
        b'{"usage":{"prompt_tokens_details":{"cached_tokens":null}}}',
        b'{"content":"write \\"cached_tokens\\": 0","usage":{}}',
        b"",
    ],
)
def test_silence_is_no_count_nor_is_what_a_model_writes(payload: bytes) -> None:
    assert not tells_reads(answer(payload))


@pytest.mark.parametrize("place", ["first", "last"])
def test_it_is_found_at_either_end_of_a_long_answer(place: str) -> None:
    usage, text = b'"usage":{"cached_tokens":0}', b'"text":"' + b"x" * 200_000 + b'"'
    parts = (usage, text) if place == "first" else (text, usage)
    assert tells_reads(answer(b"{" + b",".join(parts) + b"}"))

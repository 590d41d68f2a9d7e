from __future__ import annotations

import pytest

from gateway.core.diagnosed import Diagnosis, diagnosed
from gateway.core.miss import CacheOutcome, Miss, MissCause
from gateway.core.model import Answer, Finish, Form
from gateway.wire.diagnostics import diagnosis

ANTHROPIC, RESPONSES = "anthropic_messages", "openai_responses"
ASKED = b'{"diagnostics":{"previous_message_id":"msg_1"}}'
COMPARED = b'{"prompt_cache_options":{"comparison_response_id":"resp_1"}}'
CHANGED = b'{"cache_miss_reason":{"type":"tools_changed","cache_missed_input_tokens":123}}'


def answer(payload: bytes, form: Form = Form.BODY) -> Answer:
    return Answer(form, payload, Finish.COMPLETE)


def test_what_anthropic_says_is_read_where_it_was_asked() -> None:
    body = answer(b'{"diagnostics":' + CHANGED + b"}")
    stream = answer(
        b'event: message_start\ndata: {"type":"message_start","message":{"diagnostics":'
        + CHANGED
        + b"}}\n\n",
        Form.STREAM,
    )
    assert diagnosis(ANTHROPIC, ASKED, body) == Diagnosis("tools_changed", 123)
    assert diagnosis(ANTHROPIC, ASKED, stream) == Diagnosis("tools_changed", 123)
    assert diagnosis(ANTHROPIC, b"{}", body) is None


def test_what_openai_says_is_read_where_it_was_asked() -> None:
    said = b'{"type":"cache_miss","reason":"input_changed","cache_missed_tokens":9}'
    body = answer(b'{"prompt_cache_diagnostics":' + said + b"}")
    assert diagnosis(RESPONSES, COMPARED, body) == Diagnosis("input_changed", 9)
    assert diagnosis("openai_chat", COMPARED, body) is None


@pytest.mark.parametrize(
    "said",
    [b"null", b"{}", b'{"cache_miss_reason":null}', b'{"type":"cache_hit"}', b"[1]", b"{"],
)
def test_who_says_nothing_says_nothing(said: bytes) -> None:
    assert diagnosis(ANTHROPIC, ASKED, answer(b'{"diagnostics":' + said + b"}")) is None


def test_another_reason_than_ours_is_the_providers() -> None:
    said = Diagnosis("tools_changed", 50)
    evicted = CacheOutcome(100, 0, 0, Miss(MissCause.EVICTED, 100))
    changed = CacheOutcome(0, 0, 0, Miss(MissCause.PREFIX_CHANGED, 70, "$.tools[0]", "tools", 0))
    found = diagnosed(evicted, said)
    assert found == Miss(MissCause.PROVIDER, 50, kind="tools_changed")
    assert diagnosed(changed, said) == changed.miss
    assert diagnosed(evicted, Diagnosis("unavailable", 0)) == evicted.miss
    assert diagnosed(CacheOutcome(1, 1, 0), Diagnosis("tools_changed", 0)) is None
    assert diagnosed(evicted, None) == evicted.miss

"""What the Responses API's answers state again is never left out of the key."""

from __future__ import annotations

import pytest
from openai.types.responses import Response

from gateway.providers.openai_responses import RESPONSES, STREAM_FORM


@pytest.mark.parametrize("name", sorted(RESPONSES.excluded))
def test_nothing_is_excluded_that_the_answer_states_again(name: str) -> None:
    assert name not in Response.model_fields


@pytest.mark.parametrize(
    "name", [name for name, rule in RESPONSES.keyed.items() if "echoes" in rule.reason]
)
def test_what_is_keyed_for_its_echo_is_echoed(name: str) -> None:
    assert name in Response.model_fields


def test_only_the_form_is_left_out() -> None:
    assert STREAM_FORM == RESPONSES.excluded
    assert {"stream", "stream_options"} == set(STREAM_FORM)

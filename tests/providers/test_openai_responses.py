"""The table of the Responses API knows every field that the SDK knows."""

from __future__ import annotations

from typing import get_type_hints

import pytest
from openai.types.responses import Response, response_create_params

from gateway.providers.openai_responses import RESPONSES, RESPONSES_SCALARS, STREAM_FORM

# Keyed exactly as sent: what each is, and why it has no line in a table.
KEYED = {
    "conversation": "passed, never cached",
    "include": "adds to the answer; not documented as a set",
    "input": "the prompt, with rules of its own",
    "instructions": "the prompt",
    "metadata": "the answer echoes it",
    "previous_response_id": "names the history that the provider keeps; the answer echoes it",
    "prompt": "names a template by version, with what fills it in",
    "prompt_cache_key": "the answer echoes it",
    "prompt_cache_retention": "the answer echoes it",
    "safety_identifier": "the answer echoes it",
    "text": "holds a schema, rendered as spelled",
    "tools": "the prompt, with rules of its own",
    "user": "the answer echoes it",
}


def known() -> set[str]:
    return {
        *get_type_hints(response_create_params.ResponseCreateParamsNonStreaming),
        *get_type_hints(response_create_params.ResponseCreateParamsStreaming),
    }


def test_every_field_that_the_sdk_knows_was_decided_on() -> None:
    decided = {*RESPONSES.excluded, *RESPONSES.scalars, *KEYED}

    assert set() == known() - decided
    assert KEYED.keys() <= known()
    assert not KEYED.keys() & {*RESPONSES.excluded, *RESPONSES.scalars, *RESPONSES.defaults}


def test_no_line_is_about_a_field_that_the_sdk_does_not_know() -> None:
    lines = {*RESPONSES.excluded, *RESPONSES.scalars, *RESPONSES.defaults, *RESPONSES_SCALARS}

    assert set() == lines - known()


@pytest.mark.parametrize("name", sorted(RESPONSES.excluded))
def test_nothing_is_excluded_that_the_answer_states_again(name: str) -> None:
    assert name not in Response.model_fields


@pytest.mark.parametrize("name", [n for n, why in KEYED.items() if "echoes" in why])
def test_what_is_keyed_for_its_echo_is_echoed(name: str) -> None:
    assert name in Response.model_fields


def test_only_the_form_is_left_out() -> None:
    assert STREAM_FORM == RESPONSES.excluded
    assert {"stream", "stream_options"} == set(STREAM_FORM)

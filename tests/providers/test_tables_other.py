"""The SDK knows no field of completions and embeddings that nobody decided on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_type_hints

import pytest
from openai.types import completion_create_params
from openai.types.embedding_create_params import EmbeddingCreateParams

from gateway.providers.openai_other import COMPLETIONS, EMBEDDINGS
from gateway.providers.registry import rules
from gateway.providers.unknown import UNKNOWN

if TYPE_CHECKING:
    from gateway.providers.base import ApiRules

# Keyed exactly as sent: what each is, and why it has no line in a table.
COMPLETIONS_KEYED = {
    "prompt": "the prompt: text or tokens, as spelled",
    "suffix": "text that comes after the completion: part of the prompt",
}
EMBEDDINGS_KEYED = {"input": "what is embedded: one by one, as spelled"}


def fields(*types: Any) -> set[str]:
    return {name for each in types for name in get_type_hints(each)}


@pytest.mark.parametrize(
    ("api", "keyed", "known"),
    [
        pytest.param(
            COMPLETIONS,
            COMPLETIONS_KEYED,
            fields(
                completion_create_params.CompletionCreateParamsNonStreaming,
                completion_create_params.CompletionCreateParamsStreaming,
            ),
            id="completions",
        ),
        pytest.param(EMBEDDINGS, EMBEDDINGS_KEYED, fields(EmbeddingCreateParams), id="embeddings"),
    ],
)
def test_every_field_that_the_sdk_knows_was_decided_on(
    api: ApiRules, keyed: dict[str, str], known: set[str]
) -> None:
    tables = {*api.excluded, *api.excluded_members, *api.scalars, *api.defaults}

    assert known == tables | keyed.keys()
    assert not keyed.keys() & tables
    assert all(keyed.values())


def test_every_field_of_embeddings_that_the_sdk_knows_leaves_inputs_independent() -> None:
    for api in (EMBEDDINGS, rules(UNKNOWN, "openai_embeddings")):
        assert fields(EmbeddingCreateParams) == {"input", *api.scalars, *api.excluded}

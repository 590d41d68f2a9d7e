"""OpenAI's completions and embeddings: what reference and SDK types document. Read 2026-11."""

from __future__ import annotations

from gateway.providers.base import ApiRules, Default, Rule, sourced

_COMPLETION_PARAMS = "openai-python 3.54 types/completion_create_params.py"
_COMPLETION_REFERENCE = "OpenAI API reference, Create completion (2026-10)"
_EMBEDDING_PARAMS = "openai-python 3.54 types/embedding_create_params.py"

_PARAMETER = Rule(
    "a sampling or transport parameter: read as a JSON value, not as text", _COMPLETION_PARAMS
)
_END_USER = "end-user id for abuse detection; never shown"

# Read as values by every implementation of this wire format, so their spelling can't matter.
COMPLETIONS_SCALARS = dict.fromkeys(
    (
        "best_of",
        "echo",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "model",
        "n",
        "presence_penalty",
        "seed",
        "stop",
        "temperature",
        "top_p",
    ),
    _PARAMETER,
)

COMPLETIONS_FORM = {
    "stream": Rule("only the form of the answer; one entry serves both", _COMPLETION_PARAMS),
    "stream_options": Rule(
        "only the form of the stream; usage is replayed as asked", _COMPLETION_PARAMS
    ),
}

COMPLETIONS_KEYED = sourced(
    _COMPLETION_PARAMS,
    {
        "prompt": "the prompt: that a text and a list of it get one answer is documented nowhere",
        "suffix": "text that the answer is made to lead up to",
    },
)

COMPLETIONS = ApiRules(
    keyed=COMPLETIONS_KEYED,
    excluded={**COMPLETIONS_FORM, "user": Rule(_END_USER, _COMPLETION_PARAMS)},
    # Not `best_of`: 1 is its default, but refused beside a larger `n`. Not `max_tokens`: models.
    defaults={
        "n": Default(1, Rule("defaults to 1", _COMPLETION_REFERENCE)),
        "echo": Default(False, Rule("defaults to false", _COMPLETION_REFERENCE)),
        "frequency_penalty": Default(0, Rule("defaults to 0", _COMPLETION_REFERENCE)),
        "presence_penalty": Default(0, Rule("defaults to 0", _COMPLETION_REFERENCE)),
    },
    scalars=COMPLETIONS_SCALARS,
    stream_usage=Rule("stream_options.include_usage", _COMPLETION_REFERENCE),
)

# A batch is cut into its inputs only if the table has every member of the request: any other
# may bind the inputs to each other, as Jina's `late_chunking` does, which embeds each of them in
# the context of all.
EMBEDDINGS_SCALARS = {
    "model": Rule("names the model; each input is embedded on its own", _EMBEDDING_PARAMS),
    "dimensions": Rule("the size of each vector, a number", _EMBEDDING_PARAMS),
    "encoding_format": Rule("how each vector is spelled; kept in the key", _EMBEDDING_PARAMS),
}

EMBEDDINGS = ApiRules(
    keyed=sourced(_EMBEDDING_PARAMS, {"input": "what is embedded, each input with its own key"}),
    excluded={"user": Rule(_END_USER, _EMBEDDING_PARAMS)},
    # No defaults: the types document none, and those of `dimensions` differ by model.
    scalars=EMBEDDINGS_SCALARS,
)

UNKNOWN_EMBEDDINGS_SCALARS = {
    **EMBEDDINGS_SCALARS,
    # Kept in the key, but known to be about the caller and not about the inputs.
    "user": Rule("an id of the end-user; it can't bind inputs to each other", _EMBEDDING_PARAMS),
}

"""OpenAI's Responses API: what its reference and SDK types document. Read 2026-11.

Only the form is excluded. The response object states the request again: `metadata`, `user`,
`safety_identifier`, `prompt_cache_key`, `prompt_cache_options`, `prompt_cache_retention`,
`service_tier` and more; and by default it is a record that the provider keeps, which has to say
the same. So what chat may leave out is keyed here.
"""

from __future__ import annotations

from gateway.providers.base import ApiRules, Default, Rule, sourced

_PARAMS = "openai-python 3.54 types/responses/response_create_params.py"
_ITEMS = "openai-python 3.54 types/responses/response_input_item_param.py"
_GUIDE = "developers.openai.com/api/docs/guides/prompt-caching (2026-09-23)"
_REFERENCE = "OpenAI API reference, Create a model response (2026-10)"

_PARAMETER = Rule("a sampling or transport parameter: read as a JSON value, not as text", _PARAMS)
_TYPED = Rule("a typed object without text for the model: read by name", _PARAMS)

# Read as values by every implementation of this wire format, so their spelling can't matter.
RESPONSES_SCALARS = {
    **dict.fromkeys(
        (
            "background",
            "max_output_tokens",
            "max_tool_calls",
            "model",
            "parallel_tool_calls",
            "service_tier",
            "store",
            "temperature",
            "top_logprobs",
            "top_p",
            "truncation",
        ),
        _PARAMETER,
    ),
    "reasoning": _TYPED,
}

STREAM_FORM = {
    "stream": Rule("only the form of the answer; one entry serves both", _PARAMS),
    "stream_options": Rule("only the form of the stream: whether its events are padded", _PARAMS),
}

RESPONSES_KEYED = sourced(
    _PARAMS,
    {
        "conversation": "the history is kept by the provider: passed, never cached",
        "include": "adds to the answer; not documented as a set",
        "input": "the prompt, with rules of its own",
        "instructions": "the prompt, and the answer echoes it",
        "metadata": "the answer echoes it",
        "previous_response_id": "names a history that the provider keeps; the answer echoes it",
        "prompt": "names a template by version, with what fills it in; the answer echoes it",
        "prompt_cache_key": "the answer echoes it",
        "prompt_cache_retention": "the answer echoes it",
        "safety_identifier": "the answer echoes it",
        "text": "holds a schema, rendered as spelled; the answer echoes it",
        "tools": "the prompt, with rules of its own; the answer echoes it",
        "user": "the answer echoes it",
    },
)

RESPONSES = ApiRules(
    keyed=RESPONSES_KEYED,
    excluded=STREAM_FORM,
    defaults={"store": Default(True, Rule("defaults to true when omitted", _PARAMS))},
    scalars={
        **RESPONSES_SCALARS,
        **dict.fromkeys(
            (
                "access_programs",
                "background_options",
                "context_management",
                "image",
                "moderation",
                "prompt_cache_options",
                "tool_choice",
            ),
            _TYPED,
        ),
    },
    markers={"prompt_cache_breakpoint": Rule("marks a prompt-cache boundary", _GUIDE)},
    fold_tools=Rule(
        "tools and items are typed objects, rendered by the provider in its own order", _ITEMS
    ),
    string_is_text_part=Rule(
        "a string as input is equivalent to a text input with the user role, a string as content"
        " to one input_text part, which only a marker needs; the type of a message may be left out",
        f"{_REFERENCE}; {_ITEMS}; {_GUIDE}",
    ),
    rename_tool_ids=Rule("opaque handles that only join a call to its output", _REFERENCE),
    plain_models=("gpt-3.5", "gpt-4", "chatgpt-4o", "ft:gpt-3.5", "ft:gpt-4"),
)

"""OpenAI: what its API reference and SDK types document. Read 2026-11 (openai-python 3.54)."""

from __future__ import annotations

from gateway.providers.base import ApiRules, Default, Provider, Rule, sourced
from gateway.providers.openai_other import COMPLETIONS, EMBEDDINGS
from gateway.providers.openai_responses import RESPONSES

_PARAMS = "openai-python 3.54 types/chat/completion_create_params.py"
_GUIDE = "developers.openai.com/api/docs/guides/prompt-caching (2026-09-23)"
_REFERENCE = "OpenAI API reference, Create chat completion (2026-10)"

_PARAMETER = Rule("a sampling or transport parameter: read as a JSON value, not as text", _PARAMS)

# Read as values by every implementation of this wire format, so their spelling can't matter.
CHAT_SCALARS = dict.fromkeys(
    (
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "modalities",
        "model",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning_effort",
        "seed",
        "service_tier",
        "stop",
        "store",
        "temperature",
        "top_logprobs",
        "top_p",
        "verbosity",
    ),
    _PARAMETER,
)

STREAM_FORM = {
    "stream": Rule("only the form of the answer; one entry serves both", _PARAMS),
    "stream_options": Rule("only the form of the stream; usage is replayed as asked", _PARAMS),
}

CHAT_KEYED = sourced(
    _PARAMS,
    {
        "audio": "names voice and format of the answer",
        "function_call": "the older form of tool_choice: changes the answer",
        "functions": "the prompt: names, descriptions and schemas, rendered as spelled",
        "messages": "the prompt, with rules of its own",
        "metadata": "the answer may echo it",
        "moderation": "adds results to the answer, and may block it",
        "prediction": "text that the answer is compared with; changes usage",
        "response_format": "holds a schema, rendered as spelled",
        "tool_choice": "changes the answer; may name tools",
        "tools": "the prompt, with rules of its own",
        "web_search_options": "the provider looks things up: passed, never cached",
    },
)

CHAT = ApiRules(
    keyed=CHAT_KEYED,
    excluded={
        **STREAM_FORM,
        "user": Rule("end-user id for abuse detection and cache routing; never shown", _PARAMS),
        "safety_identifier": Rule("end-user id for abuse detection; not echoed by chat", _PARAMS),
        "prompt_cache_key": Rule("routes to a warm prompt cache; output is the same", _GUIDE),
        "prompt_cache_options": Rule("steers the prompt cache; output is the same", _GUIDE),
        "prompt_cache_retention": Rule("steers the prompt cache; output is the same", _GUIDE),
    },
    # Not excluded, on purpose: `metadata` and `service_tier`, which the answer echoes.
    defaults={
        "n": Default(1, Rule("defaults to 1", _REFERENCE)),
        "logprobs": Default(False, Rule("defaults to false", _REFERENCE)),
        "frequency_penalty": Default(0, Rule("defaults to 0", _REFERENCE)),
        "presence_penalty": Default(0, Rule("defaults to 0", _REFERENCE)),
    },
    scalars=CHAT_SCALARS,
    markers={"prompt_cache_breakpoint": Rule("marks a prompt-cache boundary", _GUIDE)},
    fold_tools=Rule("tools are typed objects, rendered by the provider in its own order", _PARAMS),
    # No `fold_schemas`: nothing documents that the order of a schema's keywords is not rendered, and
    # any change of a tool is documented to break the cached prefix (_GUIDE).
    string_is_text_part=Rule("a string is shorthand for one text part", _REFERENCE),
    rename_tool_ids=Rule("opaque handles that only join a call to its result", _REFERENCE),
    plain_models=("gpt-3.5", "gpt-4", "chatgpt-4o", "ft:gpt-3.5", "ft:gpt-4"),
    stream_usage=Rule("stream_options.include_usage", _REFERENCE),
    message_defaults={"refusal": None, "annotations": []},
)

OPENAI = Provider(
    name="openai",
    otel_name="openai",
    base_url="https://api.openai.com/v1",
    hosts=frozenset({"api.openai.com", "eu.api.openai.com", "us.api.openai.com"}),
    apis={
        "openai_chat": CHAT,
        "openai_completions": COMPLETIONS,
        "openai_embeddings": EMBEDDINGS,
        "openai_responses": RESPONSES,
    },
    header_prefixes=("openai-",),
    header_sets=frozenset({"openai-beta"}),
)

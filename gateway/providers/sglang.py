"""SGLang: what its request models document. Read 2026-11.

Nothing is folded that a chat template could render (parts, tools, ids), and no default is
eliminated: those of sampling may come from the model or from `--preferred-sampling-params`. What
its source does not document as ignored stays in the key, `user` and `priority` among it.
"""

from __future__ import annotations

from gateway.providers.anthropic import MESSAGES, MESSAGES_SCALARS
from gateway.providers.anthropic import STREAM_FORM as MESSAGES_FORM
from gateway.providers.base import Provider, Rule, sourced, spoken_elsewhere
from gateway.providers.openai import CHAT, CHAT_SCALARS
from gateway.providers.openai import STREAM_FORM as CHAT_FORM
from gateway.providers.openai_other import (
    COMPLETIONS,
    COMPLETIONS_FORM,
    COMPLETIONS_SCALARS,
    EMBEDDINGS,
    UNKNOWN_EMBEDDINGS_SCALARS,
)
from gateway.providers.openai_responses import RESPONSES, RESPONSES_SCALARS
from gateway.providers.openai_responses import STREAM_FORM as RESPONSES_FORM

_SOURCE = "SGLang main 004c82e, srt/entrypoints/openai/protocol.py (read 2026-11)"

_SAMPLING = dict.fromkeys(
    (
        "continue_final_message",
        "ignore_eos",
        "max_dynamic_patch",
        "min_dynamic_patch",
        "min_p",
        "min_tokens",
        "no_stop_trim",
        "repetition_penalty",
        "separate_reasoning",
        "skip_special_tokens",
        "stop_token_ids",
        "top_k",
        "use_audio_in_video",
    ),
    "a sampling or transport parameter: read by a typed model, as a value",
)
_IDS = {
    "cache_salt": "separates whose prompts may be told from timing: so must an answer be",
    "extra_key": "classifies the request as its caller likes; nothing says what for",
    "ngram_corpus_id": "selects what is drafted from; nothing says that no answer changes",
    "priority": "refused by a server without priority scheduling, if it is told so",
    "rid": "the answer's id is made of it",
    "session_id": "names a session; nothing says that the answer does not depend on it",
}
_WORKERS = dict.fromkeys(
    ("data_parallel_rank", "disagg_prefill_dp_rank", "routed_dp_rank"),
    "picks the worker that answers; nothing says that all of them answer alike",
)
_STATE = {
    **dict.fromkeys(
        ("bootstrap_host", "bootstrap_port", "bootstrap_room"),
        "names blocks that another server holds: passed, never cached",
    ),
    "session_params": "continues a session that the server keeps: passed, never cached",
}
_GENERATE = {
    **_IDS,
    **_WORKERS,
    **_STATE,
    "custom_logit_processor": "code that changes the answer",
    "custom_params": "parameters of that code, of any meaning",
    "ebnf": "a grammar that constrains the answer",
    "images_config": "changes how images are read",
    "lora_path": "picks an adapter: changes the answer",
    "regex": "an expression that constrains the answer",
    "return_cached_tokens_details": "adds to the answer",
    "return_hidden_states": "adds to the answer",
    "return_routed_experts": "adds to the answer",
    "return_token_ids": "adds to the answer",
    "routed_experts_start_len": "changes what the answer says of its experts",
    "stop_regex": "an expression that ends the answer",
}
_CHAT_ONLY = {
    "chat_template_kwargs": "given to the chat template, as spelled",
    "input_ids": "the prompt, as tokens, in place of the messages",
    "reasoning": "another way to say reasoning_effort",
    "return_meta_info": "adds to the answer",
    "return_prompt_token_ids": "adds to the answer",
    "stream_reasoning": "decides whether reasoning is streamed; nothing says what else",
    "task": "appends a special token to the prompt",
}
_USAGE = Rule("stream_options.include_usage", _SOURCE)

SGLANG = Provider(
    name="sglang",
    otel_name="sglang",
    base_url=None,
    hosts=frozenset(),
    apis={
        "openai_chat": spoken_elsewhere(
            CHAT,
            {**CHAT_SCALARS, **sourced(_SOURCE, _SAMPLING)},
            CHAT_FORM,
            keyed=sourced(_SOURCE, {**_GENERATE, **_CHAT_ONLY}),
            stream_usage=_USAGE,
        ),
        "openai_completions": spoken_elsewhere(
            COMPLETIONS,
            {**COMPLETIONS_SCALARS, **sourced(_SOURCE, _SAMPLING)},
            COMPLETIONS_FORM,
            excluded={"custom_labels": Rule("labels for the server's own metrics", _SOURCE)},
            keyed=sourced(
                _SOURCE,
                {
                    **_GENERATE,
                    "json_schema": "a schema as text; properties are answered in its order",
                    "response_format": "holds a schema; properties are answered in its order",
                },
            ),
            stream_usage=_USAGE,
        ),
        "openai_embeddings": spoken_elsewhere(
            EMBEDDINGS,
            UNKNOWN_EMBEDDINGS_SCALARS,
            {},
            keyed=sourced(
                _SOURCE,
                {
                    "embed_override_token_id": "changes the vectors",
                    "embed_overrides": "replaces parts of each input, by its position",
                    "lora_path": "may name an adapter for each input, by its position",
                    "priority": _IDS["priority"],
                    "rid": "may name an id for each input, by its position",
                },
            ),
        ),
        "openai_responses": spoken_elsewhere(
            RESPONSES,
            RESPONSES_SCALARS,
            RESPONSES_FORM,
            keyed=sourced(
                _SOURCE,
                {
                    **{name: why for name, why in _IDS.items() if name != "rid"},
                    **dict.fromkeys(
                        (
                            "frequency_penalty",
                            "min_p",
                            "presence_penalty",
                            "repetition_penalty",
                            "stop",
                            "top_k",
                        ),
                        "a sampling parameter, kept as spelled",
                    ),
                    "chat_template_kwargs": _CHAT_ONLY["chat_template_kwargs"],
                    "request_id": "the answer's id is made of it",
                },
            ),
        ),
        "anthropic_messages": spoken_elsewhere(MESSAGES, MESSAGES_SCALARS, MESSAGES_FORM),
    },
    header_prefixes=None,
)
